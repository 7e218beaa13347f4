import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../../core/terminal.ts";
import { Busy, Failure, messageOf, UsageError } from "../../core/errors.ts";
import { askToken } from "../../run/lease.ts";
import { checkRepo } from "../settings.ts";
import { readBus } from "./bus.ts";
import { isOnBus } from "./by-bus.ts";
import type { Outcome } from "./fan-out.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";
import {
  checkFlags,
  checkKeys,
  listsOf,
  type Master,
  openMaster,
  readList,
  runFanOut,
  runId,
  runLocked,
  type UpdateFlags,
} from "./rollout.ts";
import { askFleet, keepStatus, showStatus } from "./status.ts";
import { checkFailedFile, showPlan, tellOutcomes, testNotify, writeFailed } from "./tell.ts";
import {
  askRemote,
  newOrders,
  pinCommit,
  pushedCommit,
  readWants,
  type Want,
  wantedRepos,
  wantFor,
  type Wants,
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
  /** How many are asked after each step. */
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
  else if (!flags.status && !flags.converge) throw new UsageError("name the repo that changed: server-update REPO");
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
      await askToken();
      return await runUpdate(repo, plan, master);
    };
    const outcomes = await runLocked(repo, terminal, { wait: true }, run);
    await tellOutcomes(repo, outcomes, master);
    return outcomes.every(({ ok }) => ok) ? 0 : 1;
  } finally {
    await master.onBus.close();
  }
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

/** Two slaves of one name take each other's orders. */
function warnOfNames(targets: readonly Target[], { keys, terminal }: Master): void {
  if (keys.key === undefined && keys.secret === undefined) return;
  const names = new Map<string, string>();
  for (const { name, slave } of targets) {
    const other = names.get(slave.toLowerCase());
    if (other === undefined) names.set(slave.toLowerCase(), name);
    else
      terminal.warn(
        `${other} and ${name} are both called ${slave}, so that an order for one is good for the other; ` +
          "give each its own name=NAME in the list",
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
  const shared = inSteps ? undefined : await master.onBus.share(plan.targets, flags);
  const orders = newOrders({ repo, ...pin, run }, before, { ...master.keys, goodFor: flags["good-for"] }, shared);
  const want = { ...pin, list: resolve(flags.list), group: flags.group, run, base };
  const set = (stopped: boolean) =>
    flags.list === "-"
      ? undefined
      : writeWants(withWant(before, repo, stopped ? { ...want, stopped } : want, orders.last));
  await set(inSteps);
  const outcomes = await runFanOut(repo, plan.targets, master, { ...plan, ...pin, ...orders });
  // a run that was stopped is not spread further by --converge
  await set(inSteps && outcomes.some(({ skipped }) => skipped === true));
  await writeFailed(repo, outcomes, flags.failed, terminal);
  return outcomes;
}

/**
 * With --sha nothing tells a mistyped repo from a new one: before it is set, the remote or a slave has to know it.
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
    const hosts = await askFleet(repo, targets, master);
    if (hosts.some(({ repos }) => repos.some(({ served }) => served.sha !== undefined))) return;
    throw new Failure(
      `${repo} is not known: ${messageOf(error)}, nothing was set for it before, and no slave serves it; ` +
        "correct its name, or name the right --base",
    );
  }
}

/**
 * `--converge`: bring the slaves that were down, or failed, to what the last runs set.
 * @returns 0, or 1 when a slave is still not there
 */
async function converge(repo: string | undefined, master: Master): Promise<number> {
  if (repo !== undefined && !(await readWants(repo)))
    throw new UsageError(`nothing is set for ${repo}; run: server-update ${repo}`);
  const { terminal, signal } = master;
  const repos = repo === undefined ? await wantedRepos() : [repo];
  let code = 0;
  for (const each of repos) {
    if (signal.aborted) return 1;
    try {
      const run = () => convergeRepo(each, master);
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

async function convergeRepo(repo: string, master: Master): Promise<boolean> {
  const { terminal, keys } = master;
  const wants = await readWants(repo);
  // removed meanwhile
  if (!wants) return true;
  const lists = await listsOf(wants, terminal);
  const isListed = lists.has(wants.list);
  if (!isListed) terminal.warn(`${repo}: the list ${wants.list} is gone; run server-update ${repo} with another`);
  let isStopped = false;
  const groups = new Map<Want, Target[]>();
  for (const target of new Set([...lists.values()].flat())) {
    const want = wantFor(wants, target, lists);
    // a slave that is in several lists or groups is one
    const known = want && groups.get(want)?.some(({ url }) => url.href === target.url.href);
    if (want && !known) groups.set(want, [...(groups.get(want) ?? []), target]);
  }
  let before: Wants = wants;
  const all: Outcome[] = [];
  for (const [want, targets] of groups) {
    if (want.stopped) {
      terminal.warn(
        `${repo}: run ${want.run} of ${want.sha.slice(0, 12)} was stopped before it reached all; ` +
          `run server-update ${repo} again`,
      );
      isStopped = true;
      continue;
    }
    const { sha, branch } = want;
    terminal.print(`${repo}, which should be at ${sha.slice(0, 12)}:`);
    const orders = newOrders({ repo, sha, branch, run: runId() }, before, {
      ...keys,
      goodFor: master.flags["good-for"],
    });
    const outcomes = await runFanOut(repo, targets, master, {
      ...{ sha, branch, ...orders, wait: true, onlyOthers: true, batches: [targets.length] },
    });
    before = { ...before, at: orders.last };
    await writeWants(before);
    all.push(...outcomes);
  }
  // the list of those that a stopped run did not reach stays
  if (!isStopped) await writeFailed(repo, all, master.flags.failed, terminal);
  if (master.signal.aborted) return false;
  for (const [list, targets] of lists) await keepStatus(repo, list, await askFleet(repo, targets, master), terminal);
  await tellOutcomes(repo, all, master);
  return isListed && !isStopped && all.every(({ ok }) => ok);
}
