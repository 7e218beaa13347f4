import { nameOnBus } from "../../bus/address.ts";
import { hasEnded, recordOf, type RunRecord } from "../runs/records.ts";
import { viewOf } from "../runs/runs.ts";
import type { Connected } from "./connection.ts";
import type { Documents, SharedRun } from "./documents.ts";
import { entryIn, type Wanted, type WantedRun } from "./wanted.ts";

/** What becomes of a run, on the bus: `run.ID`. A builder whose claim is older than the one there changes nothing. */

/**
 * A run is begun under a claim.
 * @param isLost its payload is gone: it fails.
 * @returns undefined when it has ended already
 */
export async function noteBegin(
  documents: Documents,
  run: WantedRun,
  by: { builder: string; home: string; fence: number },
  isLost: boolean,
): Promise<SharedRun | undefined> {
  return await documents.changeRun(run.id, (before) => {
    if (before && hasEnded(before.state)) return undefined;
    const view: SharedRun = before ?? viewOf(recordOf(entryIn(run)));
    const now = new Date().toISOString();
    if (isLost) return { ...view, state: "failed", reason: "its payload is lost; push again", ended: now };
    const interrupted = before?.started === undefined ? before?.interrupted : [...(before.interrupted ?? []), now];
    const { payload } = run;
    return { ...view, ...by, payload, state: "starting", interrupted, reason: undefined };
  });
}

/** A run that was begun here has another state; false when it is another builder's by now. */
export async function noteState(
  documents: Documents,
  record: RunRecord,
  home: string,
  claimed: number,
): Promise<boolean> {
  const written = await documents.changeRun(record.id, (before) => {
    const { fence = 0, state = "waiting", payload } = before ?? {};
    if (fence > claimed) return undefined;
    // its end is there, which may be our own write whose answer was lost
    if (hasEnded(state) && (fence !== claimed || !hasEnded(record.state))) return undefined;
    return { ...viewOf(record), home, payload, fence: claimed };
  });
  return written !== undefined;
}

/**
 * Runs that were begun, whose builder is gone, and which gave way to a newer one meanwhile, have an end, too.
 * @param fence of the repo's claim, which is the caller's: nobody else runs anything of the repo
 */
export async function closeLeft(documents: Documents, { repo, runs }: Wanted, fence: number): Promise<void> {
  const isLeft = (run: SharedRun) =>
    !hasEnded(run.state) && (run.fence ?? 0) < fence && !runs.some(({ id }) => id === run.id);
  const ofRepo = [...documents.runs()].filter((run) => nameOnBus(run.repo) === nameOnBus(repo));
  for (const { id } of ofRepo.filter(isLeft)) {
    const ended = new Date().toISOString();
    const reason = "its builder is gone";
    await documents.changeRun(id, (run) => {
      if (!run || !isLeft(run)) return undefined;
      const by = runs.findLast(({ kind, ref }) => kind === run.kind && ref === run.ref)?.id;
      return { ...run, state: by === undefined ? "failed" : "superseded", by, reason, ended };
    });
  }
}

/** Forget a repo's old runs. @throws {Failure} */
export async function tidyRuns(
  { documents, logs }: Connected,
  repo: string,
  { keep, keepFor }: { keep: number; keepFor: number },
): Promise<void> {
  for (const run of documents.old(repo, { keep, maxAge: keepFor })) {
    await documents.removeRun(run.id);
    await logs.remove(run.id);
  }
}

/** A payload that is about to be named is younger than this, whatever the builders' clocks say. In milliseconds. */
const unnamedFor = 24 * 3_600_000;

/**
 * Remove the payloads that no run names: of runs that are forgotten or gave way, and of deliveries whose builder was
 * killed before they were accepted. Runs of one delivery share a payload. @throws {Failure}
 */
export async function tidyPayloads(
  { documents, payloads }: Pick<Connected, "documents" | "payloads">,
  now: number,
): Promise<void> {
  if (documents.isUnclear) return;
  const named = new Set([...documents.runs()].map(({ payload }) => payload));
  for (const { runs } of documents.wanted()) for (const { payload } of runs) named.add(payload);
  for (const name of await payloads.names(now - unnamedFor)) if (!named.has(name)) await payloads.remove(name);
}
