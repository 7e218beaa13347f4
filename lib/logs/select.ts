import { UsageError } from "../core/errors.ts";
import { parseDuration } from "../core/units.ts";
import { parseLine, textStart } from "../log/format.ts";
import { hasEscapes, withoutEscapes } from "../core/clean.ts";

/** Which lines are asked for. */
export interface Selection {
  /** Of these runs only. */
  runs?: ReadonlySet<string> | undefined;
  stage?: string | undefined;
  /** From and to this time, both as in the log: `2026-11-20T10:15:00.123Z`. */
  since?: string | undefined;
  until?: string | undefined;
  /** Matched against the text, escape sequences left out. */
  grep?: RegExp | undefined;
  /** Lines shown before and after each match of `grep`. */
  before?: number | undefined;
  after?: number | undefined;
}

/** A line that was selected. */
export interface SelectedLine {
  /** As it stands in the log. */
  raw: string;
  /** A neighbour of a match, not a match itself. */
  context: boolean;
  /** Lines were left out between this one and the one selected before. */
  gap: boolean;
}

/**
 * A regular expression from the command line.
 * @throws {UsageError} when it is not valid.
 */
export function grepPattern(source: string, ignoreCase: boolean): RegExp {
  try {
    return new RegExp(source, ignoreCase ? "i" : "");
  } catch (error) {
    throw new UsageError(`--grep: ${(error as Error).message}`);
  }
}

/**
 * A point in time as the log writes it, from `2h` (so long ago), `2026-11-20`, `2026-11-20T10:15` (local
 * time unless it ends in Z or an offset) or `10:15` (today).
 * @throws {UsageError} for anything else.
 */
export function pointInTime(flag: string, text: string, now = new Date()): string {
  const time = timeFrom(text, now);
  if (time === undefined || Number.isNaN(time.getTime()))
    throw new UsageError(`${flag}: "${text}" is not a time; write 2h, 2026-11-20, 2026-11-20T10:15 or 10:15`);
  return time.toISOString();
}

function timeFrom(text: string, now: Date): Date | undefined {
  const clock = /^(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(text);
  if (clock) {
    const [hours, minutes, seconds] = [clock[1], clock[2], clock[3]].map((part) => Number(part ?? 0)) as [
      number,
      number,
      number,
    ];
    if (hours > 23 || minutes > 59 || seconds > 59) return undefined;
    const today = new Date(now);
    today.setHours(hours, minutes, seconds, 0);
    return today;
  }
  const [, day, time] = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d.*))?$/.exec(text) ?? [];
  if (day !== undefined) {
    // Date takes the 31st of February for the 3rd of March
    const midnight = new Date(`${day}T00:00:00Z`);
    if (Number.isNaN(midnight.getTime()) || !midnight.toISOString().startsWith(day)) return undefined;
    return new Date(`${day}T${time ?? "00:00:00"}`);
  }
  try {
    return new Date(now.getTime() - parseDuration(text));
  } catch {
    return undefined;
  }
}

/**
 * A filter that is handed one text of whole lines after the other, and calls `choose` for each selected line.
 * It returns whether the next lines are due as the context of a match.
 */
export function lineFilter(selection: Selection, choose: (selected: SelectedLine) => void): (text: string) => boolean {
  const { before = 0, after = 0 } = selection;
  const isSelected = testOf(selection);
  /** The last lines that were not selected: the context of a match that may follow. */
  let skipped: string[] = [];
  /** How many more lines are due after the last match. */
  let due = 0;
  let any = false;
  let leftOut = false;
  const show = (raw: string, context: boolean) => {
    choose({ raw, context, gap: any && leftOut && before + after > 0 });
    any = true;
    leftOut = false;
  };
  return (text) => {
    const escaped = hasEscapes(text);
    for (let start = 0, end = 0; start < text.length; start = end + 1) {
      end = text.indexOf("\n", start);
      if (end < 0) end = text.length;
      if (end === start) continue;
      const selected = isSelected(text, start, end, escaped);
      if (!selected && due === 0 && before === 0) {
        leftOut = true;
        continue;
      }
      const raw = text.slice(start, end);
      if (selected) {
        for (const each of skipped) show(each, true);
        skipped = [];
        show(raw, false);
        due = after;
      } else if (due > 0) {
        show(raw, true);
        due -= 1;
      } else {
        skipped.push(raw);
        if (skipped.length <= before) continue;
        skipped.shift();
        leftOut = true;
      }
    }
    return due > 0;
  };
}

/** Whether the line between two places of a text is selected; `escaped`: the text has escape sequences. */
type Test = (text: string, start: number, end: number, escaped: boolean) => boolean;

function testOf({ runs, stage, since, until, grep }: Selection): Test {
  const matches: Test = (text, start, end, escaped) => {
    if (!grep) return true;
    const tested = text.slice(textStart(text, start), end);
    return grep.test(escaped ? withoutEscapes(tested) : tested);
  };
  if (!runs && stage === undefined && since === undefined && until === undefined) return matches;
  return (text, start, end, escaped) => {
    const line = parseLine(text.slice(start, end));
    return (
      line !== undefined &&
      (!runs || runs.has(line.run)) &&
      (stage === undefined || line.stage === stage) &&
      (since === undefined || line.time >= since) &&
      (until === undefined || line.time <= until) &&
      matches(text, start, end, escaped)
    );
  };
}
