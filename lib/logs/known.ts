import type { Run } from "./runs.ts";
import { findRuns } from "./runs.ts";
import { closeLogFiles, openLogFiles } from "./source.ts";

/** The newest runs of a log and the stages in them, for completion in a shell. */
export async function knownRuns(file: string): Promise<{ ids: string[]; stages: string[] }> {
  const files = await openLogFiles(file);
  try {
    const enough = (runs: readonly Run[]) => runs.length >= 50;
    const runs = await findRuns(files, { enough });
    const stages = new Set(runs.flatMap(({ stages }) => stages.map(({ name }) => name)));
    return { ids: runs.map(({ id }) => id), stages: [...stages] };
  } finally {
    closeLogFiles(files);
  }
}
