import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as immediate } from "node:timers/promises";
import { Failure, messageOf } from "../core/errors.ts";
import { fsyncFolder, writeAtomic } from "../files/files.ts";
import { decodeLine, encodeHead, encodeLine, firstLine, type Place, readLines } from "./lines.ts";

/** A line on its way to the disk, and who waits for it. */
interface Pending {
  readonly parts: readonly Buffer[];
  readonly size: number;
  readonly stored: (place: Place) => void;
  readonly failed: (error: unknown) => void;
}

/** What a rewritten file has: lines that are made, then those that are moved, since their payload is asked for later. */
interface Rewritten {
  readonly heads: Iterable<object>;
  readonly places: Iterable<Place>;
}

interface Options {
  /** Whether there was no file yet, so that none is missing. */
  readonly isNew: boolean;
  readonly warn: (text: string) => void;
  readonly kept: () => Rewritten;
  /** Bytes that must be settled before the file is rewritten. */
  readonly minSettled?: number | undefined;
}

/** A write takes no further line when it has so many bytes: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;
/** Characters of a rewritten file that are made at once. */
const pieceLength = 256 * 1024;
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
  /** Lines that nobody waits for. */
  #notes = "";
  #noteTimer: NodeJS.Timeout | undefined;
  #isWriting = false;
  #isDamaged = false;
  /** The length at which the next look shows whether to rewrite. */
  #nextLook = 0;

  private constructor(path: string, options: Options) {
    this.#path = path;
    this.#options = options;
    this.#minSettled = options.minSettled ?? 64 * 1024 * 1024;
  }

  /** Read a file's lines (see `readLines`). The first write opens it, or makes it. @throws {Failure} */
  static async open(path: string, options: Options) {
    const file = new LineFile(path, options);
    await rm(`${path}.new`, { recursive: true, force: true });
    const { lines, length, rewrite } = await readLines(path, options);
    file.#length = length;
    file.#isDamaged = rewrite === "repairs";
    if (rewrite === "loses") file.#nextLook = Number.POSITIVE_INFINITY;
    return { file, lines };
  }

  /** The payload of a line. @throws {Failure} when it is damaged; else what the file system threw. */
  async payload(place: Place): Promise<Buffer> {
    while (!this.#file) await this.flush();
    // file and place belong together: a rewrite replaces both in one tick
    const line = await bytesOf(this.#file, place);
    const payload = line && decodeLine(line.subarray(0, -1))?.payload;
    if (payload) return payload;
    throw new Failure(`${this.#path}: the line at byte ${place.at} is damaged; push again`);
  }

  /**
   * Resolves when a line is on disk, with what `stored` makes of its place; rejected when it could not be written:
   * nothing of it remains then. `stored` is called in the tick in which the line begins to count: a rewrite that starts
   * after it asks what is kept, and must be told of this one.
   */
  append<T>(head: object, payload: Buffer, stored: (place: Place) => T): Promise<T> {
    return this.put(encodeLine(head, payload), stored);
  }

  /** Wait until all that was noted so far is on disk; what is appended meanwhile is not waited for. */
  flush(): Promise<void> {
    return this.put([], () => {});
  }

  private put<T>(parts: Buffer[], stored: (place: Place) => T): Promise<T> {
    return new Promise((resolve, failed) => {
      const size = sum(parts);
      this.#pending.push({ parts, size, stored: (place) => resolve(stored(place)), failed });
      void this.writeAll();
    });
  }

  /** A line that nobody waits for: it goes to disk with the next write or soon, and is tried again when that fails. */
  note(head: object): void {
    this.#notes += encodeHead(head);
    this.writeNotesLater();
  }

  private writeNotesLater(): void {
    this.#noteTimer ??= setTimeout(() => {
      this.#noteTimer = undefined;
      if (this.#notes !== "") this.flush().catch(() => this.writeNotesLater());
    }, noteDelay).unref();
  }

  /** Write until nobody waits. A rewrite has its turn between two writes: under load there is always another one. */
  private async writeAll(): Promise<void> {
    if (this.#isWriting) return;
    this.#isWriting = true;
    while (this.#pending.length > 0) {
      // what comes at the same time shares the write
      await immediate();
      await this.write();
      await this.rewriteIfDue();
    }
    this.#isWriting = false;
  }

  private async write(): Promise<void> {
    const notes = this.#notes;
    let count = 0;
    for (let bytes = 0; count < this.#pending.length && bytes < maxBytesInWrite; count++)
      bytes += this.#pending[count]?.size ?? 0;
    const batch = this.#pending.splice(0, count);
    try {
      const file = await this.ready();
      const noted = Buffer.from(notes);
      const bytes = Buffer.concat([noted, ...batch.flatMap(({ parts }) => parts)]);
      // one write, unless the disk takes but a part: appendFile would wait for the disk every 512 KiB
      for (let done = 0; done < bytes.length; )
        done += (await file.write(bytes, done)).bytesWritten;
      this.#notes = this.#notes.slice(notes.length);
      let at = this.#length + noted.length;
      this.#length += bytes.length;
      for (const { size, stored } of batch) {
        stored({ at, length: size - 1 });
        at += size;
      }
    } catch (error) {
      // what is half there is cut off now, or before the next write; a file whose write failed is not used again
      await this.closeFile();
      await this.ready().catch(() => {});
      for (const { failed } of batch) failed(error);
    }
  }

  /** Have the file open: its name is on disk, and nothing stands behind its good end. */
  private async ready(): Promise<FileHandle> {
    if (this.#file) return this.#file;
    if (this.#length === 0) {
      // what follows brings it to the disk
      await writeAtomic(this.#path, firstLine, { mode: 0o600, durable: false });
      this.#length = firstLine.length;
    }
    const file = await open(this.#path, appending);
    try {
      // the last newline is written anew: an editor may have left it out
      await file.truncate(this.#length - 1);
      await file.appendFile("\n");
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
  private async closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => {});
  }

  /** Rewrite the file when most of it is settled, or part of it is damaged. */
  private async rewriteIfDue(): Promise<void> {
    if (!this.#file || this.#length < this.#nextLook) return;
    this.#nextLook = this.#length + this.#minSettled / 4;
    const kept = this.#options.kept();
    const used = sum([...kept.places]);
    if (!this.#isDamaged && this.#length - used <= Math.max(this.#minSettled, used)) return;
    const problem = await this.rewrite(this.#file, kept).catch(messageOf);
    if (problem) this.#options.warn(`${this.#path} is not rewritten now: ${problem}`);
  }

  /** Write what is kept of the file beside it, and take its place. Nothing is appended meanwhile. */
  private async rewrite(from: FileHandle, { heads, places }: Rewritten): Promise<void> {
    const path = `${this.#path}.new`;
    const to = await open(path, "ax", 0o600);
    try {
      let text = firstLine;
      for (const head of heads) {
        text += encodeHead(head);
        // in pieces: the server does other work in between
        if (text.length > pieceLength) {
          await to.appendFile(text);
          text = "";
        }
      }
      await to.appendFile(text);
      let { size: at } = await to.stat();
      for (const place of places) {
        const line = await bytesOf(from, place);
        if (!line) throw new Error(`it ends within the line at byte ${place.at}`);
        await to.appendFile(line);
      }
      await to.sync();
      await rename(path, this.#path);
      // in one tick: a reader has the old file and places, or the new ones
      this.#file = undefined;
      for (const place of places) {
        place.at = at;
        at += place.length + 1;
      }
      this.#length = at;
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await to.close();
    }
    this.#isDamaged = false;
    this.#nextLook = this.#length + this.#minSettled / 4;
    await from.close().catch(() => {});
    // nothing is answered before the new name is on disk: if not now, then when it is opened for the next write
    await this.ready().catch(() => {});
  }

  /** Bring what was noted to the disk, and close the file. */
  async close(): Promise<void> {
    clearTimeout(this.#noteTimer);
    this.#nextLook = Number.POSITIVE_INFINITY;
    await this.flush().catch(() => {});
    await this.closeFile();
  }
}

/** A line with its newline; undefined when the file has become shorter. */
async function bytesOf(file: FileHandle, { at, length }: Place): Promise<Buffer | undefined> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length + 1), 0, length + 1, at);
  return bytesRead > length ? buffer : undefined;
}

function sum(lengths: readonly { length: number }[]): number {
  return lengths.reduce((all, { length }) => all + length, 0);
}
