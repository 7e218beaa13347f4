import { constants } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { setImmediate as immediate } from "node:timers/promises";
import { Failure, messageOf } from "../../core/errors.ts";
import { fsyncFolder, writeAtomic } from "../../files/files.ts";
import { decodeLine, encodeHead, encodeLine, firstLine, type Place, readLines } from "./lines.ts";

/** The lines that one write takes. */
interface Batch {
  readonly parts: Buffer[];
  size: number;
  /** Where its first line stands, once it is on disk. */
  readonly written: Promise<number>;
}

/** What a rewritten file has: lines that are made, then those that are moved, as their payload is asked for later. */
interface Kept {
  readonly heads: Iterable<object>;
  readonly places: readonly Place[];
}

interface Options {
  /** Whether there was no file yet, so that none is missing. */
  readonly isNew: boolean;
  readonly warn: (text: string) => void;
  readonly kept: () => Kept;
  /** Bytes that must be settled before the file is rewritten: 128 MB by default. */
  readonly minSettled?: number | undefined;
}

/** A write takes no further line when it has so many bytes: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;
/** Characters of a rewritten file that are made at once: the server does other work in between. */
const pieceLength = 256 * 1024;
/** Milliseconds that notes wait for a write that takes them along. */
const noteDelay = 1000;
/** What is written is on disk when its write ends. */
const appending = constants.O_RDWR | constants.O_APPEND | constants.O_DSYNC;

/**
 * An append-only file of lines (lib/hook/store/lines.ts). What arrives during one write shares the next one, and
 * `append` resolves when it is on disk. When most of it is settled it is rewritten beside and renamed, between two
 * writes.
 */
export class LineFile {
  readonly #path: string;
  readonly #options: Options;
  #file: FileHandle | undefined;
  /** Up to where the file is good; 0: there is none. */
  #length = 0;
  /** What still gathers lines. */
  #next: Batch | undefined;
  /** When the last write that was asked for has ended, well or not. */
  #last: Promise<unknown> = Promise.resolve();
  /** Lines that nobody waits for. */
  #notes = "";
  readonly #noteTimer: NodeJS.Timeout;
  #isDamaged = false;
  /** The length at which the next look shows whether to rewrite. */
  #nextLook = 0;

  private constructor(path: string, options: Options) {
    this.#path = path;
    this.#options = options;
    const writeNotes = () => this.#notes !== "" && void this.flush().catch(() => {});
    this.#noteTimer = setInterval(writeNotes, noteDelay).unref();
  }

  /** Read a file's lines (see `readLines`). The first write opens it, or makes it. @throws {Failure} */
  static async open(path: string, options: Options) {
    await rm(`${path}.new`, { recursive: true, force: true });
    const { lines, length, rewrite } = await readLines(path, options);
    const file = new LineFile(path, options);
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
    const payload = decodeLine(line.subarray(0, -1))?.payload;
    if (payload) return payload;
    throw new Failure(`${this.#path}: the line at byte ${place.at} is damaged; push again`);
  }

  /**
   * Resolves when a line is on disk, with what `stored` makes of its place; rejected when it could not be written:
   * nothing of it remains then. `stored` is called before anything else can happen: a rewrite asks what is kept, and
   * must be told of this line.
   */
  append<T>(head: object, payload: Buffer, stored: (place: Place) => T): Promise<T> {
    const batch = this.nextBatch();
    const before = batch.size;
    const parts = encodeLine(head, payload);
    const size = sum(parts);
    batch.parts.push(...parts);
    batch.size += size;
    return batch.written.then((at) => stored({ at: at + before, length: size - 1 }));
  }

  /** A line that nobody waits for: it goes to disk with the next write or soon, and is tried again when that fails. */
  note(head: object): void {
    this.#notes += encodeHead(head);
  }

  /** Wait until all that was noted so far is on disk. @throws what the file system threw. */
  async flush(): Promise<void> {
    await this.nextBatch().written;
  }

  private nextBatch(): Batch {
    if (this.#next && this.#next.size < maxBytesInWrite) return this.#next;
    const written = this.#last.then(() => this.write(batch));
    const batch: Batch = { parts: [], size: 0, written };
    this.#last = written.catch(() => {});
    this.#next = batch;
    return batch;
  }

  private async write(batch: Batch): Promise<number> {
    // what comes at the same time shares the write
    await immediate();
    if (this.#next === batch) this.#next = undefined;
    try {
      // under load there is always another write: a rewrite has its turn between two
      await this.rewriteIfDue(await this.ready());
      const file = await this.ready();
      const notes = this.#notes;
      const noted = Buffer.from(notes);
      const bytes = Buffer.concat([noted, ...batch.parts]);
      // one write, unless the disk takes but a part: appendFile would wait for the disk every 512 KiB
      for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten;
      this.#notes = this.#notes.slice(notes.length);
      const at = this.#length + noted.length;
      this.#length += bytes.length;
      return at;
    } catch (error) {
      // what is half there is cut off now, or before the next write; a file whose write failed is not used again
      await this.closeFile();
      await this.ready().catch(() => {});
      throw error;
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
    } catch (error) {
      await file.close();
      throw error;
    }
    this.#file = file;
    return file;
  }

  /** Whatever closing may complain of: what counts was on disk when its write ended. */
  private async closeFile(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => {});
  }

  /** Rewrite the file when most of it is settled, or part of it is damaged. */
  private async rewriteIfDue(file: FileHandle): Promise<void> {
    if (this.#length < this.#nextLook) return;
    const { warn, minSettled = 128 * 1024 * 1024 } = this.#options;
    const kept = this.#options.kept();
    const used = sum(kept.places);
    if (this.#isDamaged || this.#length - used > Math.max(minSettled, used))
      await this.rewrite(file, kept).catch((error: unknown) =>
        warn(`${this.#path} is not rewritten now: ${messageOf(error)}`),
      );
    this.#nextLook = this.#length + minSettled / 4;
  }

  /** Write what is kept of the file beside it, and take its place. */
  private async rewrite(from: FileHandle, { heads, places }: Kept): Promise<void> {
    const path = `${this.#path}.new`;
    const to = await open(path, "ax", 0o600);
    try {
      let text = firstLine;
      for (const head of heads) {
        text += encodeHead(head);
        if (text.length < pieceLength) continue;
        await to.appendFile(text);
        text = "";
      }
      await to.appendFile(text);
      let { size: at } = await to.stat();
      for (const place of places) {
        const line = await bytesOf(from, place);
        if (line.length <= place.length) throw new Error(`it ends within the line at byte ${place.at}`);
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
      this.#isDamaged = false;
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    } finally {
      await to.close();
    }
    await from.close().catch(() => {});
  }

  /** Bring what was noted to the disk, and close the file. */
  async close(): Promise<void> {
    clearInterval(this.#noteTimer);
    this.#nextLook = Number.POSITIVE_INFINITY;
    await this.flush().catch(() => {});
    await this.closeFile();
  }
}

/** A line with its newline; less when the file has become shorter. */
async function bytesOf(file: FileHandle, { at, length }: Place): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length + 1), 0, length + 1, at);
  return buffer.subarray(0, bytesRead);
}

function sum(lengths: readonly { length: number }[]): number {
  return lengths.reduce((all, { length }) => all + length, 0);
}
