import type { Entry } from "../../bus/bus.ts";

/** `claim.REPO` on the bus: what stands in it, and what that means for a builder that would like to have it. All here is pure. */

export interface ClaimValue {
  readonly repo: string;
  /** The number of the claim that was taken last. */
  readonly fence?: number | undefined;
  /** The state folder of the builder that has it, and this time of having it; none: it is free. */
  readonly home?: string | undefined;
  readonly token?: string | undefined;
  /** The run that is, or was last, under way. */
  readonly run?: string | undefined;
}

/** What a claim was when we saw it first as it is; `at` by `performance.now()`. */
export interface Seen {
  readonly revision: number;
  readonly at: number;
}

export function parseClaim(entry: Entry | undefined): ClaimValue | undefined {
  return entry && (JSON.parse(entry.text) as ClaimValue);
}

export function formatClaim(value: ClaimValue): string {
  return JSON.stringify(value);
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
