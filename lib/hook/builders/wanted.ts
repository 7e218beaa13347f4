import { isEntry, type Entry, type KnownRun, type Source } from "../store/entry.ts";
import type { Change } from "../payload/payload.ts";
import { isBranchPush } from "../store/queue.ts";

/**
 * What stands on the bus of a repo: `want.REPO`, the accepted runs without an end, in order, and `claim.REPO`, who
 * may run it. Both are changed by compare-and-set only. All here is pure.
 */

/** An accepted run, the object on the bus that holds its payload, and how often it was begun. */
export interface WantedRun extends Entry {
  readonly payload: string;
}

export interface Wanted {
  readonly repo: string;
  readonly runs: readonly WantedRun[];
  /** The last ones that were accepted, by their delivery's id: whatever is sent again is known. */
  readonly deliveries: readonly (readonly [delivery: string, run: string])[];
  /** Those that gave way to a newer one, until that is known of them (`run.ID`). */
  readonly superseded: readonly { readonly run: WantedRun; readonly by: string }[];
}

/** The run itself, as records and pages know it. */
export function entryIn({ payload: _payload, ...entry }: WantedRun): Entry {
  return entry;
}

/** So many deliveries are known of each repo, beside those of the runs that are listed. */
const keptDeliveries = 200;

/** @throws {Error} when it is not what a builder wrote. */
export function parseWanted(repo: string, text: string | undefined): Wanted {
  if (text === undefined) return { repo, runs: [], deliveries: [], superseded: [] };
  const value = JSON.parse(text) as Wanted;
  if (typeof value?.repo !== "string" || !Array.isArray(value.runs) || !value.runs.every(isEntry))
    throw new Error(`what is wanted of ${repo} on the bus is damaged`);
  return value;
}

/** The order number of the next run: microseconds, which grow also where a builder's clock is behind another's. */
export function nextOrder({ runs }: Wanted, now: number): number {
  return runs.reduce((order, run) => Math.max(order, run.order + 1), now * 1000);
}

/**
 * Add a run, unless it is there. Of a branch's pushes only the newest stays; releases and tags all do. One that is
 * handed over may be older than what was accepted meanwhile.
 */
export function addWanted(wanted: Wanted, run: WantedRun): Wanted {
  const all = [...wanted.runs, ...wanted.superseded.map((each) => each.run)];
  if (all.some(({ id }) => id === run.id)) return wanted;
  const same = wanted.runs.filter((other) => isBranchPush(run) && isBranchPush(other) && other.ref === run.ref);
  const newest = same.reduce((one, other) => (other.order > one.order ? other : one), run);
  const older = [...same, run].filter((each) => each !== newest);
  const superseded = [...wanted.superseded, ...older.map((each) => ({ run: each, by: newest.id }))];
  const runs = [...wanted.runs, run].filter((each) => !older.includes(each));
  const deliveries =
    run.delivery === undefined
      ? wanted.deliveries
      : [...wanted.deliveries, [run.delivery, run.id] as const].slice(-keptDeliveries);
  return { ...wanted, runs, deliveries, superseded };
}

/** What came before and asks for the same: a delivery that was sent again, or a look at the remote by two builders. */
function sameWanted(
  { runs, deliveries }: Wanted,
  { forge, delivery, ref, sha }: Pick<Entry, "forge" | "delivery" | "ref" | "sha">,
): string | undefined {
  if (delivery !== undefined) return deliveries.findLast(([id]) => id === delivery)?.[1];
  if (forge !== "poll") return undefined;
  return runs.find((run) => run.ref === ref && run.sha === sha)?.id;
}

/**
 * The run that came of the same before, as the answer to whoever sends it again; undefined when it is to run again: one
 * that failed is sent again on purpose. One unknown to this builder, or not known any more, counts as known: it may
 * be older than what was built since.
 * @param runOf a run that was begun, as it was last seen
 */
export function knownRun(
  wanted: Wanted,
  what: Source & Change,
  runOf: (id: string) => KnownRun | undefined,
): Entry | undefined {
  const id = sameWanted(wanted, what);
  if (id === undefined) return undefined;
  const begun = runOf(id);
  if (begun?.state === "failed" || begun?.state === "cancelled") return undefined;
  const waiting = wanted.runs.find((run) => run.id === id);
  return waiting ?? begun?.entry ?? { ...what, id, order: 0, accepted: new Date().toISOString() };
}

/** Forget of these runs that they gave way. */
export function withoutSuperseded(wanted: Wanted, ids: ReadonlySet<string>): Wanted {
  const superseded = wanted.superseded.filter(({ run }) => !ids.has(run.id));
  return { ...wanted, superseded };
}

/** Take a run out that has ended. */
export function removeWanted(wanted: Wanted, id: string): Wanted {
  return { ...wanted, runs: wanted.runs.filter((run) => run.id !== id) };
}

/** What stands in `claim.REPO`. */
export interface ClaimValue {
  readonly repo: string;
  /** The number of the claim that was taken last. */
  readonly fence?: number | undefined;
  /** The state folder of the builder that has it, and this time of having it; none: it is free. */
  readonly home?: string | undefined;
  readonly token?: string | undefined;
  /** The run that is under way, for a person who reads the bus. */
  readonly run?: string | undefined;
}

/** What a claim was when we saw it first as it is; `at` by `performance.now()`. */
export interface Seen {
  readonly revision: number;
  readonly at: number;
}

/** What can be done with a claim that was read. */
export function judgeClaim(
  value: ClaimValue | undefined,
  { seen, home, lease, now }: { seen: Seen; home: string; lease: number; now: number },
): "free" | "held" {
  if (value?.home === undefined) return "free";
  // of a former server on this state folder, whose runs have ended
  if (value.home === home) return "free";
  return now - seen.at > lease ? "free" : "held";
}

/**
 * The fencing number of the next claim: it grows with each, and, being the time (ms) where that is more, goes on
 * growing when the bus has lost its disk and with it the number before.
 */
export function nextFence(value: ClaimValue | undefined, now: number): number {
  return Math.max((value?.fence ?? 0) + 1, now);
}
