import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
} from "node:fs";
import { open, rename, unlink } from "node:fs/promises";
import { join } from "node:path";
import { exists, fsyncFolder } from "../files/files.ts";
import { spareLine } from "./segment.ts";

/** Files that wait to be used again; a flood of deliveries needs one after the other. */
const mostSpares = 8;

/**
 * The journal's files: `00000001.journal` and so on. One that is not needed any more becomes `00000001.spare` and
 * then a new segment, as PostgreSQL recycles its log: to write over what is there takes a third of the time that a
 * file takes which grows, for then neither its inode nor a file system's own journal has to go to disk as well.
 */
export class SegmentFiles {
  readonly #folder: string;
  readonly #spares: string[];
  readonly numbers: readonly number[];

  /** Those of a folder, which is made when it is not there. At once: a start has nothing else to do meanwhile. */
  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const names = readdirSync(folder);
    this.#spares = names.filter((name) => /^\d{8}\.spare$/.test(name));
    this.numbers = names
      .map((name) => /^(\d{8})\.journal$/.exec(name)?.[1])
      .filter((number) => number !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
  }

  path(number: number): string {
    return join(this.#folder, `${String(number).padStart(8, "0")}.journal`);
  }

  bytes(number: number): Buffer {
    return readFileSync(this.path(number));
  }

  /** Open a segment for writing; what is written is on disk when the write ends. `fresh`: one that is not there yet. */
  open(number: number, { fresh }: { fresh: boolean }): number {
    const path = this.path(number);
    const spare = fresh ? this.#spares.pop() : undefined;
    if (spare !== undefined) renameSync(join(this.#folder, spare), path);
    return openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_DSYNC, 0o600);
  }

  /** Put a file away that nobody can read; its new path is returned. */
  setAside(number: number): string {
    const path = this.path(number).replace(/journal$/, "unreadable");
    renameSync(this.path(number), path);
    return path;
  }

  /** Whatever closing may complain of: what counts was on disk when its write ended. */
  close(fd: number): void {
    try {
      closeSync(fd);
    } catch {
      // the descriptor is gone all the same, see close(2)
    }
  }

  /** Cut a segment to a length, on disk. */
  cut(number: number, length: number): void {
    const fd = openSync(this.path(number), constants.O_RDWR);
    try {
      ftruncateSync(fd, length);
      fsyncSync(fd);
    } finally {
      this.close(fd);
    }
  }

  /** So many bytes of a segment. @throws when it has not that many. */
  async read(number: number, at: number, length: number): Promise<Buffer> {
    const file = await open(this.path(number), "r");
    try {
      const bytes = Buffer.alloc(length);
      const { bytesRead } = await file.read(bytes, 0, length, at);
      if (bytesRead !== length)
        throw new Error(`${this.path(number)}: ends before byte ${at + length}`);
      return bytes;
    } finally {
      await file.close();
    }
  }

  /** Let go of a segment, unless it was set aside. One that is longer than `longest` bytes is not kept. */
  async drop(number: number, longest: number): Promise<void> {
    const path = this.path(number);
    if (!(await exists(path))) return;
    // void in any case: a name that comes back after a power cut must not bring records back whose end is gone
    const size = await makeVoid(path).catch(() => undefined);
    if (size === undefined || size > longest || this.#spares.length >= mostSpares) {
      await unlink(path);
      if (size === undefined) await fsyncFolder(this.#folder);
      return;
    }
    const name = `${String(number).padStart(8, "0")}.spare`;
    await rename(path, join(this.#folder, name));
    this.#spares.push(name);
  }
}

/** What is in the file is void, on disk, when this resolves with the file's size. */
async function makeVoid(path: string): Promise<number> {
  const file = await open(path, constants.O_RDWR | constants.O_DSYNC);
  try {
    await file.write(spareLine, 0, "latin1");
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}
