import { hasEnded, isBranchPush, type Run, type RunStore } from "../../run-store/run-store.ts";
import type { RunFolders } from "./folders.ts";

/** Remove old runs: those beyond the newest `keep` of their repo, and those older than `maxAge` ms. */
export async function tidy(
  store: RunStore,
  folders: RunFolders,
  limits: { keep: number; maxAge: number },
): Promise<void> {
  const old = oldRuns(store.runs(), { ...limits, now: Date.now() });
  if (old.length === 0) return;
  // in this order: a folder of which nobody knows would stay for ever
  for (const id of old) if (store.get(id)?.attempt) await folders.remove(id);
  await store.remove(old);
}

/** So many branches of a repo keep their newest good run, however old it is. */
const maxBranches = 1000;

/**
 * Pure. Whoever is still to be told of a run keeps it, and so does polling, which would build again what no good run
 * shows to be built; superseded ones take no place from the others.
 */
export function oldRuns(
  runs: Iterable<Run>,
  { keep, maxAge, now }: { keep: number; maxAge: number; now: number },
): string[] {
  const counts = new Map<string, number>();
  const count = (key: string) => {
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return counts.get(key) ?? 0;
  };
  return [...runs]
    .filter((run) => hasEnded(run) && !run.tell?.length)
    .sort((a, b) => ((a.ended ?? "") < (b.ended ?? "") ? 1 : -1))
    .filter((run) => {
      const isOld =
        count(`${run.repo} ${run.state === "superseded"}`) > keep ||
        now - Date.parse(run.ended ?? run.accepted) > maxAge;
      const isLastGood = run.state === "succeeded" && isBranchPush(run) && count(`${run.repo} ${run.ref}`) === 1;
      return isOld && !(isLastGood && count(`${run.repo} branches`) <= maxBranches);
    })
    .map(({ id }) => id);
}
