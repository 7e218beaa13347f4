import { causeOf } from "./notice.ts";
import type { Pending } from "./outbox.ts";
import type { Target } from "./target.ts";

/** A notice waits at most so many times `group` for others of its cause. */
const maxGroups = 6;

/** What one target is still to be told. */
export interface Lane {
  target: Target;
  waiting: Pending[];
  tries: number;
  /** Not before this time (ms). */
  notBefore: number;
  sending: Promise<void> | undefined;
  timer: NodeJS.Timeout | undefined;
  /** Why it did not take the last message: said once. */
  trouble: string | undefined;
  /** The log says that the oldest of what waits is dropped. */
  isFull: boolean;
}

/** A group in a line of the log. */
export function namesOf(group: readonly Pending[]): string {
  const [first] = group;
  const more = group.length - 1;
  return `${first?.told.subject ?? ""}${more > 0 ? ` and ${more} more` : ""}`;
}

/** The group that goes out next: all that waits of the oldest notice's cause. A recovery never overtakes its failure. */
export function oldestGroup({ waiting }: Lane): Pending[] {
  const [first] = waiting;
  if (!first) return [];
  const cause = causeOf(first.told);
  return waiting.filter(({ told }) => causeOf(told) === cause);
}

/** When it may go out: when no more of it came for a while, yet not ever later. Undefined: nothing waits. */
export function dueOf(lane: Lane): number | undefined {
  const group = oldestGroup(lane);
  const [first, last] = [group[0], group.at(-1)];
  if (!first || !last) return undefined;
  const { group: wait } = lane.target;
  const quiet = Date.parse(last.queued) + wait;
  return Math.max(Math.min(quiet, Date.parse(first.queued) + wait * maxGroups), lane.notBefore);
}
