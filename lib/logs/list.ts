import { isFailure, type Result } from "../log/format.ts";
import type { Terminal } from "../cli/terminal.ts";
import { formatDuration } from "../core/units.ts";
import { cleanText } from "./clean.ts";
import { durationOf, type Run, type Standing, standingOf } from "./runs.ts";
import { localTime } from "./show.ts";

/** Whether somebody has the log open for writing. */
export async function isBeingWritten(file: string): Promise<boolean> {
  const { writersOf } = await import("../log/holders.ts");
  return (await writersOf([file]))[0] !== "free";
}

/** Whether a run counts as failed: also one that was cut off. */
export function hasFailed(run: Run, beingWritten: boolean): boolean {
  const standing = standingOf(run, beingWritten);
  return standing === "cut off" || (standing !== "running" && isFailure(standing));
}

/** Prints runs as a table, the newest first; with --json one object a line. */
export function printRuns(runs: readonly Run[], beingWritten: boolean, terminal: Terminal): void {
  const now = Date.now();
  for (const run of runs) {
    const { id, start, end, startedAt, endedAt, stages } = run;
    terminal.printJson({
      run: id,
      event: start?.event ?? null,
      ref: start?.ref ?? null,
      sha: start?.sha ?? null,
      repo: start?.repo ?? null,
      result: standingOf(run, beingWritten),
      code: end?.code ?? null,
      seconds: end?.seconds ?? null,
      started: startedAt ?? null,
      ended: endedAt ?? null,
      why: end?.why ?? null,
      stages: stages.map(({ name, result, code, seconds, why }) => ({
        name,
        result,
        code,
        seconds,
        why,
      })),
    });
  }
  if (terminal.json || runs.length === 0) return;
  const rows = runs.map((run) => {
    const took = durationOf(run, now);
    return [
      run.id,
      cell(run.start?.event),
      cell(run.start?.ref),
      cell(run.start?.sha?.slice(0, 8)),
      paintStanding(standingOf(run, beingWritten), terminal),
      took === undefined || (!run.end && !beingWritten) ? "-" : formatDuration(took),
      run.startedAt ? localTime(run.startedAt) : "-",
    ];
  });
  const header = ["RUN", "EVENT", "REF", "COMMIT", "RESULT", "TOOK", "WHEN"];
  for (const line of terminal.table(rows, { header, right: [5] })) terminal.print(line);
}

function cell(text: string | undefined): string {
  return text ? cleanText(text) : "-";
}

/** A result in its colour. */
export function paintStanding(standing: Standing, { paint }: Terminal): string {
  if (standing === "running") return paint.cyan(standing);
  if (standing === "cut off" || isFailure(standing as Result)) return paint.red(standing);
  return standing === "ok" ? paint.green(standing) : paint.dim(standing);
}
