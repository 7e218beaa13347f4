import { Busy, Failure, messageOf, UsageError } from "../../core/errors.ts";
import type { Outcome } from "./fan-out.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master, OrderBook, runFanOut, runId, runLocked } from "./rollout.ts";
import { askFleet, keepStatus } from "./status.ts";
import { tellOutcomes, writeFailed } from "./tell.ts";
import { readWants, type Want, wantedRepos, wantFor, type Wants, writeWants } from "./want.ts";

/** `server-update --converge`: what the last runs set, for the slaves that were down then, or failed. */

/**
 * Bring every slave there that is not.
 * @returns 0, or 1 when a slave is still not there
 */
export async function converge(repo: string | undefined, master: Master): Promise<number> {
  if (repo !== undefined && !(await readWants(repo)))
    throw new UsageError(`nothing is set for ${repo}; run: server-update ${repo}`);
  const repos = repo === undefined ? await wantedRepos() : [repo];
  let code = 0;
  for (const each of repos) {
    try {
      const run = () => convergeRepo(each, master);
      if (!(await runLocked(each, master.terminal, { wait: false }, run))) code = 1;
    } catch (error) {
      if (error instanceof Busy) {
        master.terminal.note(`${each}: left alone: ${messageOf(error)}`);
        continue;
      }
      // a wrong list keeps none of the other repos from its slaves
      if (!(error instanceof UsageError || error instanceof Failure)) throw error;
      master.terminal.warn(`${each}: ${error.message}`);
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
  if (!isListed)
    terminal.warn(
      `${repo}: the list ${wants.list} is gone; run server-update ${repo} with another`,
    );
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
        `${repo}: run ${want.run} of ${want.sha.slice(0, 12)} was stopped before it reached all; run server-update ${repo} again`,
      );
      isStopped = true;
      continue;
    }
    const { sha, branch } = want;
    terminal.print(`${repo}, which should be at ${sha.slice(0, 12)}:`);
    const orders = new OrderBook(repo, { sha, branch }, runId(), before, keys);
    const outcomes = await runFanOut(repo, targets, master, {
      ...{ sha, branch, orderFor: orders.orderFor, wait: true, onlyOthers: true },
      batches: [targets.length],
    });
    before = { ...before, at: orders.last };
    await writeWants(before);
    all.push(...outcomes);
  }
  // the list of those that a stopped run did not reach stays
  if (!isStopped) await writeFailed(repo, all, master.flags.failed, terminal);
  for (const [list, targets] of lists)
    await keepStatus(repo, { list, ...(await askFleet(repo, targets, master)) }, terminal);
  await tellOutcomes(repo, all, master);
  return isListed && !isStopped && all.every(({ ok }) => ok);
}
