// Logs as the scripts write them, for tests that read.
import { formatLine, formatMark, type Mark, markStage } from "../../lib/log/format.ts";

/** A run's id of a time of 2026-11-20: `runAt("10:15:00")`. */
export function runAt(clock: string, random = "3f2a9c"): string {
  return `20261120T${clock.replaceAll(":", "")}Z-${random}`;
}

/** Lines of one run, a second apart, from the time in its id on. */
export function runLines(run: string, entries: ([stage: string, text: string] | Mark)[]): string {
  const [, hour = "", minute = "", second = ""] = /T(\d\d)(\d\d)(\d\d)Z/.exec(run) ?? [];
  const start = Date.parse(`2026-11-20T${hour}:${minute}:${second}.000Z`);
  return entries
    .map((entry, index) => {
      const [stage, text] = Array.isArray(entry) ? entry : [markStage, formatMark(entry)];
      return `${formatLine({ time: new Date(start + index * 1000).toISOString(), run, stage, text })}\n`;
    })
    .join("");
}

/** A whole run with two stages; a failing one stops in its second. */
export function sampleRun(run: string, { code = 0, ref = "main", words = "ordinary words" } = {}): string {
  const result = code === 0 ? "ok" : "failed";
  return runLines(run, [
    { kind: "start", event: "push", ref, sha: "1f2e03".padEnd(40, "0") },
    ["install", `added 22 packages: ${words}`],
    { kind: "stage", name: "install", result: "ok", code: 0, seconds: 1.5 },
    ["litpro", code === 0 ? "## DONE" : "error: NOT SAVED"],
    { kind: "stage", name: "litpro", result, code, seconds: 2 },
    { kind: "end", result, code, seconds: 5 },
  ]);
}
