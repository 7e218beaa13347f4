import type { Outcome } from "./fan-out.ts";
import type { Target } from "./list.ts";

/** What server-update shows: rows, totals, and the list of failed ones for a next run. Pure. */

/** What one slave serves. */
export interface Served {
  target: Target;
  sha?: string | undefined;
  branch?: string | undefined;
  since?: string | undefined;
  error?: string | undefined;
}

/** One slave as `--json` shows it. */
export function outcomeLine({ target, ok, before, sha, seconds, error, skipped }: Outcome) {
  return {
    target: target.name,
    ok,
    before,
    sha,
    seconds: Math.round(seconds * 1000) / 1000,
    error,
    ...(skipped ? { skipped } : {}),
  };
}

/** Rows of target, answer, commit, seconds. */
export function outcomeRows(outcomes: readonly Outcome[]): string[][] {
  return outcomes.map(({ target, ok, answer, sha, seconds }) => [
    target.name,
    ok ? answer : `FAILED: ${answer}`,
    sha?.slice(0, 12) ?? "",
    seconds.toFixed(1),
  ]);
}

/** `5 slaves: 4 done, 1 failed; all serve 1a2b3c in 2.1s`. */
export function totalsLine(outcomes: readonly Outcome[], seconds: number): string {
  const ok = outcomes.filter((outcome) => outcome.ok);
  const skipped = outcomes.filter((outcome) => outcome.skipped).length;
  const failed = outcomes.length - ok.length - skipped;
  const shas = new Set(ok.flatMap(({ sha }) => (sha === undefined ? [] : [sha])));
  const words = [`${ok.length} ok`, `${failed} failed`];
  if (skipped > 0) words.push(`${skipped} not asked`);
  const [sha] = shas;
  const serve =
    shas.size === 0 ? "" : shas.size === 1 ? `; at ${sha}` : `; at ${shas.size} different commits`;
  return `${outcomes.length} ${outcomes.length === 1 ? "slave" : "slaves"}: ${words.join(", ")}${serve}; ${seconds.toFixed(1)} s`;
}

/** A list that `--list` takes: every slave that did not end well, with the reason as a comment above. */
export function failedList(repo: string, outcomes: readonly Outcome[], at: Date): string {
  const lines = [`# server-update ${repo}: not up to date at ${at.toISOString()}`];
  let group = "";
  for (const { target, error = "failed" } of outcomes.filter((outcome) => !outcome.ok)) {
    if (target.group !== group) lines.push(`[${target.group}]`);
    group = target.group;
    lines.push(`# ${error.replace(/\s+/g, " ")}`, target.name);
  }
  return `${lines.join("\n")}\n`;
}

/** Rows of target, commit, since, and what is odd about it. */
export function servedRows(served: readonly Served[], common: string | undefined): string[][] {
  return served.map((each) => [
    each.target.name,
    each.sha?.slice(0, 12) ?? "",
    each.branch ?? "",
    each.since?.replace(/\.\d+Z$/, "Z") ?? "",
    each.error === undefined ? (each.sha === common ? "" : "DIFFERS") : `FAILED: ${each.error}`,
  ]);
}
