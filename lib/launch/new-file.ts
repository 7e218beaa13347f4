import { closeSync, fchmodSync, fdatasync, openSync, writeSync } from "node:fs";

/** Bytes after which the disk is set to work on a large file, while the rest of it is still unpacked. */
const flushEvery = 64 * 1024 * 1024;

/** A file that is made and written in order, by plain calls: a promise for each would cost more than the writing. */
export class NewFile {
  /** Bytes so far. */
  written = 0;
  readonly #fd: number;
  #unflushed = 0;
  #flushing = false;
  #closed = false;

  /** @param mode the permissions it has in the end, whatever the umask is; its owner can write it until then. */
  constructor(path: string, mode: number, umask: number) {
    const atFirst = mode | 0o600;
    this.#fd = openSync(path, "wx", atFirst);
    if (mode !== (atFirst & ~umask)) fchmodSync(this.#fd, mode);
  }

  write(chunk: Uint8Array): void {
    let done = 0;
    while (done < chunk.length) done += writeSync(this.#fd, chunk, done);
    this.written += chunk.length;
    this.#unflushed += chunk.length;
    if (this.#unflushed < flushEvery || this.#flushing) return;
    this.#unflushed = 0;
    this.#flushing = true;
    // only ahead of time: whoever needs the bytes on the disk waits for them, and hears of errors, by himself
    fdatasync(this.#fd, () => {
      this.#flushing = false;
      if (this.#closed) closeSync(this.#fd);
    });
  }

  /** More than once is well. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    // a descriptor that a thread still works on must not be given to another file
    if (!this.#flushing) closeSync(this.#fd);
  }
}
