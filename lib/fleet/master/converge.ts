import type { Terminal } from "../../cli/terminal.ts";
import { Busy, messageOf, UsageError } from "../../core/errors.ts";
import { exists } from "../../files/files.ts";
import type { Outcome } from "./fan-out.ts";
import type { Target } from "./list.ts";
import {
  lockRun,
  type Master,
  OrderBook,
  readList,
  runFanOut,
  runId,
  writeFailed,
} from "./rollout.ts";
import {
  entriesOf,
  readWants,
  type Want,
  wantedRepos,
  wantFor,
  type Wants,
  writeWants,
} from "./want.ts";

/** `--converge`: bring every slave to what the last run set for it, which was down then, or failed. */

/** @returns 0, or 1 when a slave is still not there */
export async function converge(repo: string | undefined, master: Master): Promise<number> {
  const repos = repo === undefined ? await wantedRepos() : [repo];
  let code = 0;
  for (const each of repos) {
    try {
      const lock = await lockRun(each, master.terminal, false);
      try {
        if (!(await convergeRepo(each, master))) code = 1;
      } finally {
        lock.release();
      }
    } catch (error) {
      if (!(error instanceof Busy)) throw error;
      master.terminal.note(`${each}: left alone: ${messageOf(error)}`);
    }
  }
  return code;
}

async function convergeRepo(repo: string, master: Master): Promise<boolean> {
  const { terminal, keys } = master;
  const wants = await readWants(repo);
  if (!wants) throw new UsageError(`nothing is set for ${repo}; run: server-update ${repo}`);
  const lists = await listsOf(wants, terminal);
  let ok = lists.has(wants.list);
  if (!ok)
    terminal.warn(
      `${repo}: the list ${wants.list} is gone; run server-update ${repo} with another`,
    );
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
      ok = false;
      continue;
    }
    const { sha, branch } = want;
    const orders = new OrderBook(repo, { sha, branch }, runId(), before, keys);
    const outcomes = await runFanOut(repo, targets, master, {
      ...{ sha, branch, orderFor: orders.orderFor, wait: true, onlyOthers: true },
      batches: [targets.length],
    });
    before = { ...before, at: orders.last };
    await writeWants(before);
    all.push(...outcomes);
  }
  await writeFailed(repo, all, master.flags.failed, terminal);
  return ok && all.every((outcome) => outcome.ok);
}

/**
 * The lists that wants are about, as they are now, without those that are gone.
 * @throws {UsageError} for a list with a bad line
 */
export async function listsOf(wants: Wants, terminal: Terminal): Promise<Map<string, Target[]>> {
  const lists = new Map<string, Target[]>();
  for (const { list } of entriesOf(wants))
    if (!lists.has(list) && (await exists(list))) lists.set(list, await readList(list, terminal));
  return lists;
}
