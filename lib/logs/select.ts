import { UsageError } from "../core/errors.ts";
import { headForm, type LogLine, parseLine, separator } from "../log/format.ts";
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
export class Chosen {
  readonly raw: string;
  /** A neighbour of a match, not a match itself. */
  readonly context: boolean;
  /** Lines were left out between this one and the one chosen before. */
  readonly gap: boolean;
  #line: LogLine | undefined | null = null;

  constructor(raw: string, context: boolean, gap: boolean) {
    this.raw = raw;
    this.context = context;
    this.gap = gap;
  }

  /** Its columns, read when they are asked for; undefined for a line that is not of our writers. */
  get line(): LogLine | undefined {
    if (this.#line === null) this.#line = parseLine(this.raw);
    return this.#line;
  }
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
  const { runs, stage, since, until, grep, before = 0, after = 0 } = selection;
  if (stage === undefined && since === undefined && until === undefined && !grep) {
    return (bytes) => {
      // whole runs: nearly every line is wanted, and taking the block apart at once is the cheapest
      for (const raw of bytes.toString("utf8").split("\n")) {
        if (raw !== "" && (!runs || isOf(runs, raw))) choose(new Chosen(raw, false, false));
      }
    };
  }
  let next = candidatesOf(selection);
  /** Where the block begins, and up to where lines were shown, in bytes since the first block. */
  let base = 0;
  let shownTo = 0;
  let any = false;
  /** How many more lines are due after the last match. */
  let due = 0;
  /** The last lines before the block that were not shown. */
  let tail: { raw: string; begin: number }[] = [];
  const show = (raw: string, begin: number, context: boolean) => {
    const gap = any && begin > shownTo && before + after > 0;
    any = true;
    shownTo = begin + Buffer.byteLength(raw) + 1;
    choose(new Chosen(raw, context, gap));
  };
  return (bytes) => {
    /** Up to here all lines of the block are shown. */
    let shown = 0;
    const showRange = (from: number, to: number, most = Number.POSITIVE_INFINITY) => {
      let count = 0;
      for (let at = from; at < to && count < most; count += 1) {
        const newline = bytes.indexOf(10, at);
        const end = newline < 0 ? bytes.length : newline;
        show(bytes.toString("utf8", at, end), base + at, true);
        shownTo = base + end + 1;
        at = shown = end + 1;
      }
      return count;
    };
    const find = next(bytes);
    let tried = 0;
    let found = 0;
    for (let at = find(0); at >= 0; ) {
      const begin = at === 0 ? 0 : bytes.lastIndexOf(10, at - 1) + 1;
      const newline = bytes.indexOf(10, at);
      const end = newline < 0 ? bytes.length : newline;
      const raw = bytes.toString("utf8", begin, end);
      tried += 1;
      if (raw !== "" && isWanted(selection, raw)) {
        found += 1;
        if (due > 0) due -= showRange(shown, begin, due);
        if (before > 0) {
          const back = countBack(bytes, begin, before, shown);
          const missing = shown === 0 ? before - back.count : 0;
          for (const each of tail.slice(Math.max(0, tail.length - missing)))
            show(each.raw, each.begin, true);
          showRange(back.begin, begin);
        }
        show(raw, base + begin, false);
        shownTo = base + end + 1;
        shown = end + 1;
        due = after;
      }
      at = end + 1 < bytes.length ? find(end + 1) : -1;
    }
    // words that are everywhere are no help: the next blocks are tried as a whole
    if (grep && tried > bytes.length / 1000 && found < tried / 2) next = textFinder(grep);
    if (due > 0) due -= showRange(shown, bytes.length, due);
    if (before > 0) tail = lastLines(shown === 0 ? tail : [], bytes, base, shown, before);
    base += bytes.length;
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

/** The last `count` lines of a block from `floor` on, and of those before it. */
function lastLines(
  tail: { raw: string; begin: number }[],
  bytes: Buffer,
  base: number,
  floor: number,
  count: number,
) {
  const end = bytes.at(-1) === 10 ? bytes.length : bytes.length + 1;
  const lines = [...tail];
  for (let at = countBack(bytes, end, count, floor).begin; at < end - 1; ) {
    const newline = bytes.indexOf(10, at);
    const stop = newline < 0 ? bytes.length : newline;
    lines.push({ raw: bytes.toString("utf8", at, stop), begin: base + at });
    at = stop + 1;
  }
  return lines.slice(-count);
}

/** Whether a line is of one of the runs, told without taking it apart. */
function isOf(runs: ReadonlySet<string>, raw: string): boolean {
  return runs.has(raw.slice(25, raw.indexOf(" ", 25)));
}

function isWanted({ runs, stage, since, until, grep }: Selection, raw: string): boolean {
  if (runs && !isOf(runs, raw)) return false;
  const line = parseLine(raw);
  if (line === undefined) {
    if (runs || stage !== undefined || since !== undefined || until !== undefined) return false;
  } else {
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
  if (grep) return textFinder(grep);
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

/** Tries a pattern on the texts of a block that is read as one string, which is cheaper than line by line. */
function textFinder(pattern: RegExp): (bytes: Buffer) => Find {
  const anywhere = inAnyLine(pattern);
  return (bytes) => {
    const block = bytes.toString("latin1");
    // where one byte is not one character, or escapes may break up a match, lines are looked at closely
    // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
    if (/[^\u0000-\u001a\u001c-\u007f]/.test(block)) return (from) => from;
    if (anywhere) {
      return (from) => {
        anywhere.lastIndex = from;
        return anywhere.exec(block)?.index ?? -1;
      };
    }
    return (from) => {
      for (let begin = from; begin < block.length; ) {
        const newline = block.indexOf("\n", begin);
        const end = newline < 0 ? block.length : newline;
        const bar = block.indexOf(separator, begin + 26);
        const ours = bar > 0 && bar < end && headForm.test(block.slice(begin, bar + 3));
        if (pattern.test(block.slice(ours ? bar + 3 : begin, end))) return begin;
        begin = end + 1;
      }
      return -1;
    };
  };
}

/**
 * The pattern for a whole block: it finds no less than the lines tried one by one. With the flag m, `$` is
 * the end of a line; `^` would be its beginning, where the time stands, and what looks around may tell
 * the end of a text from the end of a line.
 */
function inAnyLine(pattern: RegExp): RegExp | undefined {
  if (/\^|\(\?[^:]/.test(pattern.source.replace(/\\.|\[\^/g, ""))) return undefined;
  return new RegExp(pattern.source, `${pattern.flags}gm`);
}
