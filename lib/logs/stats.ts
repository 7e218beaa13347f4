import { isFailure, markStage, type Result } from "../log/format.ts";
import type { Terminal } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";
import { cleanText } from "../core/clean.ts";
import { findRuns, type Run } from "./runs.ts";
import { damageReport } from "./show.ts";
import { closeLogFiles, openLogFiles } from "./source.ts";

/** One execution of a stage, or of a whole run. */
export interface Execution {
  result: Result;
  /** Seconds; undefined where it was not noted. */
  seconds: number | undefined;
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
function statsOf(runsNewestFirst: readonly Run[]): StageStats[] {
  const executions = new Map<string, Execution[]>();
  const whole: Execution[] = [];
  for (const { stages, end } of [...runsNewestFirst].reverse()) {
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
    const times = ran
      .flatMap(({ seconds }) => (seconds === undefined ? [] : [seconds]))
      .sort((a, b) => a - b);
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
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  const lower = sorted[middle - 1];
  if (upper === undefined) return undefined;
  return sorted.length % 2 === 1 || lower === undefined ? upper : (lower + upper) / 2;
}

const bars = "▁▂▃▄▅▆▇█";

/** A bar for each execution, as high as it took long beside the longest one shown: `▂▁█ ▃`; a gap where it was skipped. */
function chartOf(
  last: readonly Execution[],
  paint: (bar: string, failed: boolean) => string,
): string {
  const highest = Math.max(...last.map(({ seconds }) => seconds ?? 0));
  return last
    .map(({ result, seconds = 0 }) => {
      if (result === "skipped") return " ";
      const height = highest > 0 ? Math.round((seconds / highest) * (bars.length - 1)) : 0;
      return paint(bars[height] ?? "▁", isFailure(result));
    })
    .join("");
}

/** Print how the stages of a log did: over its last `count` runs, or all. */
export async function printStats(
  file: string,
  { count, since }: { count?: number | undefined; since?: string | undefined },
  terminal: Terminal,
): Promise<void> {
  const files = await openLogFiles(file);
  try {
    const enough = (found: readonly Run[]) => {
      const started = found.filter(({ start }) => start);
      return (
        started.length >= (count ?? Number.POSITIVE_INFINITY) ||
        started.some((run) => (run.startedAt ?? "") < (since ?? ""))
      );
    };
    const all = await findRuns(files, { enough, onDamage: damageReport(terminal) });
    const runs = all.filter(({ startedAt = "" }) => startedAt >= (since ?? "")).slice(0, count);
    const stats = statsOf(runs);
    terminal.printJson({ runs: runs.length, stages: stats });
    if (terminal.json) return;
    if (stats.length === 0) return terminal.note("the log has no runs that have finished");
    const { paint } = terminal;
    const seconds = (value: number | undefined) =>
      value === undefined ? "-" : formatDuration(value * 1000);
    const rows = stats.map(
      ({ stage, runs: ran, failures, skipped, median: middle, worst, last }) => [
        cleanText(stage),
        String(ran),
        failures > 0 ? paint.red(String(failures)) : "0",
        String(skipped),
        seconds(middle),
        seconds(worst),
        // without colours a failure shows as a cross
        chartOf(last, (bar, failed) => (failed ? (paint.level > 0 ? paint.red(bar) : "x") : bar)),
      ],
    );
    const header = ["STAGE", "RUNS", "FAILED", "SKIPPED", "MEDIAN", "WORST", "LAST RUNS"];
    for (const line of terminal.table(rows, { header, right: [1, 2, 3, 4, 5] }))
      terminal.print(line);
  } finally {
    closeLogFiles(files);
  }
}
