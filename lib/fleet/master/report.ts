import { mkdir, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Terminal } from "../../cli/terminal.ts";
import { messageOf } from "../../core/errors.ts";
import { writeAtomic } from "../../files/files.ts";
import type { Outcome } from "./fan-out.ts";
import { lineOf } from "./list.ts";
import { stateFolder } from "./want.ts";

/** What a run tells: a table, its totals, and the list of those that failed. */

/** One slave as `--json` shows it. */
export function outcomeLine({ target, ok, before, sha, seconds, error, skipped }: Outcome) {
  const rounded = Math.round(seconds * 1000) / 1000;
  const line = { target: target.name, ok, before, sha, seconds: rounded, error };
  return skipped ? { ...line, skipped } : line;
}

/** Slave, answer, commit, seconds. */
function rowOf({ target, ok, answer, sha, seconds }: Outcome): string[] {
  const shown = ok ? answer : `FAILED: ${answer}`;
  return [target.name, shown, sha?.slice(0, 12) ?? "", seconds.toFixed(1)];
}

export function printOutcomes(
  outcomes: readonly Outcome[],
  seconds: number,
  terminal: Terminal,
): void {
  if (terminal.json) return;
  const header = ["SLAVE", "ANSWER", "COMMIT", "SECONDS"];
  for (const line of terminal.table(outcomes.map(rowOf), { header, right: [3] }))
    terminal.print(line);
  terminal.print(totalsLine(outcomes, seconds));
}

/** `5 slaves: 4 ok, 1 failed; at 1a2b3c…; 2.1 s`. */
function totalsLine(outcomes: readonly Outcome[], seconds: number): string {
  const ok = outcomes.filter((outcome) => outcome.ok);
  const skipped = outcomes.filter((outcome) => outcome.skipped).length;
  const words = [`${ok.length} ok`, `${outcomes.length - ok.length - skipped} failed`];
  if (skipped > 0) words.push(`${skipped} not asked`);
  const shas = [...new Set(ok.map(({ sha }) => sha))].filter((sha) => sha !== undefined);
  const at = shas.length > 1 ? `${shas.length} different commits` : shas[0];
  const parts = [words.join(", "), ...(at === undefined ? [] : [`at ${at}`])];
  return `${slaves(outcomes.length)}: ${parts.join("; ")}; ${seconds.toFixed(1)} s`;
}

export function slaves(count: number): string {
  return count === 1 ? "1 slave" : `${count} slaves`;
}

/** Write the list of those that failed, for `--list`; without any, remove it. */
export async function writeFailed(
  repo: string,
  outcomes: readonly Outcome[],
  flag: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const file = resolve(flag ?? join(stateFolder(), `${repo}.failed.txt`));
  const text = failedList(repo, outcomes, new Date());
  try {
    if (text === undefined) return await rm(file, { force: true });
    await mkdir(dirname(file), { recursive: true });
    await writeAtomic(file, text);
    terminal.note(`the failed ones are in ${file}; for these alone: --list ${file}`);
  } catch (error) {
    terminal.warn(
      `the list of failed slaves could not be written: ${messageOf(error)}; see --failed`,
    );
  }
}

/** A list that `--list` takes: every slave that did not succeed, with the reason as a comment above; undefined when all did. */
function failedList(repo: string, outcomes: readonly Outcome[], at: Date): string | undefined {
  const lines = [`# server-update ${repo}: not up to date at ${at.toISOString()}`];
  let group = "";
  for (const { target, ok, error = "failed" } of outcomes) {
    if (ok) continue;
    if (target.group !== group) lines.push(`[${target.group}]`);
    group = target.group;
    lines.push(`# ${error.replace(/\s+/g, " ")}`, lineOf(target));
  }
  return lines.length === 1 ? undefined : `${lines.join("\n")}\n`;
}
