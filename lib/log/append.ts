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

/** An append that the disk took only in part, or not at all. */
export class AppendFailed extends Error {
  override name = "AppendFailed";
  readonly code: unknown;
  /** How many bytes are in the file. */
  readonly written: number;
  constructor(cause: Error & { code?: unknown }, written: number) {
    super(cause.message, { cause });
    this.code = cause.code;
    this.written = written;
  }
}

/** Milliseconds: how old the knowledge may be that the name still leads to our file. */
const lookEvery = 20;

/**
 * A file that several processes append to and that may be renamed at any time (lib/log/rotate.ts).
 * Each batch is one write(2) with O_APPEND, so batches never mix. It begins on a line of its own also
 * where another writer was killed within its write. After every opening the name is looked at again:
 * so nobody ever starts to write to a part that was rotated, and a part that is open nowhere is final.
 */
export class AppendFile {
  /** Bytes in the file after the last batch, as far as we know. */
  size = -1;
  readonly path: string;
  #mode: number;
  #fd: number | undefined;
  #inode = 0;
  #device = 0;
  #lookedAt = 0;

  /** @param mode permissions of a new file, less the umask; later ones take those of the one before. */
  constructor(path: string, mode: number) {
    this.path = path;
    this.#mode = mode;
  }

  /**
   * Write whole lines.
   * @throws {AppendFailed} when only a part of them, or nothing, could be written.
   */
  append(text: string): void {
    let data = Buffer.from(text);
    let torn = false;
    let done = 0;
    let size = 0;
    try {
      const fd = this.open();
      size = fstatSync(fd).size;
      // somebody else has written since: was it a whole line?
      torn = size > 0 && size !== this.size && isTorn(fd);
      if (torn) data = Buffer.from(`\n${text}`);
      this.size = -1;
      while (done < data.length) done += writeSync(fd, data, done, data.length - done);
      this.size = size + data.length;
    } catch (error) {
      // look at the name, and for a torn end, before the next try
      this.#lookedAt = 0;
      const written =
        done > 0 || this.#fd === undefined ? done : tookSilently(this.#fd, size, data);
      throw new AppendFailed(error as Error, Math.max(0, written - (torn ? 1 : 0)));
    }
  }

  /** The open descriptor; opened anew when the name leads to another file than ours. */
  open(): number {
    const now = Date.now();
    if (this.#fd !== undefined && now - this.#lookedAt < lookEvery && now >= this.#lookedAt) {
      return this.#fd;
    }
    this.#lookedAt = now;
    while (this.#fd === undefined || !this.#isCurrent()) {
      this.letGo();
      const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
      // a link could lead the log anywhere, and a pipe would wait for a reader
      const flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
      const fd = openSync(this.path, flags, this.#mode);
      const found = fstatSync(fd);
      if (!found.isFile()) {
        closeSync(fd);
        throw Object.assign(new Error(`${this.path} is no plain file`), { code: "EINVAL" });
      }
      this.#fd = fd;
      this.#inode = found.ino;
      this.#device = found.dev;
      this.#mode = found.mode & 0o777;
      this.size = -1;
    }
    return this.#fd;
  }

  #isCurrent(): boolean {
    const there = statSync(this.path, { throwIfNoEntry: false });
    return there !== undefined && there.ino === this.#inode && there.dev === this.#device;
  }

  /** Close a file that was renamed, so that it can be compressed. The next append opens the new one. */
  letGoWhenRenamed(): void {
    if (this.#fd !== undefined && !this.#isCurrent()) this.letGo();
  }

  letGo(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Wait until all is on the disk, and close. */
  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    await promisify(fdatasync)(fd).catch(() => {});
    closeSync(fd);
  }
}

/** Whether the file ends within a line, and not because another writer is at it this very moment. */
function isTorn(fd: number): boolean {
  const last = Buffer.alloc(1);
  let before = -1;
  for (let look = 0; look < 20; look += 1) {
    const { size } = fstatSync(fd);
    if (size === 0 || readSync(fd, last, 0, 1, size - 1) !== 1 || last[0] === 10) return false;
    if (size === before) return true;
    before = size;
    Atomics.wait(pause, 0, 0, 1);
  }
  return true;
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * How much of `data` is in the file although the call failed: a runtime may turn one call into several
 * write(2), and tell of the last one only.
 */
function tookSilently(fd: number, from: number, data: Buffer): number {
  try {
    const there = Buffer.alloc(Math.max(0, Math.min(data.length, fstatSync(fd).size - from)));
    const count = readSync(fd, there, 0, there.length, from);
    return there.subarray(0, count).equals(data.subarray(0, count)) ? count : 0;
  } catch {
    return 0;
  }
}
