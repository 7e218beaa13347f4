import { cleanText } from "../core/clean.ts";
import type { Result } from "../log/format.ts";
import { shortRun } from "../core/id.ts";
import type { Terminal } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";

/** How a stage ended. */
export interface StageResult {
  name: string;
  result: Result;
  seconds: number;
  /** Why it was skipped or failed, or what it did, in a few words. */
  note: string;
  /** It was skipped since the repo has not what it is for. */
  isAbsent?: boolean | undefined;
  /** What was thrown. */
  error?: unknown;
}

/** Whether a run ends here. */
export function isBad({ result }: Pick<StageResult, "result">): boolean {
  return result !== "ok" && result !== "skipped";
}

/** A run that has ended: a build, a release. */
export interface RunSummary {
  /** The run's id. */
  run: string;
  result: Result | "unchanged";
  /** The exit code. */
  code: number;
  /** What is to be said although it went well. */
  note?: string | undefined;
  seconds: number;
  stages: readonly StageResult[];
}

/** The table at a run's end: stages, results, times, a line of the whole with the run's id as `logs --run` takes it. */
export function runTable(whole: RunSummary, terminal: Terminal): string[] {
  const { paint } = terminal;
  const colour = (word: string) =>
    word === "ok" ? paint.green(word) : word === "skipped" ? paint.dim(word) : paint.red(word);
  const row = (each: Pick<StageResult, "name" | "seconds" | "note"> & { result: string }) => [
    each.name,
    colour(each.result),
    each.result === "skipped" ? "" : formatDuration(each.seconds * 1000),
    cleanText(each.note),
  ];
  const rows = whole.stages.filter(({ isAbsent }) => !isAbsent).map(row);
  rows.push(row({ ...whole, name: "run", note: shortRun(whole.run) }));
  const table = terminal.table(rows, { header: ["stage", "result", "time", ""], right: [2] });
  const absent = whole.stages.filter(({ isAbsent }) => isAbsent).map((stage) => stage.name);
  if (absent.length > 0) table.push(paint.dim(`skipped: ${absent.join(", ")}`));
  return whole.note === undefined ? table : [...table, paint.yellow(whole.note)];
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

/** The stage by which a run failed, as `runJson` tells it, and why; undefined where no run ended. */
export function failedStage(json: string): { stage: string; note: string } | undefined {
  try {
    type Answer = { stages?: { stage: string; result: Result; note: string }[] };
    return (JSON.parse(json) as Answer).stages?.find(isBad);
  } catch {
    return undefined;
  }
}
