import { resolve } from "node:path";
import { defineCommand, type FlagsOf, runScript } from "../lib/cli/command.ts";
import { Busy, Failure, messageOf, UsageError } from "../lib/core/errors.ts";
import { isSafeRef, isSha } from "../lib/core/names.ts";
import { formatDuration, formatSize } from "../lib/core/units.ts";
import type { Terminal } from "../lib/core/terminal.ts";
import { askToken } from "../lib/run/lease.ts";
import {
  desiredRepos,
  desiredState,
  newOrders,
  resolveCommit,
  withDesired,
  writeDesired,
} from "../lib/fleet/master/desired-state.ts";
import {
  desiredByEntry,
  groupsIn,
  type Master,
  openMaster,
  type Plan,
  readPlan,
  runId,
  runLocked,
} from "../lib/fleet/master/master.ts";
import { checkFailedFile, tellDrift, tellOutcomes, testNotify, writeFailed } from "../lib/fleet/master/messages.ts";
import { fanOut, type FanOutOptions, type Outcome } from "../lib/fleet/master/rollout.ts";
import { askFleet, checkKnown, type Host, keepStatus, type Question } from "../lib/fleet/master/status.ts";
import { checkBase, checkRepo } from "../lib/fleet/settings.ts";
import { keygen } from "./server-update-commands.ts";

const usage = `
server-update: tell every slave in a list to update a repo

Usage
  server-update REPO [flags]
  server-update --status [REPO] [flags]
  server-update --converge [REPO] [flags]
  server-update keygen --out FILE

Operands
  [REPO]  the repo's name, as the slaves clone it

Flags
  --list FILE=/etc/server-update/slavelist.txt  the slaves, one a line; - reads stdin [$SLAVELIST]
  --group NAME                        only the slaves under [NAME]
  --base URL                          the URL below which the repos are, for the newest commit (default: that of the
                                      last run) [$SERVER_UPDATE_BASE]
  --branch NAME                       a branch or tag (default: the remote's HEAD)
  -j, --jobs N=512                    slaves asked at once
  --timeout TIME=10s                  limit for an answer
  --connect-timeout TIME=2s           limit for a connection
  --retries N=2                       retries if a slave does not answer
  --wait                              wait for the result of each slave
  --wait-limit TIME=15m               count a slave as failed if it takes longer
  --good-for TIME=7d                  how long an order may wait on the bus for its slave; --converge renews it
  --batch STEPS,…                     go in steps such as 1,10%,100%, with --wait; stops at a failure
  --pause TIME=10s                    pause between two steps
  --max-failures N|N%                 stop when more slaves have failed (default: no limit; 0 with --batch)
  --sha SHA                           exactly this commit instead of the newest
  --back                              with --sha: also an older commit than a slave with signers: serves, where its
                                      slave.yml says allow_back
  --key-file FILE                     sign with this key (default: /etc/server-update/master.key if it is there)
                                      [$SERVER_UPDATE_KEY_FILE]
  --secret-file FILE                  sign with the secret that the slaves share (default: secret beside the list if it
                                      is there) [$SERVER_UPDATE_SECRET_FILE]
  --via URL|FILE                      the bus of slaves that the list names bus://… (default:
                                      /etc/server-update/bus.yml)
  --ca FILE                           PEM of the authority behind https:// slaves
  --failed FILE                       list of the failed ones (default: REPO.failed.txt in /var/lib/server-update for
                                      root, in ~/.local/state/server-update for others)
  --status                            show what every slave serves; change nothing
  --verify                            with --status: every slave also compares its files
  --converge                          update slaves that the last run did not reach
  --dry-run                           show which slaves would be asked
  --notify FILE=/etc/server-update/notify.yml  the file that says who gets messages when slaves fail or differ
                                      [$SERVER_UPDATE_NOTIFY]
  --notify-test                       send a sample to each, and do nothing else

Environment
  STATE_DIRECTORY  the folder for the desired state and the lists of failed slaves
  HOOK_SHA         with HOOK_REPO and HOOK_REF, in on_success: of hook-server: the commit

Examples
  server-update site                  tell all slaves, without waiting for the result
  server-update site --wait           the same, and wait for the result
  server-update site --batch 1,10%,100%  one first, then a tenth, then the rest
  server-update --status              show which slave serves which commit
  server-update --converge            from cron: update slaves that were down

Exit codes
  1  a slave failed, was not asked, or differs (--status)

--json prints an object a line as the answers come: repo, target, ok, before, sha, seconds, error.
`;

type Flags = FlagsOf<typeof usage>;

const command = defineCommand({
  usage,
  complete: {
    group: ({ flags }) => groupsIn(flags.list ?? ""),
    REPO: () => desiredRepos(),
  },
  subcommands: { keygen },
  run: async ({ flags, args: [repo], terminal, signal }) => {
    if (flags["notify-test"]) return await testNotify(flags.notify, terminal);
    checkFlags(repo, flags);
    // choose
    const plan = flags.converge ? undefined : await readPlan(flags, terminal);
    if (plan && flags["dry-run"]) return showPlan(plan, flags.jobs, terminal);
    if (flags.failed !== undefined && !flags.status) await checkFailedFile(flags.failed);
    const asks = flags.status && !flags.verify;
    const master = await openMaster(plan?.targets ?? [], flags, { asks, terminal, signal });
    try {
      if (!plan) return await converge(repo, flags, master);
      const { sha, branch, verify } = flags;
      const commit = sha === undefined ? undefined : { sha, branch };
      if (repo === undefined || flags.status) return await showStatus(repo, plan.targets, { verify, commit }, master);
      const outcomes = await runLocked(repo, terminal, { wait: true }, () => update(repo, plan, flags, master));
      await tellOutcomes(repo, outcomes, master);
      return outcomes.every(({ ok }) => ok) ? 0 : 1;
    } finally {
      await master.onBus.close();
    }
  },
});

/** Bring the slaves of a list to a commit: resolve it, sign it, send it, follow it, and report. */
async function update(repo: string, plan: Plan, flags: Flags, master: Master): Promise<Outcome[]> {
  const { terminal, signal, transportFor } = master;
  await askToken();
  const before = await desiredState(repo).read();
  const base = flags.base ?? before?.entries[0]?.base;
  const { sha, branch } = await resolveCommit(repo, { ...flags, base }, signal);
  if (flags.sha !== undefined && !before) await checkKnown(repo, base, plan.targets, master);

  const run = runId();
  const inSteps = plan.batches.length > 1 || plan.maxFailures !== undefined;
  const back = flags.back || undefined;
  const orders = newOrders({ repo, sha, branch, back, run }, before, transportFor);
  const desired = { sha, branch, back, list: resolve(flags.list), group: flags.group, run, base };
  const set = async (stopped: boolean) => {
    if (flags.list === "-") return;
    await writeDesired(repo, withDesired(before, { ...desired, stopped: stopped || undefined }, orders.last));
  };

  // until it has reached all, --converge leaves alone whom a run in steps has not reached
  await set(inSteps);
  const wait = flags.wait || flags.batch.length > 0;
  const outcomes = await runFanOut(repo, plan.targets, master, { ...plan, sha, branch, ...orders, wait });
  await set(inSteps && outcomes.some(({ skipped }) => skipped === true));
  await writeFailed(repo, outcomes, flags.failed, terminal);
  return outcomes;
}

/** Bring the slaves that were down, or failed, to what the last runs set. */
async function converge(repo: string | undefined, flags: Flags, master: Master): Promise<number> {
  if (repo !== undefined && !(await desiredState(repo).read()))
    throw new UsageError(`nothing is set for ${repo}; run: server-update ${repo}`);
  const { terminal, signal } = master;
  let code = 0;
  for (const each of repo === undefined ? await desiredRepos() : [repo]) {
    if (signal.aborted) return 1;
    try {
      const run = () => convergeRepo(each, flags, master);
      if (!(await runLocked(each, terminal, { wait: false }, run))) code = 1;
    } catch (error) {
      if (error instanceof Busy) {
        terminal.note(`${each}: left alone: ${messageOf(error)}`);
        continue;
      }
      // a wrong list keeps none of the other repos from its slaves
      if (!(error instanceof UsageError || error instanceof Failure)) throw error;
      terminal.warn(`${each}: ${error.message}`);
      code = 1;
    }
  }
  return code;
}

/** @returns whether all of them are there */
async function convergeRepo(repo: string, flags: Flags, master: Master): Promise<boolean> {
  const { terminal, signal, transportFor } = master;
  let before = await desiredState(repo).read();
  // removed meanwhile
  if (!before) return true;
  const { groups, lists } = await desiredByEntry(before, terminal);
  const { list: newest = "" } = before.entries[0] ?? {};
  const isListed = lists.has(newest);
  if (!isListed) terminal.warn(`${repo}: the list ${newest} is gone; run server-update ${repo} with another`);
  let isStopped = false;
  const all: Outcome[] = [];
  for (const [{ sha, branch, back, stopped, run }, targets] of groups) {
    if (stopped) {
      const what = `run ${run} of ${sha.slice(0, 12)} was stopped before it reached all`;
      terminal.warn(`${repo}: ${what}; run server-update ${repo} again`);
      isStopped = true;
      continue;
    }
    terminal.print(`${repo}, which should be at ${sha.slice(0, 12)}:`);
    const orders = newOrders({ repo, sha, branch, back, run: runId() }, before, transportFor);
    const how = { sha, branch, ...orders, wait: true, onlyOthers: true, batches: [targets.length] };
    all.push(...(await runFanOut(repo, targets, master, { ...how, maxFailures: undefined })));
    before = { ...before, at: orders.last };
    await writeDesired(repo, before);
  }
  // the list of those that a stopped run did not reach stays
  if (!isStopped) await writeFailed(repo, all, flags.failed, terminal);
  if (signal.aborted) return false;
  for (const [list, targets] of lists)
    await keepStatus(repo, list, await askFleet(repo, targets, {}, master), terminal);
  await tellOutcomes(repo, all, master);
  return isListed && !isStopped && all.every(({ ok }) => ok);
}

/** `--dry-run`: which slaves would be asked, and in which step. */
function showPlan({ targets, batches }: Pick<Plan, "targets" | "batches">, jobs: number, terminal: Terminal): number {
  let start = 0;
  for (const [step, end] of batches.entries()) {
    if (batches.length > 1) terminal.print(`step ${step + 1}: ${end - start} of ${targets.length}`);
    for (const { name, url } of targets.slice(start, end)) {
      terminal.print(url.href);
      terminal.printJson({ target: name, url: url.href, step: step + 1 });
    }
    start = end;
  }
  terminal.note(`${slaves(targets.length)} would be asked, at most ${jobs} at once; nothing was sent`);
  return 0;
}

/** Fan out, with progress, and show what became of it. */
async function runFanOut(
  repo: string,
  targets: Plan["targets"],
  { flags, transportFor, terminal, signal }: Master,
  options: Pick<FanOutOptions, "sha" | "branch" | "orderFor" | "wait" | "batches" | "maxFailures"> & {
    onlyOthers?: boolean;
  },
): Promise<Outcome[]> {
  const started = performance.now();
  const progress = terminal.progress({ label: `update ${repo}`, total: targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(targets, {
      ...{ ...options, transportFor, repo, signal, jobs: flags.jobs },
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(repo, outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked) =>
        terminal.note(`${asked} of ${targets.length} asked, ${failed} failed; going on in ${flags.pause / 1000} s`),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(repo, outcome));
    printOutcomes(outcomes, (performance.now() - started) / 1000, terminal);
    return outcomes;
  } finally {
    progress.end();
  }
}

/** A table of those that took it, below it those that did not, whose reasons are long, and a line of the whole. */
function printOutcomes(outcomes: readonly Outcome[], seconds: number, terminal: Terminal): void {
  if (terminal.json) return;
  const { paint } = terminal;
  const width = Math.max(...outcomes.map(({ target }) => target.name.length));
  const rows = outcomes
    .filter(({ ok }) => ok)
    .map(({ target, answer, sha, seconds: took }) => [
      target.name.padEnd(width),
      paint.green(answer),
      sha?.slice(0, 12) ?? "",
      took.toFixed(1),
    ]);
  const header = ["SLAVE", "ANSWER", "COMMIT", "SECONDS"];
  if (rows.length > 0) for (const line of terminal.table(rows, { header, right: [3] })) terminal.print(line);
  for (const { target, ok, answer } of outcomes)
    if (!ok) terminal.print(`${target.name.padEnd(width)}  ${paint.red(`FAILED: ${answer}`)}`);
  terminal.print(totalsLine(outcomes, seconds));
}

/** One slave as `--json` shows it. */
function outcomeLine(repo: string, { target, ok, before, sha, seconds, error, skipped }: Outcome) {
  const rounded = Math.round(seconds * 1000) / 1000;
  const line = { repo, target: target.name, ok, before, sha, seconds: rounded, error };
  return skipped ? { ...line, skipped } : line;
}

/** `5 slaves: 4 ok, 1 failed; at 1a2b3c…; 2.1 s`. */
function totalsLine(outcomes: readonly Outcome[], seconds: number): string {
  const ok = outcomes.filter((outcome) => outcome.ok);
  const skipped = outcomes.filter((outcome) => outcome.skipped).length;
  const words = [`${ok.length} ok`, `${outcomes.length - ok.length - skipped} failed`];
  if (skipped > 0) words.push(`${skipped} not asked`);
  const shas = [...new Set(ok.map(({ sha }) => sha))].filter((sha) => sha !== undefined);
  const at = shas.length > 1 ? `${shas.length} different commits` : shas[0];
  const parts = [words.join(", "), ...(at === undefined ? [] : [`at ${at}`])];
  return `${slaves(outcomes.length)}: ${parts.join("; ")}; ${seconds.toFixed(1)} s`;
}

function slaves(count: number): string {
  return count === 1 ? "1 slave" : `${count} slaves`;
}

/**
 * Ask all, and show which differ: from `--sha`, else from what the last run set, else from what most serve.
 * @param repo undefined: all repos, and the machines
 * @returns 0, or 1 when one differs or cannot be asked
 */
async function showStatus(
  repo: string | undefined,
  targets: Plan["targets"],
  question: Question,
  master: Master,
): Promise<number> {
  const { flags, terminal } = master;
  const label = repo === undefined ? "status" : `status of ${repo}`;
  const progress = terminal.progress({ label, total: targets.length });
  const hosts = await askFleet(repo, targets, question, master, () => progress.add(1));
  progress.end();
  // a name that nobody knows is a typing mistake, and none of the page's repos
  const isKnown = repo === undefined || hosts.some(({ wanted }) => wanted !== undefined);
  if (flags.list !== "-" && isKnown) await keepStatus(repo, flags.list, hosts, terminal);
  for (const host of hosts) terminal.printJson(jsonOf(host, repo));
  if (!terminal.json) printStatus(repo, hosts, terminal);
  const bad = hosts.filter(({ isGood }) => !isGood);
  const differing = bad.flatMap((host) => rowsOf(host, repo).map((row) => row.join(" ")));
  await tellDrift(repo, { asked: hosts.length, differing }, master);
  return bad.length === 0 ? 0 : 1;
}

function printStatus(repo: string | undefined, hosts: readonly Host[], terminal: Terminal): void {
  const machine = ["BOATYARD", "NODE", "GIT", "FREE", "UP"];
  const header = [
    ...["SLAVE", ...(repo === undefined ? ["REPO"] : []), "COMMIT", "BRANCH", "SINCE"],
    ...[...(repo === undefined ? machine : []), ""],
  ];
  const rows = hosts.flatMap((host) => rowsOf(host, repo));
  for (const row of rows) row.push(terminal.paint.red(row.pop() ?? ""));
  for (const line of terminal.table(rows, { header })) terminal.print(line);
  const good = hosts.filter(({ isGood }) => isGood).length;
  const [of, others] = [`${good} of ${hosts.length}`, hosts.length - good];
  if (repo === undefined) return terminal.print(`${of} are as they should be, ${others} are not`);
  const [only, ...more] = new Set(hosts.map(({ wanted }) => wanted));
  const what = more.length > 0 ? "what they should" : (only ?? "anything");
  terminal.print(`${of} serve ${what}, ${others} do not`);
}

/** What `--json` shows of a slave. */
function jsonOf({ target, repos, report, error, isGood: ok }: Host, repo: string | undefined) {
  const shown = repos.map(({ served, drift }) => ({ ...served, order: undefined, ok: drift === "" }));
  if (repo === undefined) {
    const { name, boatyard, node, git, free, uptime } = report ?? {};
    const about = { name, boatyard, node, git, free, uptime };
    return { target: target.name, ok, ...about, error, repos: shown };
  }
  const { repo: _, ok: __, ...one } = shown[0] ?? { repo, ok, error };
  return { target: target.name, ok, ...one, error: error ?? one.error };
}

/** Its rows of the table; the last word of each is what is wrong. */
function rowsOf({ target, repos, error, report }: Host, repo: string | undefined): string[][] {
  if (error !== undefined) {
    const empty = Array.from({ length: repo === undefined ? 9 : 3 }, () => "");
    return [[target.name, ...empty, `FAILED: ${error}`]];
  }
  const { boatyard = "", node = "", git = "", free, uptime } = report ?? {};
  const machine = [
    ...[boatyard, node, git],
    free === undefined ? "" : formatSize(free),
    uptime === undefined ? "" : formatDuration(uptime * 1000),
  ];
  // a slave that serves nothing has a row, too
  const all = repos.length > 0 ? repos : [{ served: undefined, drift: "" }];
  return all.map(({ served, drift }) => {
    const commit = [
      served?.sha?.slice(0, 12) ?? "",
      served?.branch ?? "",
      served?.since?.replace(/\.\d+Z$/, "Z") ?? "",
    ];
    return repo === undefined
      ? [target.name, served?.repo ?? "", ...commit, ...machine, drift]
      : [target.name, ...commit, drift];
  });
}

/** @throws {UsageError} */
function checkFlags(repo: string | undefined, flags: Flags): void {
  for (const [name, min] of [
    ["jobs", 1],
    ["retries", 0],
  ] as const)
    if (!Number.isInteger(flags[name]) || flags[name] < min)
      throw new UsageError(`--${name} must be a whole number of at least ${min}`);
  if (flags.sha !== undefined && !isSha(flags.sha))
    throw new UsageError(`--sha: "${flags.sha}" is not a full commit id (40 or 64 hex digits)`);
  if (flags.branch !== undefined && !isSafeRef(flags.branch))
    throw new UsageError(`--branch: "${flags.branch}" is not a branch or tag name`);
  const clashes = ["status", "dry-run", "sha", "branch", "group"] as const;
  const clash = clashes.find((name) => flags[name] !== undefined && flags[name] !== false);
  if (flags.converge && (clash !== undefined || flags.batch.length > 0))
    throw new UsageError(`--converge goes without --${clash ?? "batch"}`);
  if (flags.back && flags.sha === undefined) throw new UsageError("--back goes with --sha");
  if (flags.verify && !flags.status) throw new UsageError("--verify goes with --status");
  if (flags.base !== undefined) checkBase(flags.base);
  if (repo !== undefined) checkRepo(repo);
  else if (!flags.status && !flags.converge) throw new UsageError("name the repo that changed: server-update REPO");
  else if (flags.sha !== undefined || flags.branch !== undefined)
    throw new UsageError("--sha and --branch are about one repo: server-update --status REPO");
  else if (flags.converge && flags.failed !== undefined)
    throw new UsageError("--failed is about one repo: server-update --converge REPO");
}

void runScript(command);
