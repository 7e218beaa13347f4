import type { Terminal } from "../terminal.ts";
import { formatDuration } from "../units.ts";
import type { BuildResult } from "./build.ts";

/** The table at a build's end: stages, results, seconds, and a line of the whole. */
export function resultTable(result: BuildResult, terminal: Terminal): string[] {
  const { paint } = terminal;
  const colour = (word: string) =>
    word === "ok" ? paint.green(word) : word === "skipped" ? paint.dim(word) : paint.red(word);
  const rows = result.stages.map(({ name, result: word, seconds, note }) => [
    name,
    colour(word),
    word === "skipped" ? "" : seconds.toFixed(1),
    note,
  ]);
  rows.push([
    "build",
    colour(result.result),
    result.seconds.toFixed(1),
    `run ${result.run}, ${formatDuration(result.seconds * 1000)}`,
  ]);
  return terminal.table(rows, { header: ["stage", "result", "seconds", ""], right: [2] });
}

/** The same for --json. */
export function summary(result: BuildResult): object {
  const round = (seconds: number) => Math.round(seconds * 1000) / 1000;
  return {
    run: result.run,
    dir: result.dir,
    ref: result.ref,
    sha: result.sha,
    result: result.result,
    code: result.code,
    seconds: round(result.seconds),
    stages: result.stages.map(({ name, result: word, seconds, note }) => ({
      stage: name,
      result: word,
      seconds: round(seconds),
      note,
    })),
  };
}
