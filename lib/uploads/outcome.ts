import { cleanLine, isHarmless } from "../core/clean.ts";
import { exitCodeOf } from "../core/errors.ts";
import type { Terminal } from "../core/terminal.ts";
import { formatSize } from "../core/units.ts";
import type { Target } from "./config.ts";

/** One thing that is done to a target, or would be. */
export interface Change {
  action: "new" | "replace" | "headers" | "delete";
  path: string;
  /** Bytes; 0 for a deletion. */
  size: number;
}

/** What was done for a target, or would be. */
export interface Outcome {
  changes: Change[];
  /** Files that were the same already; undefined where the other side does not tell. */
  unchanged?: number | undefined;
  /** Bytes of file content that were sent. */
  bytes: number;
  /** What failed, a line each; empty when everything succeeded. */
  problems: string[];
}

/** The outcome of what was done to a target, with `count` files in the folder. */
export function outcomeOf(changes: Change[], count: number): Outcome {
  const sent = changes.filter(({ action }) => action !== "delete");
  const bytes = sent.reduce((sum, { size }) => sum + size, 0);
  return { changes, unchanged: count - sent.length, bytes, problems: [] };
}

/** Whether what was thrown is a target's failure, and not a bug. */
export function isExpected(error: unknown): boolean {
  return exitCodeOf(error) !== undefined || (error instanceof Error && "syscall" in error);
}

/** A target that was served. */
export type TargetResult = ReturnType<typeof resultOf>;

export function resultOf({ name, kind }: Target, outcome: Outcome, seconds: number) {
  // another machine's words may steer no terminal
  const problems = outcome.problems.map(cleanLine);
  return { ...outcome, target: name, kind, ok: problems.length === 0, seconds, problems };
}

/** The result as --json shows it. */
export function resultJson(result: TargetResult, dryRun: boolean): object {
  const { changes, ...rest } = result;
  const seconds = Math.round(rest.seconds * 1000) / 1000;
  return { ...rest, seconds, dryRun, counts: countsOf(result), ...(dryRun ? { changes } : {}) };
}

/** What would be done, a line each, and a table of what was. */
export function resultLines(results: readonly TargetResult[], dryRun: boolean, terminal: Terminal): string[] {
  const planned = results.flatMap(({ target, changes }) =>
    changes.map(({ action, path }) => `${target}: ${action.padEnd(7)} ${shownPath(path)}`),
  );
  const rows = results.map((result) => {
    const deleted = countsOf(result).delete;
    return [
      ...[result.target, result.kind, result.ok ? "ok" : "FAILED"],
      ...[result.changes.length - deleted, result.unchanged ?? "-", deleted].map(String),
      ...[formatSize(result.bytes), result.seconds.toFixed(1)],
    ];
  });
  const header = [
    ...["target", "kind", "result", dryRun ? "to send" : "sent", "unchanged"],
    ...[dryRun ? "to delete" : "deleted", "bytes", "seconds"],
  ];
  return [...(dryRun ? planned : []), ...terminal.table(rows, { header, right: [3, 4, 5, 6, 7] })];
}

const maxProblems = 20;

/** What failed, a line each. */
export function problemLines({ target, problems }: TargetResult): string[] {
  const more = problems.length - maxProblems;
  return [...problems.slice(0, maxProblems), ...(more > 0 ? [`and ${more} more`] : [])].map(
    (problem) => `${target}: ${problem}`,
  );
}

/** A path as it can stand in a line: quoted when it holds what would break one. */
export function shownPath(path: string): string {
  return isHarmless(path) ? path : cleanLine(JSON.stringify(path));
}

function countsOf({ changes }: Outcome) {
  const counts = { new: 0, replace: 0, headers: 0, delete: 0 };
  for (const { action } of changes) counts[action]++;
  return counts;
}
