/**
 * The lines of logs.txt: `TIME RUN STAGE | text`.
 *
 * ```text
 * 2026-11-20T10:15:00.123Z 20261120T101500Z-3f2a9c run | start event=push ref=main sha=1f2e…
 * 2026-11-20T10:15:02.004Z 20261120T101500Z-3f2a9c install | added 22 packages
 * 2026-11-20T10:15:02.310Z 20261120T101500Z-3f2a9c run | stage name=install result=ok code=0 seconds=2.1
 * 2026-11-20T10:15:09.871Z 20261120T101500Z-3f2a9c run | end result=failed code=1 seconds=9.7
 * ```
 *
 * TIME is UTC with milliseconds, always 24 characters. RUN is a run's id (lib/core/id.ts), or `-` outside of a run.
 * Lines of the stage `run` are marks: they come from us, never from a child, so that no child can fake a result.
 * This file is pure: text in, data out.
 */

/** The stage whose lines are marks. No stage of a build.yml may have this name. */
export const markStage = "run";

/** RUN of a line that belongs to no run. */
export const noRun = "-";

export type Result = "ok" | "failed" | "skipped" | "timeout" | "cancelled";

export interface LogLine {
  /** UTC, as written: `2026-11-20T10:15:00.123Z`. */
  time: string;
  run: string;
  stage: string;
  text: string;
}

/** What a run's first line tells; the event is what started it: push, release, poll, manual … */
export interface StartMark {
  kind: "start";
  event: string;
  ref?: string | undefined;
  sha?: string | undefined;
  /** `owner/name`, where known. */
  repo?: string | undefined;
}

/** How a stage finished; why it was skipped or failed, in a few words. */
export interface StageMark {
  kind: "stage";
  name: string;
  result: Result;
  code?: number | undefined;
  seconds?: number | undefined;
  why?: string | undefined;
}

/** How a run finished; the code is its exit code, the commit the one that it found to build. */
export interface EndMark {
  kind: "end";
  result: Result;
  code: number;
  seconds: number;
  sha?: string | undefined;
  why?: string | undefined;
}

export type Mark = StartMark | StageMark | EndMark;

/** A line without its newline; `text` must hold none. */
export function formatLine({ time, run, stage, text }: LogLine): string {
  return `${time} ${run} ${stage} | ${text}`;
}

/** The head of a line of ours, wherever in a text it stands. */
const headForm = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \S+ \S+ \|(?: |$)/my;

/** The columns of a line, or undefined for a line that somebody else wrote (cron's `>>`, a torn end). */
export function parseLine(line: string): LogLine | undefined {
  const length = textStart(line, 0);
  if (length === 0) return undefined;
  const [time = "", run = "", stage = ""] = line.split(" ", 3);
  return { time, run, stage, text: line.slice(length) };
}

/** What a line of a run's output says, without the time and the stage that our scripts put before it. */
export function textOfLine(line: string): string {
  return line.replace(/^(?:\d{4}-\d\d-\d\dT[\d:.]+Z )?(?:\d{8}T\d{6}Z-[0-9a-f]+ )?[\w.-]+ \| /, "");
}

/** Where the text of the line at `start` starts; `start` itself for a line that somebody else wrote. */
export function textStart(lines: string, start: number): number {
  headForm.lastIndex = start;
  return headForm.test(lines) ? headForm.lastIndex : start;
}

/** A name as it may stand in the RUN and STAGE columns: no spaces, nothing empty. */
export function columnName(name: string): string {
  return name.replace(/[^\w.:@/+-]+/g, "_").slice(0, 80) || noRun;
}

/** The text of a mark, for a line of the stage `run`: `stage name=install result=ok code=0 seconds=2.1`. */
export function formatMark(mark: Mark): string {
  const { kind, ...fields } = mark;
  const words = Object.entries(fields).flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [`${name}=${fieldText(value)}`],
  );
  return [kind, ...words].join(" ");
}

function fieldText(value: string | number): string {
  if (typeof value === "number") return String(Math.round(value * 1000) / 1000);
  return /^[^\s"=]+$/.test(value) ? value : JSON.stringify(value);
}

const fieldForm = /([a-z]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)/g;
const results: readonly string[] = ["ok", "failed", "skipped", "timeout", "cancelled"];

/** The mark that a text of the stage `run` holds, or undefined for any other text. */
export function parseMark(text: string): Mark | undefined {
  const kind = /^(?:start|stage|end)(?= |$)/.exec(text)?.[0];
  if (!kind) return undefined;
  const fields: Record<string, string> = {};
  for (const [, name = "", value = ""] of text.matchAll(fieldForm)) fields[name] = unquoted(value);
  const { event = "unknown", ref, sha, repo, name = noRun, why } = fields;
  if (kind === "start") return { kind, event, ref, sha, repo };
  const result = (results.includes(fields["result"] ?? "") ? fields["result"] : "failed") as Result;
  const [code, seconds] = [fields["code"], fields["seconds"]].map((value) =>
    value && Number.isFinite(Number(value)) ? Number(value) : undefined,
  );
  if (kind === "stage") return { kind, name, result, code, seconds, why };
  return { kind: "end", result, code: code ?? (result === "ok" ? 0 : 1), seconds: seconds ?? 0, sha, why };
}

function unquoted(value: string): string {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value;
  }
}

/** Whether a result counts as a failure. */
export function isFailure(result: Result): boolean {
  return result !== "ok" && result !== "skipped";
}
