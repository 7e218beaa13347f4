import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  fdatasync,
  futimesSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { type FileHandle, open } from "node:fs/promises";
import { bootId } from "./boot.ts";

/**
 * The file that a body grows into, hashed as it grows. A small body stays in memory until it is whole;
 * a large one lies on the disk, with a note beside it by which a later run can go on where this one ended.
 */

/** By what a server's content is known to be the same later on. */
export interface Validator {
  /** A strong ETag, or a Last-Modified date: what If-Range takes (RFC 9110, 13.1.5). */
  ifRange: string;
  /** The whole size in bytes, when the server gave it. */
  total?: number;
}

interface Note extends Validator {
  /** The URL's hash: the URL itself may hold a login. */
  url: string;
  boot: string;
}

/** Bodies up to this size are held in memory. */
export const smallBody = 1024 * 1024;

export class PartialFile {
  readonly #path: string;
  #hash: Hash = createHash("sha256");
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #file: FileHandle | undefined;
  #writing: Promise<unknown> = Promise.resolve();
  #note: Note | undefined;
  /** Bytes taken so far. */
  size = 0;

  constructor(path: string) {
    this.#path = path;
  }

  /** By what this content can be continued; undefined: not at all. */
  get validator(): Validator | undefined {
    return this.#note;
  }

  get #notePath(): string {
    return `${this.#path}.json`;
  }

  /** Take over what an earlier run of the same URL left. What cannot be trusted is removed. */
  async load(url: string): Promise<void> {
    if (lstatSync(this.#notePath, { throwIfNoEntry: false }) === undefined) return;
    let note: Note;
    try {
      note = JSON.parse(readFileSync(this.#notePath, "utf8")) as Note;
      // after a crash of the machine the end of the file may hold zeros: only bytes of this boot count
      if (note.url !== hashOf(url) || note.boot !== bootId() || typeof note.ifRange !== "string")
        throw new Error();
      this.#file = await open(this.#path, "r+");
    } catch {
      this.#remove();
      return;
    }
    const buffer = Buffer.allocUnsafe(smallBody);
    for (;;) {
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, this.size);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.size += bytesRead;
    }
    this.#note = note;
  }

  /** Begin from nothing; with a validator the content can be continued later. */
  async restart(url: string, validator: Validator | undefined): Promise<void> {
    await this.#settle();
    this.#hash = createHash("sha256");
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.size = 0;
    this.#note = validator && { url: hashOf(url), boot: bootId(), ...validator };
    if (!this.#file) return;
    rmSync(this.#notePath, { force: true });
    await this.#file.truncate(0);
    if (this.#note) writeFileSync(this.#notePath, JSON.stringify(this.#note));
  }

  /** Add a piece of the body. Gives a promise when the disk has to be waited for. */
  add(chunk: Uint8Array): Promise<void> | undefined {
    this.#hash.update(chunk);
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    this.size += chunk.length;
    return this.#waitingBytes > smallBody ? this.#spill() : undefined;
  }

  async #spill(): Promise<void> {
    if (!this.#file) {
      this.#file = await open(this.#path, "w");
      if (this.#note) writeFileSync(this.#notePath, JSON.stringify(this.#note));
    }
    await this.#writing;
    const pieces = this.#waiting;
    const position = this.size - this.#waitingBytes;
    this.#waiting = [];
    this.#waitingBytes = 0;
    if (pieces.length === 0) return;
    this.#writing = writeAll(this.#file, pieces, position);
    // its failure is thrown where it is awaited
    this.#writing.catch(() => {});
  }

  /**
   * Everything is there: on the disk, with the server's time.
   * @param flush false: a crash of the machine soon after may lose it.
   * @returns the sha256 in hex.
   */
  async finish(modified: number | undefined, flush: boolean): Promise<string> {
    const time = modified === undefined ? undefined : modified / 1000;
    if (this.#file) {
      await this.#spill();
      await this.#writing;
      if (time !== undefined) await this.#file.utimes(time, time);
      if (flush) await this.#file.datasync();
      await this.#file.close();
      this.#file = undefined;
      rmSync(this.#notePath, { force: true });
    } else {
      // for a small file the plain calls take less time than the way to a thread and back
      const fd = openSync(this.#path, "w");
      try {
        const body = this.#waiting.length === 1 ? this.#waiting[0] : Buffer.concat(this.#waiting);
        writeWhole(fd, body ?? new Uint8Array());
        if (time !== undefined) futimesSync(fd, time, time);
        if (flush) await promisify(fdatasync)(fd);
      } finally {
        closeSync(fd);
      }
    }
    this.#waiting = [];
    return this.#hash.digest("hex");
  }

  /** Leave what is there for a later run when it can be continued, else remove it. */
  async leave(): Promise<void> {
    try {
      if (this.#file && this.#note) await this.#spill();
      await this.#settle(true);
    } catch {
      this.#note = undefined;
    }
    await this.#file?.close().catch(() => {});
    const continued = this.#file !== undefined && this.#note !== undefined && this.size > 0;
    this.#file = undefined;
    if (!continued) this.#remove();
  }

  /** Remove it from the disk. */
  async discard(): Promise<void> {
    this.#note = undefined;
    await this.leave();
  }

  async #settle(strict = false): Promise<void> {
    await this.#writing.catch((error: unknown) => {
      if (strict) throw error;
    });
    this.#writing = Promise.resolve();
  }

  #remove(): void {
    rmSync(this.#path, { force: true });
    rmSync(this.#notePath, { force: true });
  }
}

async function writeAll(file: FileHandle, pieces: Uint8Array[], position: number): Promise<void> {
  const size = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const { bytesWritten } = await file.writev(pieces, position);
  if (bytesWritten === size) return;
  // a disk that fills up takes a part first, and says why at the next call
  const rest = Buffer.concat(pieces).subarray(bytesWritten);
  for (let done = 0; done < rest.length; ) {
    const step = await file.write(rest, done, rest.length - done, position + bytesWritten + done);
    done += step.bytesWritten;
  }
}

function writeWhole(fd: number, data: Uint8Array): void {
  for (let done = 0; done < data.length; ) done += writeSync(fd, data, done, data.length - done);
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
