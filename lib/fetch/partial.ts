import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  fdatasync,
  ftruncateSync,
  futimesSync,
  lstatSync,
  openSync,
  read,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { bootId } from "../core/id.ts";

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

/** A file that is whole, still open. Whoever has it closes it. */
export interface OpenFile {
  fd: number;
  /** Of all its bytes; `copy` it. */
  hash: Hash;
}

/** Bodies up to this size are held in memory. */
export const smallBody = 1024 * 1024;

/**
 * Bytes of one write. Plain writes of this size, made while the bytes are still in the processor's cache, take
 * half the time of large ones on a thread of their own, whose pages Linux has to bring together first.
 */
const writtenAtOnce = 64 * 1024;

export class PartialFile {
  readonly #path: string;
  /** The hash of what came so far, made with the first piece: hashed while the processor has it at hand. */
  #hash: Hash | undefined;
  /** The pieces of a body that is not on the disk yet. */
  #waiting: Uint8Array[] = [];
  /** The file, once the body is too large to wait in memory. */
  #fd: number | undefined;
  /** By what this content of this URL can be continued. */
  #continued: { url: string; validator: Validator } | undefined;
  /** Bytes taken so far. */
  size = 0;

  constructor(path: string) {
    this.#path = path;
  }

  /** By what this content can be continued; undefined: not at all. */
  get validator(): Validator | undefined {
    return this.#continued?.validator;
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
      this.#fd = openSync(this.#path, "r+");
    } catch {
      this.#remove();
      return;
    }
    const buffer = Buffer.allocUnsafe(smallBody);
    this.#hash = createHash("sha256");
    for (;;) {
      const { bytesRead } = await readPiece(this.#fd, buffer, 0, buffer.length, this.size);
      if (bytesRead === 0) break;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.size += bytesRead;
    }
    const { ifRange, total } = note;
    this.#continued = { url, validator: { ifRange, ...(total === undefined ? {} : { total }) } };
  }

  /** Begin from nothing; with a validator the content can be continued later. */
  restart(url: string, validator: Validator | undefined): void {
    this.#waiting = [];
    this.#hash = undefined;
    this.size = 0;
    this.#continued = validator && { url, validator };
    if (this.#fd === undefined) return;
    rmSync(this.#notePath, { force: true });
    ftruncateSync(this.#fd, 0);
    this.#writeNote();
  }

  /**
   * Add a piece of the body.
   * @param reused the piece's memory will hold something else afterwards.
   */
  add(piece: Uint8Array, reused = false): void {
    if (this.#fd === undefined) this.#waiting.push(reused ? Uint8Array.from(piece) : piece);
    else writeAll(this.#fd, piece, this.size);
    this.#hash ??= createHash("sha256");
    this.#hash.update(piece);
    this.size += piece.length;
    if (this.#fd !== undefined || this.size <= smallBody) return;
    this.#open();
    this.#writeNote();
  }

  /** From memory to the disk. */
  #open(): number {
    const fd = (this.#fd = openSync(this.#path, "w+"));
    let position = 0;
    for (const piece of this.#waiting) {
      writeAll(fd, piece, position);
      position += piece.length;
    }
    this.#waiting = [];
    return fd;
  }

  #writeNote(): void {
    if (!this.#continued) return;
    const { url, validator } = this.#continued;
    const note: Note = { url: hashOf(url), boot: bootId(), ...validator };
    writeFileSync(this.#notePath, JSON.stringify(note));
  }

  /**
   * Everything is there: on the disk, with the server's time.
   * @param flush false: a crash of the machine soon after may lose it.
   * @param keepOpen `handOver` is called next.
   * @returns the sha256 in hex.
   */
  async finish(modified: number | undefined, flush: boolean, keepOpen = false): Promise<string> {
    const isLarge = this.#fd !== undefined;
    const fd = this.#fd ?? this.#open();
    const hash = (this.#hash ??= createHash("sha256"));
    if (modified !== undefined) futimesSync(fd, modified / 1000, modified / 1000);
    if (flush) await promisify(fdatasync)(fd);
    if (!keepOpen) this.#close();
    this.#continued = undefined;
    if (isLarge) rmSync(this.#notePath, { force: true });
    return (keepOpen ? hash.copy() : hash).digest("hex");
  }

  /** The finished file, which is the caller's from now on. */
  handOver(): OpenFile {
    if (this.#fd === undefined || !this.#hash) throw new Error("the file is not open");
    const open = { fd: this.#fd, hash: this.#hash };
    this.#fd = undefined;
    return open;
  }

  /** Leave what is there for a later run when it can be continued, else remove it. */
  leave(): void {
    const continued = this.#fd !== undefined && this.#continued !== undefined && this.size > 0;
    this.#close();
    if (!continued) this.#remove();
  }

  /** Remove it from the disk. */
  discard(): void {
    this.#close();
    this.#remove();
  }

  #close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #remove(): void {
    rmSync(this.#path, { force: true });
    rmSync(this.#notePath, { force: true });
  }
}

const readPiece = promisify(read);

/** A disk that fills up takes a part first, and says why at the next call. */
function writeAll(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, writtenAtOnce);
    done += writeSync(fd, bytes, done, length, position + done);
  }
}

function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
