import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setImmediate as breathe, setTimeout as sleep } from "node:timers/promises";
import * as clean from "../core/clean.ts";
import type { Mask } from "../core/mask.ts";
import { Mutex } from "../core/mutex.ts";
import { firstError } from "../log/first-error.ts";
import { textOfLine } from "../log/format.ts";
import { hasEnded, type Run, type RunStage } from "../run-store/run-store.ts";
import { makeAnsi, type Span, type Style } from "./ansi.ts";
import type { PageSource } from "./source.ts";

/** Any part of a run's log, however long it is: by line numbers, by a text, by its stages. Lines are from 0 here. */

const { parseStyle, plainStyle, spansOf, styleAfter, styleText } = makeAnsi(clean);

/** Each of so many lines its place and the colours it begins with are kept. */
const step = 1000;
/** Bytes that are read at once; a line that is longer counts as several. */
const pieceSize = 256 * 1024;
/** Lines that one answer holds at most, and bytes. */
const maxLines = 2000;
const maxBytes = 4 * 1024 * 1024;
/** Lines of a page, and of each part that the script asks for. */
export const partSize = 500;
/** The last lines of a failed stage in which its error is looked for. */
const errorLines = 5000;
/** Matches that are told of; more are counted. */
const maxMatches = 5000;

export interface Lines {
  readonly total: number;
  readonly from: number;
  /** The colours that the first line begins with, as `styleText` writes them. */
  readonly style: string;
  readonly lines: readonly string[];
}

/** A stage that the log can be folded by; `to` is the line after its last, `at` its first byte. */
export interface Fold extends Pick<RunStage, "name" | "result" | "seconds"> {
  readonly at: number;
  readonly from: number;
  readonly to: number | undefined;
}

/** What the page has of a log at once. */
export interface LogPart {
  readonly from: number;
  readonly lines: readonly (readonly Span[])[];
  readonly more: boolean;
  /** The line that says why the run failed. */
  readonly error: number | undefined;
}

/** The logs that were looked at last. */
export class Logs {
  readonly #source: PageSource;
  readonly #indexes = new Map<string, LogIndex>();
  /** One search after the other: many at once in long logs hold up the server. */
  readonly #searches = new Mutex();

  constructor(source: PageSource) {
    this.#source = source;
  }

  private indexOf(run: Run): LogIndex {
    const path = this.#source.logFile(run.id);
    const known = this.#indexes.get(path) ?? new LogIndex(path);
    this.#indexes.delete(path);
    this.#indexes.set(path, known);
    const [oldest] = this.#indexes.keys();
    if (this.#indexes.size > 20 && oldest !== undefined) this.#indexes.delete(oldest);
    return known;
  }

  /**
   * The part that stands in the page: of a failed run its error with ten lines before it, else the first lines.
   * @param asked `123`: that line, from 1; `end`; `@123`: that byte.
   */
  async part(run: Run, asked: string | null): Promise<LogPart> {
    const index = this.indexOf(run);
    const mask = this.#source.mask();
    const isFailed = run.state === "failed";
    const updating = index.update();
    if (asked === null && !isFailed && index.lines === 0 && hasEnded(run)) {
      // the first lines are known soon: the page does not wait for the rest of a long log
      let isDone = false;
      void updating.catch(() => {}).then(() => (isDone = true));
      while (!isDone && index.lines < partSize) await sleep(5);
    } else await updating;
    const error = isFailed ? await this.error(run, index) : undefined;
    const from =
      asked === null
        ? Math.max(0, (error ?? 0) - 10)
        : asked === "end"
          ? -partSize
          : asked.startsWith("@")
            ? await index.lineAt(Number(asked.slice(1)) || 0)
            : Math.max(0, Math.trunc(Number(asked) || 1) - 1);
    const part = await index.read(from, partSize, mask);
    let style = parseStyle(part.style);
    const lines = part.lines.map((line) => {
      const { spans, style: next } = spansOf(line, style);
      style = next;
      return spans;
    });
    return { from: part.from, lines, more: part.from + lines.length < index.lines, error };
  }

  /**
   * What the script asks for. `lines`: some of them, and with `folds` the stages and the error; `search`: the lines
   * that have a text, in what a reader sees. Undefined: no such question.
   * @param signal nobody waits for the answer any more.
   */
  async answer(
    run: Run,
    what: string | undefined,
    { query, signal }: { query: URLSearchParams; signal: AbortSignal },
  ): Promise<object | undefined> {
    if (what !== "lines" && what !== "search") return undefined;
    const index = this.indexOf(run);
    await index.update();
    const mask = this.#source.mask();
    if (what === "lines") {
      const number = (name: string) => Math.trunc(Number(query.get(name))) || 0;
      const part = await index.read(number("from"), number("count"), mask);
      if (!query.has("folds")) return part;
      const now = (await this.#source.whole(run.id)) ?? run;
      const error = now.state === "failed" ? await this.error(now, index) : undefined;
      return { ...part, at: index.position, folds: await this.folds(now, index), error };
    }
    const plain = (text: string) => (query.get("case") === "1" ? text : text.toLowerCase());
    const text = plain((query.get("q") ?? "").slice(0, 200));
    if (text === "") return { lines: [], count: 0 };
    const fits = (line: string) => plain(clean.withoutEscapes(line)).includes(text);
    return await this.#searches.run(() => index.find(fits, { most: maxMatches, mask, signal }));
  }

  private async folds({ stages = [] }: Run, index: LogIndex): Promise<Fold[]> {
    const folds: Fold[] = [];
    for (const { name, result, seconds, from: at, to } of stages) {
      if (at === undefined) continue;
      const from = await index.lineAt(at);
      const end = to === undefined ? undefined : await index.lineAt(to);
      if (end !== from) folds.push({ name, result, seconds, at, from, to: end });
    }
    return folds;
  }

  /** The line of the failed stage that tells why; where none does, ten lines before its end. */
  private async error({ stages }: Run, index: LogIndex): Promise<number | undefined> {
    const failed = stages?.find(({ result }) => result === "failed" || result === "timeout");
    const from = await index.lineAt(failed?.from ?? 0);
    const to = failed?.to === undefined ? index.lines : await index.lineAt(failed.to);
    const lines: string[] = [];
    const first = Math.max(from, to - errorLines);
    while (first + lines.length < to) {
      const part = await index.read(first + lines.length, to - first - lines.length, this.#source.mask());
      if (part.lines.length === 0) break;
      lines.push(...part.lines);
    }
    // what the server itself says of it comes after it
    const found = firstError(lines.map((line) => (/^\S+ \S+ hook-server \| /.test(line) ? "" : textOfLine(line))));
    return lines.length === 0 ? undefined : found >= 0 ? first + found : Math.max(first, to - 10);
  }
}

/** Where the lines of one log begin. */
export class LogIndex {
  readonly #path: string;
  #file: number | undefined;
  /** Bytes that were looked through: whole lines. */
  #size = 0;
  #lines = 0;
  #style: Style = plainStyle;
  #marks = [{ at: 0, style: plainStyle }];
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
        [this.#file, this.#size, this.#lines, this.#style] = [ino, 0, 0, plainStyle];
        this.#marks = [{ at: 0, style: plainStyle }];
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

  /** Lines from a number on; the last ones for a negative one. */
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
    await this.scan({ from: this.#marks[index]?.at ?? 0, to: Math.min(place, this.#size) }, () => {
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

  /** The lines that fit: the first `most` of them, and how many there are in all. */
  async find(
    fits: (text: string) => boolean,
    { most, mask, signal }: { most: number; mask: Mask; signal?: AbortSignal },
  ): Promise<{ lines: number[]; count: number }> {
    const lines: number[] = [];
    let count = 0;
    for (let at = 0; at < this.#lines && signal?.aborted !== true; ) {
      const part = await this.read(at, maxLines, mask);
      if (part.lines.length === 0) break;
      for (const [index, text] of part.lines.entries()) if (fits(text) && ++count <= most) lines.push(at + index);
      at += part.lines.length;
    }
    return { lines, count };
  }
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
  if (!file || (await file.stat()).isFile()) return file;
  await file.close();
  return undefined;
}
