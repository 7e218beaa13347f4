import { cleanText } from "../core/clean.ts";
import type { Paint } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";
import { isFailure, markStage, type Result } from "../log/format.ts";
import type { Run } from "./runs.ts";

/** One execution of a stage, or of a whole run. */
interface Execution {
  result: Result;
  /** Undefined where it was not noted. */
  seconds?: number | undefined;
}

/** What is known of a stage over many runs. */
export interface StageStats {
  stage: string;
  /** How often it ran; skipped ones are not counted. */
  runs: number;
  failures: number;
  skipped: number;
  /** Seconds. */
  median: number | undefined;
  worst: number | undefined;
  /** The last executions, the oldest first. */
  last: Execution[];
}

const shownRuns = 30;

/** Statistics for each stage, in the order in which stages run, and for whole runs (`run`) at the end. Pure. */
export function statsOf(runsNewestFirst: readonly Run[]): StageStats[] {
  const executions = new Map<string, Execution[]>();
  const whole: Execution[] = [];
  for (const { stages, end } of runsNewestFirst.toReversed()) {
    for (const { name, result, seconds } of stages) {
      const list = executions.get(name) ?? [];
      list.push({ result, seconds });
      executions.set(name, list);
    }
    if (end) whole.push({ result: end.result, seconds: end.seconds });
  }
  if (whole.length > 0) executions.set(markStage, whole);
  return [...executions].map(([stage, all]) => {
    const ran = all.filter(({ result }) => result !== "skipped");
    const times = ran.flatMap(({ seconds }) => (seconds === undefined ? [] : [seconds])).sort((a, b) => a - b);
    return {
      stage,
      runs: ran.length,
      failures: ran.filter(({ result }) => isFailure(result)).length,
      skipped: all.length - ran.length,
      median: median(times),
      worst: times.at(-1),
      last: all.slice(-shownRuns),
    };
  });
}

function median(sorted: readonly number[]): number | undefined {
  const [lower, upper] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return lower === undefined || upper === undefined ? undefined : (lower + upper) / 2;
}

export const statsHeader = ["STAGE", "RUNS", "FAILED", "SKIPPED", "MEDIAN", "WORST", "LAST RUNS"];

/** A stage as a row of the table. Without colours a failure shows as a cross. */
export function statsRow({ stage, runs, failures, skipped, median, worst, last }: StageStats, paint: Paint): string[] {
  const seconds = (value: number | undefined) => (value === undefined ? "-" : formatDuration(value * 1000));
  return [
    cleanText(stage),
    String(runs),
    failures > 0 ? paint.red(String(failures)) : "0",
    String(skipped),
    seconds(median),
    seconds(worst),
    chartOf(last, (bar) => (paint.level > 0 ? paint.red(bar) : "x")),
  ];
}

const bars = "▁▂▃▄▅▆▇█";

/** A bar for each execution, as high as it took long beside the longest shown: `▂▁█ ▃`; a gap where it was skipped. */
function chartOf(last: readonly Execution[], failed: (bar: string) => string): string {
  const highest = Math.max(...last.map(({ seconds }) => seconds ?? 0));
  return last
    .map(({ result, seconds = 0 }) => {
      if (result === "skipped") return " ";
      const bar = bars[highest > 0 ? Math.round((seconds / highest) * (bars.length - 1)) : 0] ?? "▁";
      return isFailure(result) ? failed(bar) : bar;
    })
    .join("");
}
