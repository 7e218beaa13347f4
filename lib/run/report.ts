import { cleanText } from "../core/clean.ts";
import type { Result } from "../log/format.ts";
import type { Terminal } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";

/** How a stage ended. */
export interface StageResult {
  name: string;
  result: Result;
  seconds: number;
  /** Why it was skipped or failed, or what it did, in a few words. */
  note: string;
  /** What was thrown. */
  error?: unknown;
}

/** A run that has ended: a build, a release. */
export interface RunSummary {
  /** The run's id. */
  run: string;
  result: Result | "unchanged";
  /** The exit code. */
  code: number;
  seconds: number;
  stages: readonly StageResult[];
}

/** The table at a run's end: stages, results, seconds, and a line of the whole, called `name`. */
export function runTable(name: string, whole: RunSummary, terminal: Terminal): string[] {
  const { paint } = terminal;
  const colour = (word: string) =>
    word === "ok" ? paint.green(word) : word === "skipped" ? paint.dim(word) : paint.red(word);
  const rows = whole.stages.map(({ name, result, seconds, note }) => [
    name,
    colour(result),
    result === "skipped" ? "" : seconds.toFixed(1),
    cleanText(note),
  ]);
  const took = formatDuration(whole.seconds * 1000);
  rows.push([name, colour(whole.result), whole.seconds.toFixed(1), `run ${whole.run}, ${took}`]);
  return terminal.table(rows, { header: ["stage", "result", "seconds", ""], right: [2] });
}

/** The same for --json: what `whole` holds beside the stages comes as it is. */
export function runJson({ stages, seconds, ...rest }: RunSummary): object {
  const round = (value: number) => Math.round(value * 1000) / 1000;
  return {
    ...rest,
    seconds: round(seconds),
    stages: stages.map(({ name, result, seconds, note }) => ({
      stage: name,
      result,
      seconds: round(seconds),
      note,
    })),
  };
}
