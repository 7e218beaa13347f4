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

/** What the journal keeps of an accepted change. */
export interface Written extends Waiting {
  readonly sha: string | undefined;
  readonly release: ReleaseFacts | undefined;
  readonly forge: string;
  readonly event: string;
  readonly delivery: string | undefined;
  /** ISO time. */
  readonly accepted: string;
}

/** An accepted change that is to become a run. */
export interface Entry extends Written {
  /** Where its payload lies. */
  place: Place;
  /** Runs that it superseded, and that are not written down as such yet. */
  superseded: string[] | undefined;
}

// Both functions name every key, always in the same order: thousands of these are made in a second, and what
// V8 has compiled for them stays valid only as long as they are all of one shape.

/** A change as the journal keeps it. */
export function writtenOf(
  source: Source,
  change: Change,
  { id, order, accepted }: { id: string; order: number; accepted: string },
): Written {
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
  };
}

/** The entry of what was written down; `written` may have been read from disk. */
export function entryOf(written: Written, place: Place): Entry {
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
