import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setImmediate as breathe } from "node:timers/promises";
import type { Mask } from "../config/secrets.ts";
import {
  parseStyle,
  plainStyle,
  type Span,
  spansOf,
  type Style,
  styleAfter,
  styleText,
} from "./ansi.ts";

/** Where the lines of a log begin, so that any part of a long one can be shown at once. */

/** Each of so many lines its place and the colours it begins with are kept. */
const step = 1000;
const pieceSize = 256 * 1024;
/** A line that is longer counts as several. */
const maxLine = 1024 * 1024;
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
    return (this.#reading = this.#reading.catch(() => {}).then(() => this.#update()));
  }

  async #update(): Promise<void> {
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
      const buffer = Buffer.allocUnsafe(Math.min(maxLine, Math.max(pieceSize, 1)));
      while (this.#size < size) {
        const wanted = Math.min(buffer.length, size - this.#size);
        const { bytesRead } = await file.read(buffer, 0, wanted, this.#size);
        if (bytesRead === 0) break;
        const used = this.#take(buffer.subarray(0, bytesRead), bytesRead === buffer.length);
        if (used === 0) break;
        await breathe();
      }
    } finally {
      await file.close();
    }
  }

  /** Count the whole lines of a piece; returns how many bytes they are. */
  #take(piece: Buffer, isFull: boolean): number {
    let start = 0;
    let escape = piece.indexOf(27);
    const line = (end: number, next: number) => {
      if (escape >= 0 && escape < end) {
        this.#style = styleAfter(piece.toString("latin1", escape, end), this.#style);
        escape = piece.indexOf(27, end);
      }
      start = next;
      this.#lines += 1;
      if (this.#lines % step === 0)
        this.#marks.push({ at: this.#size + start, style: this.#style });
    };
    for (let end = piece.indexOf(10); end >= 0; end = piece.indexOf(10, start)) line(end, end + 1);
    if (start === 0 && isFull) line(piece.length, piece.length);
    this.#size += start;
    return start;
  }

  /** Lines from a number on (from 0); the last ones for a negative one. */
  async read(from: number, count: number, mask: Mask): Promise<Lines> {
    const total = this.#lines;
    const first = Math.max(0, Math.min(from < 0 ? total + from : from, total));
    const wanted = Math.min(count, maxLines, total - first);
    const index = Math.floor(first / step);
    let { at, style } = this.#marks[index] ?? { at: 0, style: plainStyle };
    const lines: string[] = [];
    let skipped = index * step;
    let bytes = 0;
    const file = await openLog(this.#path);
    if (!file || wanted <= 0) {
      await file?.close();
      return { total, from: first, style: styleText(style), lines };
    }
    try {
      const buffer = Buffer.allocUnsafe(maxLine);
      while (lines.length < wanted && at < this.#size && bytes < maxBytes) {
        const size = Math.min(buffer.length, this.#size - at);
        const { bytesRead } = await file.read(buffer, 0, size, at);
        if (bytesRead === 0) break;
        const piece = buffer.subarray(0, bytesRead);
        let start = 0;
        while (lines.length < wanted) {
          let end = piece.indexOf(10, start);
          if (end < 0 && start === 0 && bytesRead === buffer.length) end = piece.length;
          if (end < 0) break;
          const text = piece.toString("utf8", start, end);
          if (skipped < first) {
            skipped += 1;
            style = styleAfter(text, style);
          } else {
            lines.push(mask(text));
            bytes += end - start;
          }
          start = Math.min(end + 1, piece.length);
        }
        if (start === 0) break;
        at += start;
      }
    } finally {
      await file.close();
    }
    return { total, from: first, style: styleText(style), lines };
  }

  /** The number of the line at a place in bytes. */
  async lineAt(place: number): Promise<number> {
    let index = this.#marks.findLastIndex(({ at }) => at <= place);
    if (index < 0) index = 0;
    let line = index * step;
    const file = await openLog(this.#path);
    if (!file) return 0;
    try {
      let at = this.#marks[index]?.at ?? 0;
      const end = Math.min(place, this.#size);
      const buffer = Buffer.allocUnsafe(pieceSize);
      while (at < end) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, end - at), at);
        if (bytesRead === 0) break;
        for (let next = buffer.indexOf(10); next >= 0 && next < bytesRead; ) {
          line += 1;
          next = buffer.indexOf(10, next + 1);
        }
        at += bytesRead;
      }
    } finally {
      await file.close();
    }
    return line;
  }

  /**
   * The lines in which `fits` finds something, from a line on (from 0): the first `most` of them, and how many there
   * are in all.
   */
  async find(
    fits: (text: string) => boolean,
    { from = 0, most, mask }: { from?: number; most: number; mask: Mask },
  ): Promise<{ lines: number[]; count: number }> {
    const lines: number[] = [];
    let count = 0;
    for (let at = from; at < this.#lines; ) {
      const part = await this.read(at, maxLines, mask);
      if (part.lines.length === 0) break;
      for (const [index, text] of part.lines.entries()) {
        if (!fits(text)) continue;
        count += 1;
        if (lines.length < most) lines.push(at + index);
      }
      if (most === 1 && count > 0) break;
      at += part.lines.length;
      await breathe();
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
