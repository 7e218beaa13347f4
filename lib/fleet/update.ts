import { mkdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { monotonic } from "../clock.ts";
import { messageOf, systemCode, UsageError } from "../errors.ts";
import { writeAtomic } from "../files.ts";
import { type Lock, acquireLock } from "../lock.ts";
import { isSha } from "../names.ts";
import { readSecretFile } from "../secrets.ts";
import type { Terminal } from "../terminal.ts";
import { checkRepo } from "./under-lock.ts";
import { askStatus, commonSha, fanOut } from "./fan-out.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";
import { failedList, outcomeLine, outcomeRows, servedRows, totalsLine } from "./report.ts";
import { createSender, type Sender } from "./send.ts";

/** server-update from its flags to its exit code. */

export interface UpdateFlags {
  list: string;
  group: string | undefined;
  jobs: number;
  timeout: number;
  "connect-timeout": number;
  retries: number;
  wait: boolean;
  "wait-limit": number;
  batch: string[];
  pause: number;
  "max-failures": string | undefined;
  sha: string | undefined;
  "secret-file": string | undefined;
  ca: string | undefined;
  failed: string | undefined;
  "dry-run": boolean;
  status: boolean;
}

/**
 * Tell the fleet, or with `--status` ask it.
 * @returns 0 when all is well, 1 when a slave failed or differs
 */
export async function serverUpdate(
  repo: string,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  checkRepo(repo);
  const plan = await readPlan(flags, terminal);
  if (flags["dry-run"]) return showPlan(plan.targets, plan.batches, flags, terminal);
  const sender = createSender({
    secret:
      flags["secret-file"] === undefined ? undefined : await readSecretFile(flags["secret-file"]),
    ca: flags.ca === undefined ? undefined : await readText(flags.ca, "--ca"),
    connectTimeout: flags["connect-timeout"],
    timeout: flags.timeout,
    signal,
  });
  try {
    return flags.status
      ? await showStatus(repo, plan.targets, sender, flags, terminal, signal)
      : await runUpdate(repo, plan, sender, flags, terminal, signal);
  } finally {
    sender.close();
  }
}

interface Plan {
  targets: Target[];
  batches: number[];
  maxFailures: number | undefined;
  wait: boolean;
}

async function readPlan(flags: UpdateFlags, terminal: Terminal): Promise<Plan> {
  for (const name of ["jobs", "retries"] as const) {
    const least = name === "jobs" ? 1 : 0;
    if (!Number.isInteger(flags[name]) || flags[name] < least) {
      throw new UsageError(`--${name} must be a whole number of at least ${least}`);
    }
  }
  if (flags.sha !== undefined && !isSha(flags.sha)) {
    throw new UsageError(`--sha: "${flags.sha}" is no full commit id (40 or 64 hex digits)`);
  }
  const list = parseList(await readText(flags.list, "--list"), flags.list);
  for (const line of list.duplicates) terminal.warn(line);
  const targets = chooseTargets(list.targets, flags.group);
  if (targets.length === 0) throw new UsageError(`${flags.list} names no slaves; add one a line`);
  const inSteps = flags.batch.length > 0;
  const most = flags["max-failures"];
  const maxFailures =
    most === undefined
      ? inSteps
        ? 0
        : undefined
      : amountOf(most, targets.length, "--max-failures");
  return {
    targets,
    batches: planBatches(flags.batch, targets.length),
    maxFailures,
    wait: flags.wait || inSteps,
  };
}

async function readText(file: string, flag: string): Promise<string> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file, "utf8");
  } catch (error) {
    const why = systemCode(error) === "ENOENT" ? "there is no such file" : messageOf(error);
    throw new UsageError(`${flag} ${file}: ${why}; name another`);
  }
}

function showPlan(
  targets: readonly Target[],
  batches: readonly number[],
  flags: UpdateFlags,
  terminal: Terminal,
): number {
  let start = 0;
  for (const [step, end] of batches.entries()) {
    if (batches.length > 1) terminal.print(`step ${step + 1}: ${end - start} of ${targets.length}`);
    for (const target of targets.slice(start, end)) {
      terminal.print(target.url.href);
      terminal.printJson({ target: target.name, url: target.url.href, step: step + 1 });
    }
    start = end;
  }
  terminal.note(
    `${targets.length} slaves would be asked, at most ${flags.jobs} at once; nothing was sent`,
  );
  return 0;
}

async function runUpdate(
  repo: string,
  plan: Plan,
  sender: Sender,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const started = monotonic();
  const file = resolve(flags.failed ?? join(stateFolder(), `${repo}.failed.txt`));
  // two runs that pin commits at once could leave the fleet half on one and half on the other
  const lock = plan.wait || flags.sha !== undefined ? await lockRun(repo, terminal) : undefined;
  const progress = terminal.progress({ label: `update ${repo}`, total: plan.targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(plan.targets, sender, {
      ...plan,
      repo,
      sha: flags.sha,
      jobs: flags.jobs,
      retries: flags.retries,
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      signal,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked, bad) =>
        terminal.note(
          `${asked} of ${plan.targets.length} asked, ${bad} failed; going on in ${flags.pause / 1000} s`,
        ),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(outcome));
    if (!terminal.json) {
      const rows = outcomeRows(outcomes);
      for (const line of terminal.table(rows, {
        header: ["SLAVE", "ANSWER", "COMMIT", "SECONDS"],
        right: [3],
      })) {
        terminal.print(line);
      }
      terminal.print(totalsLine(outcomes, (monotonic() - started) / 1000));
    }
    const bad = outcomes.filter((outcome) => !outcome.ok).length;
    await writeFailed(
      file,
      bad === 0 ? undefined : failedList(repo, outcomes, new Date()),
      terminal,
    );
    return bad === 0 ? 0 : 1;
  } finally {
    progress.end();
    lock?.release();
  }
}

async function lockRun(repo: string, terminal: Terminal): Promise<Lock> {
  const path = join(stateFolder(), `${repo}.lock`);
  const what = `server-update ${repo}`;
  try {
    return await acquireLock(path, { what, wait: 100 });
  } catch (error) {
    terminal.note(`waiting: ${messageOf(error)}`);
    return await acquireLock(path, { what, wait: true });
  }
}

/** Where lists of failed slaves go: systemd's state folder for the unit, else the user's. */
function stateFolder(): string {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0] ?? STATE_DIRECTORY;
  return join(XDG_STATE_HOME || join(homedir(), ".local", "state"), "server-update");
}

async function writeFailed(
  file: string,
  text: string | undefined,
  terminal: Terminal,
): Promise<void> {
  try {
    if (text === undefined) return await rm(file, { force: true });
    await mkdir(dirname(file), { recursive: true });
    await writeAtomic(file, text);
    terminal.note(`the failed ones are in ${file}; for these alone: --list ${file}`);
  } catch (error) {
    terminal.warn(
      `the list of failed slaves could not be written: ${messageOf(error)}; see --failed`,
    );
  }
}

async function showStatus(
  repo: string,
  targets: readonly Target[],
  sender: Sender,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const progress = terminal.progress({ label: `status of ${repo}`, total: targets.length });
  const { jobs, retries } = flags;
  const served = await askStatus(targets, sender, {
    repo,
    jobs,
    retries,
    signal,
    onAnswer: () => progress.add(1),
  });
  progress.end();
  const common = flags.sha ?? commonSha(served);
  const differing = served.filter(({ sha }) => sha === undefined || sha !== common);
  for (const { target, sha, branch, since, error } of served) {
    terminal.printJson({
      target: target.name,
      ok: sha !== undefined && sha === common,
      sha,
      branch,
      since,
      error,
    });
  }
  if (!terminal.json) {
    const header = ["SLAVE", "COMMIT", "BRANCH", "SINCE", ""];
    for (const line of terminal.table(servedRows(served, common), { header })) terminal.print(line);
    const agree = served.length - differing.length;
    terminal.print(
      `${agree} of ${served.length} serve ${common ?? "anything"}, ${differing.length} do not`,
    );
  }
  return differing.length === 0 ? 0 : 1;
}
