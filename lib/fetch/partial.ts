import { createHash, type Hash } from "node:crypto";
import {
  closeSync,
  createReadStream,
  existsSync,
  fdatasync,
  ftruncateSync,
  futimesSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { bootId } from "../core/id.ts";

/**
 * The file that a body grows into, hashed as it grows. Beside a large one lies a note, by which a later run can
 * continue where this one was stopped.
 */

/** By what a server's content is known to be the same later on. */
export interface Validator {
  /** A strong ETag, or a Last-Modified date: what If-Range takes (RFC 9110, 13.1.5). */
  ifRange: string;
  /** The whole size in bytes, when the server gave it. */
  total?: number;
}

/** `url`: its hash, as the URL itself may hold a login. */
type Note = Validator & { url: string; boot: string };

/** What is smaller is not worth a note: it is fetched anew. */
const minNoted = 1024 * 1024;

export class PartialFile {
  readonly #path: string;
  readonly #notePath: string;
  readonly #url: string;
  #fd: number | undefined;
  #hash: Hash = createHash("sha256");
  #isNoted = false;
  /** By what this content can be continued; undefined: not at all. */
  validator: Validator | undefined;
  /** Bytes it has so far. */
  size = 0;

  constructor(path: string, url: string) {
    this.#path = path;
    this.#notePath = `${path}.json`;
    this.#url = createHash("sha256").update(url).digest("hex");
  }

  /** Take over what an earlier run of the same URL left. What cannot be trusted is removed. */
  async load(): Promise<void> {
    if (!existsSync(this.#notePath)) return;
    let note: Note;
    try {
      note = JSON.parse(readFileSync(this.#notePath, "utf8")) as Note;
      // after a crash of the machine the end of the file may hold zeros: only bytes of this boot count
      if (note.url !== this.#url || note.boot !== bootId() || typeof note.ifRange !== "string")
        throw new Error("of something else");
      this.#fd = openSync(this.#path, "r+");
    } catch {
      return this.remove();
    }
    const { ifRange, total } = note;
    this.validator = total === undefined ? { ifRange } : { ifRange, total };
    this.#isNoted = true;
    const content = createReadStream("", { fd: this.#fd, start: 0, autoClose: false });
    for await (const piece of content as AsyncIterable<Buffer>) this.count(piece);
  }

  /** Start from nothing; with a validator the content can be continued later. */
  restart(validator?: Validator): void {
    if (this.#isNoted) rmSync(this.#notePath, { force: true });
    if (this.#fd !== undefined) ftruncateSync(this.#fd, 0);
    this.#isNoted = false;
    this.validator = validator;
    this.#hash = createHash("sha256");
    this.size = 0;
  }

  /** Add a piece of the body. */
  add(piece: Uint8Array): void {
    const fd = this.open();
    // a disk that fills up takes a part first, and says why at the next call
    for (let done = 0; done < piece.length; ) done += writeSync(fd, piece, done, piece.length - done, this.size + done);
    this.count(piece);
    if (this.validator === undefined || this.#isNoted || this.size < minNoted) return;
    const note: Note = { url: this.#url, boot: bootId(), ...this.validator };
    rmSync(this.#notePath, { force: true });
    writeFileSync(this.#notePath, JSON.stringify(note), { flag: "wx" });
    this.#isNoted = true;
  }

  private open(): number {
    if (this.#fd !== undefined) return this.#fd;
    // not over what is there: a stranger's repository can have a link in this place
    rmSync(this.#path, { force: true });
    return (this.#fd = openSync(this.#path, "wx+"));
  }

  private count(piece: Uint8Array): void {
    this.#hash.update(piece);
    this.size += piece.length;
  }

  /**
   * Everything is there: on the disk, with the server's time.
   * @param flush false: a crash of the machine soon after may lose it.
   * @returns the sha256 in hex.
   */
  async finish(modified: number | undefined, flush: boolean): Promise<string> {
    const fd = this.open();
    if (modified !== undefined) futimesSync(fd, modified / 1000, modified / 1000);
    if (flush) await promisify(fdatasync)(fd);
    if (this.#isNoted) rmSync(this.#notePath, { force: true });
    this.#isNoted = false;
    return this.#hash.digest("hex");
  }

  /** The descriptor of the finished file, which is the caller's from now on. */
  handOver(): number {
    const fd = this.open();
    this.#fd = undefined;
    return fd;
  }

  /** Leave what is there for a later run when it can be continued, else remove it. */
  leave(): void {
    this.close();
    if (!this.#isNoted || this.size === 0) this.remove();
  }

  /** Remove it from the disk. */
  discard(): void {
    this.close();
    this.remove();
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  private remove(): void {
    rmSync(this.#path, { force: true });
    rmSync(this.#notePath, { force: true });
  }
}
