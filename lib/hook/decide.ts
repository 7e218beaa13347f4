import type { Change, Facts } from "./payload.ts";

/** The part of a repo's configuration that decides what runs. */
export interface Wishes {
  /** Branch names, full refs, or patterns with `*`; undefined: the checkout's branch. */
  readonly refs: readonly string[] | undefined;
  readonly on: { readonly push: string | false; readonly release: string | false };
}

/** The changes that are to run, or the reason why nothing does. Pure. */
export function decide(
  wishes: Wishes,
  facts: Facts,
  checkoutBranch: string | undefined,
): { changes: Change[]; reason: string } {
  if (facts.changes.length === 0) return { changes: [], reason: facts.reason };
  const branch = checkoutBranch ?? facts.defaultBranch;
  const refs = wishes.refs ?? (branch === undefined ? [] : [branch]);
  let reason = "nobody asked for this event";
  const changes = facts.changes.filter((change) => {
    if (wishes.on[change.kind] === false) return false;
    if (change.kind === "release" || refs.some((pattern) => matchesRef(pattern, change.ref)))
      return true;
    reason = "nobody asked for this ref";
    return false;
  });
  return { changes, reason };
}

/** Whether a configured ref (`main`, `release/*`, `refs/tags/v*`) names `ref`, a full ref. */
export function matchesRef(pattern: string, ref: string): boolean {
  const full = pattern.startsWith("refs/") ? pattern : `refs/heads/${pattern}`;
  if (!full.includes("*")) return full === ref;
  const parts = full.split("*").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(ref);
}
