import { constants } from "node:fs";
import { type FileHandle, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as immediate } from "node:timers/promises";
import { Failure, messageOf } from "../core/errors.ts";
import { fsyncFolder, writeAtomic } from "../files/files.ts";
import { decodeLine, encodeLine } from "./lines.ts";
import { firstLine, newline, pieceSize, type Place, readLines } from "./read-lines.ts";
import { Successor } from "./successor.ts";

/** Lines on their way to the disk. */
interface Pending {
  readonly parts: readonly Buffer[];
  readonly size: number;
  /** Who waits for it; nobody for a note. */
  readonly waiter?: { stored(place: Place): void; failed(error: unknown): void };
}

interface Options {
  /** Whether there was no file yet, so that none is missing. */
  readonly isNew: boolean;
  readonly warn: (text: string) => void;
  /** The lines whose payload is asked for later: a rewrite keeps them, and moves their places. */
  readonly inUse: () => ReadonlyMap<Place, unknown>;
  /** What a rewritten file has besides. */
  readonly summary: () => object[];
  /** Bytes that must be settled before the file is rewritten. */
  readonly minSettled?: number | undefined;
}

/** A write takes no further line when it has so many bytes: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;
/** Milliseconds that notes wait for a write that takes them along. */
const noteDelay = 1000;
/** What is written is on disk when its write ends. */
const appending = constants.O_RDWR | constants.O_APPEND | constants.O_DSYNC;

/**
 * An append-only file of lines (lib/hook/lines.ts). Lines that arrive together share one write; `append` resolves when
 * it is on disk, and meanwhile the lines of the next write gather. When most of the file is settled it is rewritten
 * beside and renamed, while lines go on being appended.
 */
export class LineFile {
  readonly #path: string;
  readonly #options: Options;
  readonly #minSettled: number;
  #file: FileHandle | undefined;
  /** Up to where the file is good; 0: there is none. */
  #length = 0;
  #pending: Pending[] = [];
  #noteTimer: NodeJS.Timeout | undefined;
  /** Writes and the last steps of rewrites go one after the other: under load there is always another write. */
  #lastTurn: Promise<unknown> = Promise.resolve();
  #isWriteAhead = false;
  #rewriting: Promise<void> | undefined;
  #isDamaged = false;
  /** The length at which the next look shows whether to rewrite. */
  #nextLook = 0;
  #closing = false;

  private constructor(path: string, options: Options) {
    this.#path = path;
    this.#options = options;
    this.#minSettled = options.minSettled ?? 64 * 1024 * 1024;
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

  /** The payload of a line. @throws {Failure} when it is damaged; else what the file system threw. */
  async payload(place: Place): Promise<Buffer> {
    const file = this.#file ?? (await this.#inTurn(() => this.#ready()));
    // file and place belong together: a rewrite replaces both in one tick
    const { at, length } = place;
    const { buffer } = await file.read(Buffer.alloc(length), 0, length, at);
    const payload = decodeLine(buffer)?.payload;
    if (payload) return payload;
    throw new Failure(`${this.#path}: the line at byte ${at} is damaged; push again`);
  }

  /**
   * Resolves when a line is on disk, with what `stored` makes of its place; rejected when it could not be written:
   * nothing of it remains then. `stored` is called in the tick in which the line begins to count: a rewrite that starts
   * after it asks for the lines in use, and must be told of this one.
   */
  append<T>(head: object, payload: Buffer | undefined, stored: (place: Place) => T): Promise<T> {
    return this.#put(encodeLine(head, payload), stored);
  }

  /** Wait until all that was noted so far is on disk; what is appended meanwhile is not waited for. */
  flush(): Promise<void> {
    return this.#put([], () => {});
  }

  #put<T>(parts: Buffer[], stored: (place: Place) => T): Promise<T> {
    return new Promise((resolve, failed) => {
      const waiter = { stored: (place: Place) => resolve(stored(place)), failed };
      this.#pending.push({ parts, size: sizeOf(parts), waiter });
      this.#writeSoon();
    });
  }

  /** A line that nobody waits for: it goes to disk with the next write or soon, and is tried again when that fails. */
  note(head: object): void {
    const parts = encodeLine(head);
    this.#pending.push({ parts, size: sizeOf(parts) });
    this.#writeNotesLater();
  }

  #writeNotesLater(): void {
    if (this.#closing) return;
    this.#noteTimer ??= setTimeout(() => {
      this.#noteTimer = undefined;
      if (this.#pending.length > 0) this.#writeSoon();
    }, noteDelay).unref();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#lastTurn.then(work);
    this.#lastTurn = turn.catch(() => {});
    return turn;
  }

  /** All that comes until the turn of the next write shares it, and so does what comes at the same time. */
  #writeSoon(): void {
    if (this.#isWriteAhead) return;
    this.#isWriteAhead = true;
    void this.#inTurn(async () => {
      await immediate();
      this.#isWriteAhead = false;
      await this.#write();
    });
  }

  async #write(): Promise<void> {
    let count = 0;
    for (let bytes = 0; count < this.#pending.length && bytes < maxBytesInWrite; count++)
      bytes += this.#pending[count]?.size ?? 0;
    const batch = this.#pending.splice(0, count);
    try {
      const bytes = Buffer.concat(batch.flatMap(({ parts }) => parts));
      if (bytes.length > 0) {
        const file = await this.#ready();
        // one write, unless the disk takes but a part: appendFile would wait for the disk every 512 KiB
        for (let done = 0; done < bytes.length; )
          done += (await file.write(bytes, done)).bytesWritten;
      }
      let at = this.#length;
      this.#length += bytes.length;
      for (const { size, waiter } of batch) {
        waiter?.stored({ at, length: size - 1 });
        at += size;
      }
    } catch (error) {
      const all = [...batch, ...this.#pending];
      this.#pending = all.filter(({ waiter }) => !waiter);
      this.#writeNotesLater();
      // what is half there is cut off now, or before the next write; a file whose write failed is not used again
      await this.#close();
      await this.#ready().catch(() => {});
      for (const { waiter } of all) waiter?.failed(error);
    }
    if (this.#pending.some(({ waiter }) => waiter)) this.#writeSoon();
    this.rewriteIfDue();
  }

  /** Have the file open: its name is on disk, and nothing stands behind its good end. */
  async #ready(): Promise<FileHandle> {
    if (this.#file) return this.#file;
    if (this.#length === 0) {
      const first = Buffer.concat(encodeLine(firstLine));
      await writeAtomic(this.#path, first, { mode: 0o600 });
      this.#length = first.length;
    }
    const file = await open(this.#path, appending);
    try {
      // the last newline is written anew: an editor may have left it out
      await file.truncate(this.#length - 1);
      await file.appendFile(newline);
      // nor may it have left it open to others
      await file.chmod(0o600);
      await file.sync();
      await fsyncFolder(dirname(this.#path));
      this.#file = file;
      return file;
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
    const used = [...this.#options.inUse().keys()].reduce((sum, { length }) => sum + length, 0);
    if (!this.#isDamaged && this.#length - used <= Math.max(this.#minSettled, used)) return;
    this.#rewriting = this.#rewrite(this.#file)
      .catch((error: unknown) =>
        this.#options.warn(`${this.#path} is not rewritten now: ${messageOf(error)}`),
      )
      .finally(() => {
        this.#rewriting = undefined;
      });
  }

  async #rewrite(from: FileHandle): Promise<void> {
    // all in one tick: a line that comes later stands behind `copied`, and is copied as it is
    let copied = this.#length;
    const places = [...this.#options.inUse().keys()].sort((a, b) => a.at - b.at);
    const summary = [firstLine, ...this.#options.summary()];
    const next = await Successor.open(`${this.#path}.new`, from);
    let former: FileHandle | undefined;
    const catchUp = async () => {
      const end = this.#length;
      await next.copy(copied, end);
      copied = end;
    };
    try {
      await next.add(summary);
      const moved = new Map<Place, number>();
      for (const place of places) {
        moved.set(place, next.length);
        await next.copy(place.at, place.at + place.length + 1);
      }
      const shift = next.length - copied;
      // each pass is shorter than the one before: little is left for the last step, for which writes wait
      for (let pass = 0; pass < 5 && this.#length - copied > pieceSize; pass++) await catchUp();
      await next.sync();
      await this.#inTurn(async () => {
        await catchUp();
        const file = await next.replace(this.#path, appending);
        // in one tick: a reader has the old file and places, or the new ones
        former = this.#file;
        this.#file = file;
        this.#length = next.length;
        for (const place of this.#options.inUse().keys())
          place.at = moved.get(place) ?? place.at + shift;
        this.#isDamaged = false;
        this.#nextLook = next.length + this.#minSettled / 4;
        // nothing is answered before the new name is on disk: if not now, then when it is opened for the next write
        await fsyncFolder(dirname(this.#path)).catch(() => this.#close());
      });
    } finally {
      // what the kernel frees then may be large: no write waits for it
      await former?.close().catch(() => {});
      await next.close();
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

function sizeOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}
