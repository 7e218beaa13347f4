import { UsageError } from "../errors.ts";
import { type LogLine, parseLine } from "../log-format.ts";
import { finderIn, needleOf } from "./bytes.ts";
import { withoutEscapes } from "./clean.ts";
import { needlesOf } from "./needles.ts";

/** Which lines are wanted. */
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

/** A line that was chosen. */
export interface Chosen {
  raw: string;
  /** undefined for a line that is not of our writers. */
  line: LogLine | undefined;
  /** A neighbour of a match, not a match itself. */
  context: boolean;
  /** Lines were left out between this one and the one chosen before. */
  gap: boolean;
}

/**
 * A regular expression from the command line.
 * @throws {UsageError} when it is none.
 */
export function grepPattern(source: string, ignoreCase: boolean): RegExp {
  try {
    return new RegExp(source, ignoreCase ? "i" : "");
  } catch (error) {
    throw new UsageError(`--grep: ${(error as Error).message}`);
  }
}

/** A filter that is handed one block after the other, and calls `choose` for each line that is wanted. */
export function lineFilter(
  selection: Selection,
  choose: (chosen: Chosen) => void,
): (bytes: Buffer) => void {
  const { before = 0, after = 0 } = selection;
  const next = candidatesOf(selection);
  let tail: string[] = [];
  let due = 0;
  let gap = false;
  let any = false;
  return (bytes) => {
    /** Up to here all lines are chosen or passed over for good. */
    let shown = 0;
    const show = (begin: number, end: number, context: boolean, line?: LogLine) => {
      const raw = bytes.toString("utf8", begin, end);
      choose({ raw, line: line ?? parseLine(raw), context, gap });
      gap = false;
    };
    const showAfter = (limit: number) => {
      for (; due > 0 && shown < limit; due -= 1) {
        const newline = bytes.indexOf(10, shown);
        const end = newline < 0 ? bytes.length : newline;
        show(shown, end, true);
        shown = end + 1;
      }
      if (shown < limit) gap = any;
    };
    const find = next(bytes);
    for (let at = find(0); at >= 0; ) {
      const begin = at === 0 ? 0 : bytes.lastIndexOf(10, at - 1) + 1;
      const newline = bytes.indexOf(10, at);
      const end = newline < 0 ? bytes.length : newline;
      if (end > begin) {
        const raw = bytes.toString("utf8", begin, end);
        const line = parseLine(raw);
        if (isWanted(selection, raw, line)) {
          showAfter(begin);
          if (before > 0 && shown < begin) {
            const missing = countBack(bytes, begin, before, shown);
            if (shown === 0 && missing.count < before) {
              for (const each of tail.slice(tail.length - (before - missing.count))) {
                choose({ raw: each, line: parseLine(each), context: true, gap });
                gap = false;
              }
            }
            for (let from = missing.begin; from < begin; ) {
              const to = bytes.indexOf(10, from);
              show(from, to, true);
              from = to + 1;
            }
          }
          choose({ raw, line, context: false, gap: gap && (before > 0 || after > 0) });
          gap = false;
          any = true;
          shown = end + 1;
          due = after;
        }
      }
      at = end + 1 < bytes.length ? find(end + 1) : -1;
    }
    showAfter(bytes.length);
    if (before > 0) tail = lastLines(tail, bytes, shown, before);
  };
}

/** Where the `count` lines before `begin` start, not before `floor`. */
function countBack(bytes: Buffer, begin: number, count: number, floor: number) {
  let at = begin;
  let found = 0;
  while (found < count && at > floor) {
    at = at < 2 ? 0 : bytes.lastIndexOf(10, at - 2) + 1;
    found += 1;
  }
  return { begin: Math.max(at, floor), count: found };
}

function lastLines(tail: string[], bytes: Buffer, floor: number, count: number): string[] {
  const end = bytes.at(-1) === 10 ? bytes.length : bytes.length + 1;
  if (floor >= end) return [];
  const { begin } = countBack(bytes, end, count, floor);
  const lines = bytes.toString("utf8", begin, end - 1).split("\n");
  return (floor === 0 ? [...tail, ...lines] : lines).slice(-count);
}

function isWanted(selection: Selection, raw: string, line: LogLine | undefined): boolean {
  const { runs, stage, since, until, grep } = selection;
  if (line === undefined) {
    if (runs || stage !== undefined || since !== undefined || until !== undefined) return false;
  } else {
    if (runs && !runs.has(line.run)) return false;
    if (stage !== undefined && line.stage !== stage) return false;
    if (since !== undefined && line.time < since) return false;
    if (until !== undefined && line.time > until) return false;
  }
  return grep === undefined || grep.test(withoutEscapes(line?.text ?? raw));
}

/** Where the next line that may be wanted has one of its bytes; -1 when there is none. */
type Find = (from: number) => number;

/** Finds the lines that are worth decoding, by the bytes that any wanted line must have. */
function candidatesOf({ runs, stage, grep }: Selection): (bytes: Buffer) => Find {
  if (runs && runs.size <= 4) return bytesFinder([...runs].map((run) => ` ${run} `));
  const needles = grep ? needlesOf(grep.source) : undefined;
  if (grep && needles && !grep.ignoreCase) {
    // a match may be broken up by escape sequences: lines that have any are looked at too
    return bytesFinder([...needles, "\u001b", "\u009b"]);
  }
  if (grep && needles?.every((needle) => /^[\x20-\x7e]+$/.test(needle))) {
    const any = needles.map((needle) => needle.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
    return patternFinder(new RegExp(`${any}|\\x1b|\\xc2\\x9b`, "gi"));
  }
  if (stage !== undefined) return bytesFinder([` ${stage} |`]);
  return () => (from) => from;
}

function bytesFinder(texts: readonly string[]): (bytes: Buffer) => Find {
  const needles = texts.map(needleOf);
  return (bytes) => {
    const find = finderIn(bytes);
    const places = needles.map(() => -2);
    return (from) => {
      let first = -1;
      for (const [index, needle] of needles.entries()) {
        let place = places[index] ?? -1;
        // the last place found for this needle stays good until it is passed
        if (place !== -1 && place < from) place = places[index] = find(needle, from);
        if (place >= 0 && (first < 0 || place < first)) first = place;
      }
      return first;
    };
  };
}

function patternFinder(pattern: RegExp): (bytes: Buffer) => Find {
  return (bytes) => {
    // one character a byte: places in the text are places in the bytes
    const text = bytes.toString("latin1");
    return (from) => {
      pattern.lastIndex = from;
      return pattern.exec(text)?.index ?? -1;
    };
  };
}
