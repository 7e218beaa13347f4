import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setImmediate as breathe } from "node:timers/promises";
import * as clean from "../core/clean.ts";
import type { Mask } from "../core/mask.ts";
import { makeAnsi, type Span, type Style } from "./ansi.ts";

/** Where the lines of a log begin, so that any part of a long one can be shown at once. */

const { parseStyle, plainStyle, spansOf, styleAfter, styleText } = makeAnsi(clean);

/** Each of so many lines its place and the colours it begins with are kept. */
const step = 1000;
/** Bytes that are read at once; a line that is longer counts as several. */
const pieceSize = 256 * 1024;
/** Lines that one answer holds at most, and bytes. */
const maxLines = 2000;
const maxBytes = 4 * 1024 * 1024;

interface Mark {
  readonly at: number;
  readonly style: Style;
}

/** A part of a log. Line numbers are from 0. */
export interface Lines {
  readonly total: number;
  readonly from: number;
  /** The colours that the first line begins with, as `styleText` writes them. */
  readonly style: string;
  readonly lines: readonly string[];
}

interface FindOptions {
  from?: number;
  most: number;
  mask: Mask;
  signal?: AbortSignal | undefined;
}

export class LogIndex {
  readonly #path: string;
  #file: number | undefined;
  /** Bytes that were looked through: whole lines. */
  #size = 0;
  #lines = 0;
  #style: Style = plainStyle;
  #marks: Mark[] = [{ at: 0, style: plainStyle }];
  #reading: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.#path = path;
  }

  /** How many whole lines were found so far. */
  get lines(): number {
    return this.#lines;
  }

  /** Where a stream of the log begins that comes after these lines: as its ids have it. */
  get position(): string {
    return `${this.#file ?? 0}-${this.#size}`;
  }

  /** Look through what was added. */
  update(): Promise<void> {
    return (this.#reading = this.#reading.catch(() => {}).then(() => this.readOn()));
  }

  private async readOn(): Promise<void> {
    const file = await openLog(this.#path);
    if (!file) return;
    try {
      const { ino, size } = await file.stat();
      // masked at the run's end, or cut: another file
      if (ino !== this.#file || size < this.#size) {
        [this.#size, this.#lines, this.#style] = [0, 0, plainStyle];
        this.#marks = [{ at: 0, style: plainStyle }];
        this.#file = ino;
      }
      await eachLine(file, { from: this.#size, to: size }, (piece, start, end, next) => {
        if (piece.subarray(start, end).includes(27))
          this.#style = styleAfter(piece.toString("utf8", start, end), this.#style);
        this.#lines += 1;
        this.#size = next;
        if (this.#lines % step === 0) this.#marks.push({ at: next, style: this.#style });
        return true;
      });
    } finally {
      await file.close();
    }
  }

  /** Lines from a number on (from 0); the last ones for a negative one. */
  async read(from: number, count: number, mask: Mask): Promise<Lines> {
    const total = this.#lines;
    const first = Math.max(0, Math.min(from < 0 ? total + from : from, total));
    const wanted = Math.min(count, maxLines, total - first);
    let number = Math.floor(first / step) * step;
    const mark = this.#marks[number / step] ?? { at: 0, style: plainStyle };
    let { style } = mark;
    const lines: string[] = [];
    let bytes = 0;
    const to = wanted > 0 ? this.#size : mark.at;
    await this.scan({ from: mark.at, to }, (piece, start, end) => {
      const text = piece.toString("utf8", start, end);
      if (number++ < first) style = styleAfter(text, style);
      else {
        lines.push(mask(text));
        bytes += end - start;
      }
      return lines.length < wanted && bytes < maxBytes;
    });
    return { total, from: first, style: styleText(style), lines };
  }

  /** The number of the line at a place in bytes. */
  async lineAt(place: number): Promise<number> {
    const index = this.#marks.findLastIndex(({ at }) => at <= place);
    let line = Math.max(0, index) * step;
    const from = this.#marks[index]?.at ?? 0;
    await this.scan({ from, to: Math.min(place, this.#size) }, () => {
      line += 1;
      return true;
    });
    return line;
  }

  private async scan(range: Range, tell: Tell): Promise<void> {
    const file = range.from < range.to ? await openLog(this.#path) : undefined;
    try {
      if (file) await eachLine(file, range, tell);
    } finally {
      await file?.close();
    }
  }

  /**
   * The lines in which `fits` finds something, from a line on (from 0): the first `most` of them, and how many there
   * are in all. It ends early when nobody waits for it any more.
   */
  async find(
    fits: (text: string) => boolean,
    { from = 0, most, mask, signal }: FindOptions,
  ): Promise<{ lines: number[]; count: number }> {
    const lines: number[] = [];
    let count = 0;
    for (let at = from; at < this.#lines && signal?.aborted !== true; ) {
      const part = await this.read(at, maxLines, mask);
      if (part.lines.length === 0) break;
      for (const [index, text] of part.lines.entries()) {
        if (!fits(text)) continue;
        count += 1;
        if (lines.length < most) lines.push(at + index);
      }
      if (most === 1 && count > 0) break;
      at += part.lines.length;
    }
    return { lines, count };
  }
}

/** The lines of a part as spans, for those who have no script. */
export function spansIn({ lines, style }: Lines): Span[][] {
  let now = parseStyle(style);
  return lines.map((line) => {
    const { spans, style: next } = spansOf(line, now);
    now = next;
    return spans;
  });
}

/** Bytes of a log. */
type Range = { from: number; to: number };
/** Told where a line stands in what was read, and the place after it in the log; `false` ends it. */
type Tell = (piece: Buffer, start: number, end: number, next: number) => boolean;

/** Tell of each whole line of a part, and of each piece of one that is too long. */
async function eachLine(file: FileHandle, { from, to }: Range, tell: Tell): Promise<void> {
  const buffer = Buffer.allocUnsafe(pieceSize);
  for (let at = from; at < to; await breathe()) {
    const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, to - at), at);
    const piece = buffer.subarray(0, bytesRead);
    let start = 0;
    for (let end = piece.indexOf(10); end >= 0; end = piece.indexOf(10, start)) {
      if (!tell(piece, start, end, at + end + 1)) return;
      start = end + 1;
    }
    if (start === 0) {
      // its end may not be written yet
      if (bytesRead < buffer.length) return;
      if (!tell(piece, 0, bytesRead, at + bytesRead)) return;
      start = bytesRead;
    }
    at += start;
  }
}

/** A log that is opened to be read; undefined when there is none, or it is not a plain file. */
async function openLog(path: string): Promise<FileHandle | undefined> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch(() => undefined);
  if (file && !(await file.stat()).isFile()) {
    await file.close();
    return undefined;
  }
  return file;
}
