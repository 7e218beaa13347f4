import { type FileHandle, lstat, open } from "node:fs/promises";
import type { Mask } from "../../core/mask.ts";

/** A log as server-sent events: how it is read, where it is cut, and what one looks like. */

/** Bytes that are read at once. */
const pieceSize = 64 * 1024;
/** So much of a line without an end is waited for; then it goes out in pieces. */
const maxLine = 256 * 1024;

/** A part of a log: whole lines as a rule. */
interface Piece {
  readonly event: Buffer;
  /** Where it ends in the log, in bytes. */
  readonly to: number;
  /** Whether there may be more to read at once. */
  readonly isFull: boolean;
}

/** A run's log, read as events. */
export class LogEvents {
  readonly #path: () => string;
  readonly #mask: () => Mask;
  #file: FileHandle | undefined;
  /** Which file it is; 0: there is none yet. */
  ino = 0;

  constructor({ path, mask }: { path: () => string; mask: () => Mask }) {
    this.#path = path;
    this.#mask = mask;
  }

  /** Have the log open if it is there: once, as at a run's end it may be replaced by a masked one, which is shorter. */
  async open(): Promise<void> {
    if (this.#file) return;
    const path = this.#path();
    const found = await lstat(path).catch(() => undefined);
    if (!found?.isFile()) return;
    const file = await open(path).catch(() => undefined);
    if (this.#file) {
      await file?.close();
      return;
    }
    this.#file = file;
    this.ino = found.ino;
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }

  /** From the middle of a line the rest of a secret could be had, which the mask does not know. */
  async isLineStart(at: number): Promise<boolean> {
    return at === 0 || (await this.read(at - 1, 1))[0] === 10;
  }

  /**
   * Whole lines from a place on; of a line that has no end what there is, once the log has ended or it is too long.
   * @param limit where another piece ended.
   */
  async piece(at: number, { isEnd = false, limit = Number.POSITIVE_INFINITY } = {}): Promise<Piece | undefined> {
    for (let size = pieceSize; ; size = maxLine) {
      const wanted = Math.min(size, limit - at);
      const read = await this.read(at, wanted);
      if (read.length === 0) return undefined;
      const isFull = read.length === wanted;
      let end = read.lastIndexOf(10) + 1;
      // up to there it went out before
      if (end === 0 && at + read.length === limit) end = read.length;
      if (end === 0 && isFull && size < maxLine) continue;
      if (end === 0 && isFull) end = cutOf(read, this.#mask());
      // the last line of a log that has ended needs no end
      if (end === 0 && isEnd) end = read.length;
      if (end === 0) return undefined;
      const text = this.#mask()(read.toString("utf8", 0, end));
      const to = at + end;
      return { event: Buffer.from(eventOf(text, `${this.ino}-${to}`)), to, isFull };
    }
  }

  /** Up to so many bytes of the log; none where it cannot be read, or was closed since all have gone. */
  private async read(at: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    const found = await this.#file?.read(buffer, 0, length, at).catch(() => undefined);
    return buffer.subarray(0, found?.bytesRead ?? 0);
  }
}

/** The end of a line that has none yet may be the beginning of a secret: so many bytes wait for what follows. */
const tail = 4096;

/** Where a line without an end is cut, in bytes: not in a character, and not in a secret. */
export function cutOf(read: Buffer, mask: Mask): number {
  let cut = read.length - tail;
  for (let back = 0; back < 3 && ((read[cut] ?? 0) & 0xc0) === 0x80; back++) cut -= 1;
  const text = read.toString("utf8");
  const length = read.toString("utf8", 0, cut).length;
  const across = mask.spans(text).find(([from, to]) => from < length && to > length);
  // found by its own bytes: what is not UTF-8 has other lengths as text
  const start = across ? read.lastIndexOf(text.slice(...across), cut) : 0;
  return start > 0 ? start : cut;
}

/** A text as one server-sent event, a field for each line. Of a line that redraws itself the last state is sent. */
export function eventOf(text: string, id: string | undefined, name?: string): string {
  const lines = text
    .replace(/\n$/, "")
    .split("\n")
    .map((line) => line.replace(/\r+$/, "").split("\r").at(-1) ?? "");
  const head = `${id === undefined ? "" : `id: ${id}\n`}${name === undefined ? "" : `event: ${name}\n`}`;
  return `${head}data: ${lines.join("\ndata: ")}\n\n`;
}
