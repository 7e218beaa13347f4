import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { fsyncFolder, writeAtomic } from "../files/files.ts";
import { decodeLine, encodeLine } from "./lines.ts";
import { firstLine, newline, pieceSize, type Place, readLines } from "./read-lines.ts";

/** A line on its way to the disk, less its newline; empty: somebody waits until all that was noted is there. */
interface Pending {
  readonly head?: object;
  readonly payload?: Uint8Array;
  readonly stored: (place: Place) => void;
  readonly failed: (error: unknown) => void;
}

interface Options {
  /** Whether there was no file yet, so that none is missing. */
  readonly isNew: boolean;
  readonly warn: (text: string) => void;
  /** What a rewritten file has besides the lines in use. */
  readonly summary: () => object[];
  /** Bytes that must be settled before the file is rewritten. */
  readonly minSettled?: number | undefined;
}

/** A write takes no further line when it has so many bytes of payloads: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;
/** Milliseconds that notes wait for a write that takes them along. */
const noteDelay = 1000;

/**
 * An append-only file of lines (lib/hook/lines.ts). Lines that arrive together share one write and one fdatasync(2);
 * `append` resolves after that, and meanwhile the lines of the next write gather. When most of the file is settled it
 * is rewritten beside and renamed, while lines go on being appended.
 */
export class LineFile {
  readonly #path: string;
  readonly #options: Options;
  readonly #minSettled: number;
  #file: FileHandle | undefined;
  /** Up to where the file is good; 0: there is none. */
  #length = 0;
  /** Lines whose payload is asked for later, each with how many ask. A rewrite keeps them, and moves their places. */
  readonly #inUse = new Map<Place, number>();
  readonly #notes: object[] = [];
  #noteTimer: NodeJS.Timeout | undefined;
  readonly #pending: Pending[] = [];
  /** Writes and the last steps of rewrites go one after the other. */
  #lastTurn: Promise<unknown> = Promise.resolve();
  #rewriting: Promise<void> | undefined;
  #isDamaged = false;
  /** The length at which the next look shows whether to rewrite. */
  #nextLook = 0;
  #closing = false;

  private constructor(path: string, options: Options) {
    this.#path = path;
    this.#options = options;
    this.#minSettled = options.minSettled ?? 32 * 1024 * 1024;
  }

  /** Open a file, or make it, and read its lines (see `readLines`). @throws {Failure} when it cannot be read. */
  static async open(path: string, options: Options) {
    const file = new LineFile(path, options);
    await rm(`${path}.new`, { recursive: true, force: true });
    const { lines, length, rewrite } = await readLines(path, options);
    file.#length = length;
    file.#isDamaged = rewrite === "repairs";
    if (rewrite === "loses") file.#nextLook = Number.POSITIVE_INFINITY;
    // a full disk: tried again by the first write
    await file.#ready().catch(() => {});
    return { file, lines };
  }

  /** A line that one more run needs. */
  keep(place: Place): void {
    this.#inUse.set(place, (this.#inUse.get(place) ?? 0) + 1);
  }

  isKept(place: Place): boolean {
    return this.#inUse.has(place);
  }

  /** A line that one run needs no more. */
  release(place: Place): void {
    const left = (this.#inUse.get(place) ?? 0) - 1;
    if (left > 0) this.#inUse.set(place, left);
    else this.#inUse.delete(place);
  }

  /** The payload of a line. @throws {Failure} when it is damaged; else what the file system threw. */
  async payload(place: Place): Promise<Buffer> {
    if (!this.#file) await this.#inTurn(() => this.#ready());
    // file and place belong together: a rewrite replaces both in one tick
    const { at, length } = place;
    const read = await this.#file?.read(Buffer.alloc(length), 0, length, at);
    const payload = read && decodeLine(read.buffer)?.payload;
    if (payload) return payload;
    throw new Failure(`${this.#path}: the line at byte ${at} is damaged; push again`);
  }

  /**
   * Resolves when a line is on disk, with what `stored` makes of its place; rejected when it could not be written:
   * nothing of it remains then. `stored` is called in the tick in which the line begins to count, and keeps the place:
   * a rewrite that starts after it knows the line.
   */
  append<T>(head: object, payload: Uint8Array, stored: (place: Place) => T): Promise<T> {
    return new Promise((resolve, failed) => {
      this.#enqueue({ head, payload, stored: (place) => resolve(stored(place)), failed });
    });
  }

  /** A line that nobody waits for: it goes to disk with the next write or soon, and is tried again when that fails. */
  note(head: object): void {
    this.#notes.push(head);
    this.#flushSoon();
  }

  #flushSoon(): void {
    if (this.#closing) return;
    this.#noteTimer ??= setTimeout(() => {
      this.#noteTimer = undefined;
      if (this.#notes.length > 0) this.flush().catch(() => this.#flushSoon());
    }, noteDelay).unref();
  }

  /** Wait until all that was noted so far is on disk; what is appended meanwhile is not waited for. */
  flush(): Promise<void> {
    return new Promise((resolve, failed) => this.#enqueue({ stored: () => resolve(), failed }));
  }

  #enqueue(pending: Pending): void {
    this.#pending.push(pending);
    // all that comes until its turn shares the next write
    if (this.#pending.length === 1) void this.#inTurn(() => this.#write());
  }

  /** Under load there is always another write: a rewrite's last step has its turn between two. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }

  async #write(): Promise<void> {
    let count = 0;
    for (let bytes = 0; count < this.#pending.length && bytes < maxBytesInWrite; count++)
      bytes += this.#pending[count]?.payload?.length ?? 0;
    const batch = this.#pending.splice(0, count);
    const notes = this.#notes.splice(0);
    try {
      const noted = Buffer.concat(notes.map((head) => encodeLine(head)));
      const lines = batch.map(({ head, payload }) => (head ? encodeLine(head, payload) : noLine));
      const bytes = Buffer.concat([noted, ...lines]);
      if (bytes.length > 0) {
        await this.#ready();
        await this.#file?.appendFile(bytes);
        await this.#file?.datasync();
      }
      let at = this.#length + noted.length;
      this.#length += bytes.length;
      for (const [n, { length }] of lines.entries()) {
        batch[n]?.stored({ at, length: length - 1 });
        at += length;
      }
    } catch (error) {
      this.#notes.unshift(...notes);
      // what is half there is cut off now, or before the next write; a file whose sync failed is not used again
      await this.#close();
      await this.#ready().catch(() => {});
      for (const { failed } of [...batch, ...this.#pending.splice(0)]) failed(error);
    }
    if (this.#pending.length > 0) void this.#inTurn(() => this.#write());
    this.rewriteIfDue();
  }

  /** Have the file open: its name is on disk, and nothing stands behind its good end. */
  async #ready(): Promise<void> {
    if (this.#file) return;
    if (this.#length === 0) {
      const first = encodeLine(firstLine);
      await writeAtomic(this.#path, first, { mode: 0o600 });
      this.#length = first.length;
    }
    const file = await open(this.#path, "a+");
    try {
      // the last newline is written anew: an editor may have left it out
      await file.truncate(this.#length - 1);
      await file.appendFile(newline);
      // nor may it have left it open to others
      await file.chmod(0o600);
      await file.sync();
      await fsyncFolder(dirname(this.#path));
      this.#file = file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Whatever closing may complain of: what counts was on disk when its write ended. */
  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => {});
  }

  /** Rewrite the file when most of it is settled, or part of it is damaged. */
  rewriteIfDue(): void {
    if (this.#rewriting || this.#closing || !this.#file || this.#length < this.#nextLook) return;
    this.#nextLook = this.#length + this.#minSettled / 4;
    const used = [...this.#inUse.keys()].reduce((sum, { length }) => sum + length, 0);
    if (!this.#isDamaged && this.#length - used <= Math.max(this.#minSettled, used)) return;
    this.#rewriting = this.#rewrite(this.#file)
      .catch((error: unknown) => {
        if (!this.#closing)
          this.#options.warn(`${this.#path} is not rewritten now: ${messageOf(error)}`);
      })
      .finally(() => {
        this.#rewriting = undefined;
      });
  }

  async #rewrite(from: FileHandle): Promise<void> {
    // all in one tick: a line that comes later stands behind `copied`, and is copied as it is
    let copied = this.#length;
    const places = [...this.#inUse.keys()].sort((a, b) => a.at - b.at);
    const summary = [firstLine, ...this.#options.summary()];
    const path = `${this.#path}.new`;
    const to = await open(path, "ax+", 0o600);
    let length = 0;
    const put = async (bytes: Buffer) => {
      if (this.#closing) throw new Error("the server stops");
      await to.appendFile(bytes);
      length += bytes.length;
    };
    const copy = async (start: number, end: number) => {
      for (let at = start; at < end; at += pieceSize) {
        const size = Math.min(pieceSize, end - at);
        const { buffer, bytesRead } = await from.read(Buffer.alloc(size), 0, size, at);
        if (bytesRead < size) throw new Error(`it ends before byte ${at + size}`);
        await put(buffer);
      }
    };
    const catchUp = async () => {
      const end = this.#length;
      await copy(copied, end);
      copied = end;
    };
    try {
      // in pieces: deliveries are answered in between
      for (let n = 0; n < summary.length; n += 500)
        await put(Buffer.concat(summary.slice(n, n + 500).map((head) => encodeLine(head))));
      const moved = new Map<Place, number>();
      for (const place of places) {
        moved.set(place, length);
        await copy(place.at, place.at + place.length + 1);
      }
      const shift = length - copied;
      // each pass is shorter than the one before: little is left for the last step, for which writes wait
      for (let pass = 0; pass < 5 && this.#length - copied > pieceSize; pass++) await catchUp();
      await to.sync();
      await this.#inTurn(async () => {
        await catchUp();
        await to.sync();
        await rename(path, this.#path);
        // in one tick: a reader has the old file and places, or the new ones
        const former = this.#file;
        this.#file = to;
        this.#length = length;
        for (const place of this.#inUse.keys()) place.at = moved.get(place) ?? place.at + shift;
        this.#isDamaged = false;
        this.#nextLook = length + this.#minSettled / 4;
        await former?.close().catch(() => {});
        // nothing is answered before the new name is on disk: if not now, then when it is opened for the next write
        await fsyncFolder(dirname(path)).catch(() => this.#close());
      });
    } catch (error) {
      await Promise.all([to.close(), rm(path, { force: true })]);
      throw error;
    }
  }

  /** Bring what was noted to the disk, and close the file. */
  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#noteTimer);
    await this.#rewriting;
    await this.flush().catch(() => {});
    await this.#close();
  }
}

const noLine = Buffer.alloc(0);
