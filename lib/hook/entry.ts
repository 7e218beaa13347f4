import type { Change, ReleaseFacts } from "./payload.ts";
import type { Waiting } from "./queue.ts";
import type { Place } from "./segment.ts";

/** Where a change comes from: a forge's delivery, `poll`, or `rerun`. */
export interface Source {
  readonly repo: string;
  readonly forge: string;
  readonly event: string;
  readonly delivery?: string | undefined;
}

/** An accepted change that is to become a run. The journal keeps it as it is before it has a place. */
export interface Entry extends Waiting {
  readonly sha: string | undefined;
  readonly release: ReleaseFacts | undefined;
  readonly forge: string;
  readonly event: string;
  readonly delivery: string | undefined;
  /** ISO time. */
  readonly accepted: string;
  /** Where its payload lies, once it is on disk. */
  place: Place | undefined;
  /** Runs that it superseded, and that are not written down as such yet. */
  superseded: string[] | undefined;
}

// Both functions name every key, always in the same order: thousands of these are made in a second, and what
// V8 has compiled for them stays valid only as long as they are all of one shape.

/** A change that is about to be written down. */
export function entryOf(
  source: Source,
  change: Change,
  { id, order, accepted }: { id: string; order: number; accepted: string },
): Entry {
  return {
    id,
    repo: source.repo,
    kind: change.kind,
    ref: change.ref,
    sha: change.sha,
    order,
    release: change.release,
    forge: source.forge,
    event: source.event,
    delivery: source.delivery,
    accepted,
    place: undefined,
    superseded: undefined,
  };
}

/** An entry as it was read from the journal. */
export function readEntry(written: Entry, place: Place): Entry {
  return {
    id: written.id,
    repo: written.repo,
    kind: written.kind,
    ref: written.ref,
    sha: written.sha,
    order: written.order,
    release: written.release,
    forge: written.forge,
    event: written.event,
    delivery: written.delivery,
    accepted: written.accepted,
    place,
    superseded: undefined,
  };
}
