import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as immediate } from "node:timers/promises";
import { Failure, messageOf } from "../core/errors.ts";
import { fsyncFolder, writeAtomic } from "../files/files.ts";
import { decodeLine, encodeLine } from "./lines.ts";
import { firstLine, newline, type Place, readLines } from "./read-lines.ts";

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
 * beside and renamed, between two writes.
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
  /** Writes and rewrites go one after the other; under load there is always another write. */
  #lastTurn: Promise<unknown> = Promise.resolve();
  #isWriteAhead = false;
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
      this.#pending.push({ parts, size: sum(parts), waiter });
      this.#writeSoon();
    });
  }

  /** A line that nobody waits for: it goes to disk with the next write or soon, and is tried again when that fails. */
  note(head: object): void {
    const parts = encodeLine(head);
    this.#pending.push({ parts, size: sum(parts) });
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
    if (this.#closing || !this.#file || this.#length < this.#nextLook) return;
    this.#nextLook = this.#length + this.#minSettled / 4;
    const used = sum([...this.#options.inUse().keys()]);
    if (!this.#isDamaged && this.#length - used <= Math.max(this.#minSettled, used)) return;
    this.#inTurn(() => this.#rewrite()).catch((error: unknown) =>
      this.#options.warn(`${this.#path} is not rewritten now: ${messageOf(error)}`),
    );
  }

  /** Write what is needed of the file beside it, and take its place. Nothing is appended meanwhile. */
  async #rewrite(): Promise<void> {
    const from = await this.#ready();
    // in one tick: each run is in one of both
    const heads = [firstLine, ...this.#options.summary()];
    const places = [...this.#options.inUse().keys()].sort((a, b) => a.at - b.at);
    const path = `${this.#path}.new`;
    const to = await open(path, "ax", 0o600);
    const moved = new Map<Place, number>();
    let length = 0;
    const put = async (bytes: Buffer) => {
      await to.appendFile(bytes);
      length += bytes.length;
    };
    try {
      // in pieces: the server does other work in between
      for (let n = 0; n < heads.length; n += 500)
        await put(Buffer.concat(heads.slice(n, n + 500).flatMap((head) => encodeLine(head))));
      for (const place of places) {
        const size = place.length + 1;
        const { buffer, bytesRead } = await from.read(Buffer.alloc(size), 0, size, place.at);
        if (bytesRead < size) throw new Error(`it ends before byte ${place.at + size}`);
        moved.set(place, length);
        await put(buffer);
      }
      await to.sync();
      await rename(path, this.#path);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await to.close();
    }
    // in one tick: a reader has the old file and places, or the new ones
    for (const [place, at] of moved) place.at = at;
    this.#length = length;
    this.#isDamaged = false;
    this.#nextLook = length + this.#minSettled / 4;
    await this.#close();
    // nothing is answered before the new name is on disk: if not now, then when it is opened for the next write
    await this.#ready().catch(() => {});
  }

  /** Bring what was noted to the disk, and close the file. */
  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#noteTimer);
    await this.flush().catch(() => {});
    await this.#close();
  }
}

function sum(lengths: readonly { length: number }[]): number {
  return lengths.reduce((all, { length }) => all + length, 0);
}
