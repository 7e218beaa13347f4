import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../../core/terminal.ts";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { checkClaim } from "../../exec/claim.ts";
import { checkBase } from "../remote.ts";
import { checkRepo } from "../settings.ts";
import { readBus } from "./bus.ts";
import type { Shared } from "./by-bus.ts";
import { converge } from "./converge.ts";
import type { Outcome } from "./fan-out.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";
import {
  isOnBus,
  type Master,
  openMaster,
  OrderBook,
  readList,
  runFanOut,
  runId,
  runLocked,
  type UpdateFlags,
} from "./rollout.ts";
import { askFleet, showStatus } from "./status.ts";
import { checkFailedFile, slaves, tellOutcomes, testNotify, writeFailed } from "./tell.ts";
import {
  askRemote,
  pinCommit,
  pushedCommit,
  readWants,
  wantedRepos,
  withWant,
  writeWants,
} from "./want.ts";

/** server-update from its flags to its exit code. */

export { wantedRepos };

/** The groups in a list of slaves, for completion in a shell. */
export async function groupsIn(list: string): Promise<string[]> {
  const { targets } = parseList(await readFile(list, "utf8"), list);
  return [...new Set(targets.map(({ group }) => group))].filter((group) => group !== "");
}

interface Plan {
  targets: Target[];
  batches: number[];
  maxFailures: number | undefined;
  wait: boolean;
}

/**
 * Tell the fleet; with `--status` ask it, with `--converge` bring those along that have fallen behind.
 * @param repo with `--status` and `--converge` it may be undefined: all of them
 * @returns 0, or 1 when a slave failed or differs
 */
export async function serverUpdate(
  repo: string | undefined,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  if (flags["notify-test"]) return await testNotify(flags.notify, terminal);
  checkFlags(flags);
  if (repo !== undefined) checkRepo(repo);
  else if (!flags.status && !flags.converge)
    throw new UsageError("name the repo that changed: server-update REPO");
  else if (flags.sha !== undefined || flags.branch !== undefined)
    throw new UsageError("--sha and --branch are about one repo: server-update --status REPO");
  else if (flags.converge && flags.failed !== undefined)
    throw new UsageError("--failed is about one repo: server-update --converge REPO");
  const plan = flags.converge ? undefined : await readPlan(flags, terminal);
  if (plan && flags["dry-run"]) return showPlan(plan, flags.jobs, terminal);
  if (flags.failed !== undefined && !flags.status) await checkFailedFile(flags.failed);
  // a bus that is not known is said before anything is sent
  if (plan?.targets.some(isOnBus)) await readBus(flags.via);
  const master = await openMaster(flags, terminal, signal);
  if (!flags.status || flags.verify) checkKeys(plan?.targets ?? [], master);
  try {
    if (!plan) return await converge(repo, master);
    if (repo === undefined || flags.status) return await showStatus(repo, plan.targets, master);
    warnOfNames(plan.targets, master);
    const run = async () => {
      await checkClaim();
      return await runUpdate(repo, plan, master);
    };
    const outcomes = await runLocked(repo, terminal, { wait: true }, run);
    await tellOutcomes(repo, outcomes, master);
    return outcomes.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    await master.onBus.close();
  }
}

/** @throws {UsageError} */
function checkFlags(flags: UpdateFlags): void {
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
  if (flags.verify && !flags.status) throw new UsageError("--verify goes with --status");
  if (flags.base !== undefined) checkBase(flags.base);
}

/** @throws {UsageError} when some of the slaves could not take what is sent, whatever they are */
function checkKeys(targets: readonly Target[], { keys }: Master): void {
  const [first] = keys.key === undefined ? targets.filter(isOnBus) : [];
  if (first)
    throw new UsageError(
      `${first.name} takes only what is signed with a key; make one: server-update keygen, or name it by --key-file`,
    );
}

/** @throws {UsageError} for a bad flag, and for every bad line of the list */
async function readPlan(flags: UpdateFlags, terminal: Terminal): Promise<Plan> {
  const targets = chooseTargets(await readList(flags.list, terminal), flags.group);
  if (targets.length === 0) throw new UsageError(`${flags.list} names no slaves; add one a line`);
  const inSteps = flags.batch.length > 0;
  const max = flags["max-failures"] ?? (inSteps ? "0" : undefined);
  return {
    targets,
    batches: planBatches(flags.batch, targets.length),
    maxFailures: max === undefined ? undefined : amountOf(max, targets.length, "--max-failures"),
    wait: flags.wait || inSteps,
  };
}

/** `--dry-run`: which slaves would be asked, and in which step. */
function showPlan({ targets, batches }: Plan, jobs: number, terminal: Terminal): number {
  let start = 0;
  for (const [step, end] of batches.entries()) {
    if (batches.length > 1) terminal.print(`step ${step + 1}: ${end - start} of ${targets.length}`);
    for (const { name, url } of targets.slice(start, end)) {
      terminal.print(url.href);
      terminal.printJson({ target: name, url: url.href, step: step + 1 });
    }
    start = end;
  }
  terminal.note(
    `${slaves(targets.length)} would be asked, at most ${jobs} at once; nothing was sent`,
  );
  return 0;
}

/** Two slaves of one name take each other's orders. */
function warnOfNames(targets: readonly Target[], { keys, terminal }: Master): void {
  if (keys.key === undefined && keys.secret === undefined) return;
  const names = new Map<string, string>();
  for (const { name, slave } of targets) {
    const other = names.get(slave.toLowerCase());
    if (other === undefined) names.set(slave.toLowerCase(), name);
    else
      terminal.warn(
        `${other} and ${name} are both called ${slave}, so that an order for one is good for the other; give each its own name=NAME in the list`,
      );
  }
}

async function runUpdate(repo: string, plan: Plan, master: Master): Promise<Outcome[]> {
  const { flags, terminal, signal } = master;
  const before = await readWants(repo);
  const base = flags.base ?? before?.base;
  const pin = await pinCommit(repo, { ...flags, base }, signal);
  if (flags.sha !== undefined && !before) await checkKnown(repo, base, plan.targets, master);
  const run = runId();
  const inSteps = plan.batches.length > 1 || plan.maxFailures !== undefined;
  const shared = inSteps ? undefined : await shareOrder(plan.targets, master);
  const orders = new OrderBook(repo, pin, run, before, master.keys, shared);
  const want = { ...pin, list: resolve(flags.list), group: flags.group, run, base };
  const set = (stopped: boolean) =>
    flags.list === "-"
      ? undefined
      : writeWants(withWant(before, repo, stopped ? { ...want, stopped } : want, orders.last));
  await set(inSteps);
  const outcomes = await runFanOut(repo, plan.targets, master, {
    ...{ ...plan, ...pin, orderFor: orders.orderFor },
  });
  // a run that was stopped is not spread further by --converge
  await set(outcomes.some(({ skipped }) => skipped === true));
  await writeFailed(repo, outcomes, flags.failed, terminal);
  return outcomes;
}

/**
 * With --sha nothing tells a mistyped repo from a new one: before anything is set for it, the remote or a slave has to know it.
 * @throws {Failure}
 */
async function checkKnown(
  repo: string,
  base: string | undefined,
  targets: readonly Target[],
  master: Master,
): Promise<void> {
  if (pushedCommit(repo, process.env)) return;
  try {
    await askRemote(repo, { branch: undefined, base }, master.signal);
  } catch (error) {
    // a master may be without the right to read it
    const { hosts } = await askFleet(repo, targets, master);
    if (hosts.some(({ repos }) => repos.some(({ sha }) => sha !== undefined))) return;
    throw new Failure(
      `${repo} is not known: ${messageOf(error)}, nothing was set for it before, and no slave serves it; correct its name, or name the right --base`,
    );
  }
}

/** Fewer than these at once are meant to spare something: then each slave gets an order of its own. */
const unlimited = 512;

/** All slaves on the bus take one order, where that cannot reach others, and nobody wants them to go one by one. */
async function shareOrder(
  targets: readonly Target[],
  { flags, onBus, terminal }: Master,
): Promise<Shared | undefined> {
  const there = targets.filter(isOnBus);
  if (there.length === 0 || flags.jobs < Math.min(unlimited, there.length)) return undefined;
  try {
    return await onBus.share(there, flags.group);
  } catch (error) {
    // each of them says so in the end; what is wanted is noted for --converge before
    terminal.note(messageOf(error));
    return undefined;
  }
}
