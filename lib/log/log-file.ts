import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { Failure } from "../core/errors.ts";

/**
 * A file that several processes append to and that may be renamed at any time (lib/log/rotate.ts).
 * Before each write, and after each opening, the name is checked: nobody ever starts to write to a part
 * that was rotated, and a part that is open nowhere is final.
 */
export class LogFile {
  readonly path: string;
  #mode: number;
  #fd: number | undefined;
  #inode = 0;
  #device = 0;

  /** @param mode permissions of a new file, less the umask; later ones take those of the one before. */
  constructor(path: string, mode: number) {
    this.path = path;
    this.#mode = mode;
  }

  /**
   * Write whole lines, starting on a line of their own where another writer was killed within its write.
   * @returns the file's size, or the error and the lines that are not in the file.
   */
  append(text: string): { rest: string; size: number; error?: unknown } {
    if (text === "") return { rest: "", size: 0 };
    let data = Buffer.from(text);
    let size = 0;
    let written = 0;
    try {
      const fd = this.open();
      size = fstatSync(fd).size;
      if (isTorn(fd)) data = Buffer.from(`\n${text}`);
      while (written < data.length) written += writeSync(fd, data, written, data.length - written);
      return { rest: "", size: size + written };
    } catch (error) {
      written ||= this.#fd === undefined ? 0 : writtenSilently(this.#fd, size, data);
      // a line that was written in part will stand in the log once torn and once whole
      const whole = written === 0 ? 0 : data.lastIndexOf(newline, written - 1) + 1;
      return { rest: whole === 0 ? text : data.toString("utf8", whole), size, error };
    }
  }

  /** The open descriptor of the file that the name leads to. */
  open(): number {
    while (this.#fd === undefined || !this.isCurrent()) {
      this.release();
      const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
      // a link could lead the log anywhere, and a pipe would wait for a reader
      const flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
      const fd = openSync(this.path, flags, this.#mode);
      const opened = fstatSync(fd);
      if (!opened.isFile()) {
        closeSync(fd);
        throw new Failure(`${this.path} is not a plain file`);
      }
      this.#fd = fd;
      this.#inode = opened.ino;
      this.#device = opened.dev;
      this.#mode = opened.mode & 0o777;
    }
    return this.#fd;
  }

  private isCurrent(): boolean {
    const current = statSync(this.path, { throwIfNoEntry: false });
    return current?.ino === this.#inode && current.dev === this.#device;
  }

  /** Close a file that was renamed, so that it can be compressed. The next append opens the new one. */
  closeIfRenamed(): void {
    if (this.#fd !== undefined && !this.isCurrent()) this.release();
  }

  private release(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Wait until all is on the disk, and close. */
  async close(): Promise<void> {
    if (this.#fd !== undefined) await promisify(fdatasync)(this.#fd).catch(() => {});
    this.release();
  }
}

const newline = 10;

/** Whether the file ends within a line, and not because another writer is at it this very moment. */
function isTorn(fd: number): boolean {
  const last = Buffer.alloc(1);
  for (let before = -1; ; ) {
    const { size } = fstatSync(fd);
    if (size === 0 || readSync(fd, last, 0, 1, size - 1) === 0 || last[0] === newline) return false;
    if (size === before) return true;
    before = size;
    Atomics.wait(pause, 0, 0, 1);
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * How much of `data` is in the file although the call failed: Deno makes several write(2) of one call,
 * and tells of the last one only.
 */
function writtenSilently(fd: number, from: number, data: Buffer): number {
  try {
    const found = Buffer.alloc(data.length);
    const count = readSync(fd, found, 0, data.length, from);
    return found.subarray(0, count).equals(data.subarray(0, count)) ? count : 0;
  } catch {
    return 0;
  }
}
