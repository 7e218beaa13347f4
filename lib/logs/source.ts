import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { systemCode } from "../core/errors.ts";
import { type LogPart, listParts, statIfThere } from "../log/parts.ts";

/** A log with its rotated parts, as they were at one instant. */
export interface LogFiles {
  file: string;
  /** The oldest first, the log itself last; a log that is not there is left out. */
  sources: Source[];
  /** The newest part: whatever sorts after it was rotated later. */
  newest: LogPart | undefined;
}

/** One file of a log; once open, it can be read while it is renamed, compressed or removed. */
export class Source {
  readonly #part: LogPart | undefined;
  #fd: number | undefined;
  /** Where it is, or was when it was opened. */
  path = "";
  packed = false;

  /** @param part undefined for the log itself, which is open as `fd`. */
  constructor(part: LogPart | undefined, fd?: number, path = "") {
    this.#part = part;
    this.#fd = fd;
    this.path = path;
  }

  /** When the part was rotated; undefined for the log itself. */
  get stamp(): string | undefined {
    return this.#part?.stamp;
  }

  get isLive(): boolean {
    return this.#part === undefined;
  }

  /** The open file; undefined when the part was removed meanwhile. */
  open(): number | undefined {
    if (this.#fd !== undefined) return this.#fd;
    // a part may be compressed between the listing and now
    const { plain, packed } = this.#part ?? {};
    for (const path of [plain, packed ?? (plain && `${plain}.gz`)]) {
      if (!path) continue;
      this.#fd = openIfThere(path);
      this.path = path;
      this.packed = path.endsWith(".gz");
      if (this.#fd !== undefined) return this.#fd;
    }
    return undefined;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** Open a log and list its parts, all of one instant. */
export async function openLogFiles(file: string): Promise<LogFiles> {
  for (;;) {
    const live = openIfThere(file);
    const parts = await listParts(file);
    const there = await statIfThere(file);
    // rotated in between: the file that is open here would be listed a second time, as a part
    const same = live === undefined ? there === undefined : fstatSync(live).ino === there?.ino;
    if (same || there?.isSymbolicLink()) {
      const sources = parts.map((part) => new Source(part));
      if (live !== undefined) sources.push(new Source(undefined, live, file));
      return { file, sources, newest: parts.at(-1) };
    }
    if (live !== undefined) closeSync(live);
  }
}

/** Open a file for reading; undefined when there is none. A pipe in its place is not waited for. */
export function openIfThere(path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

export function closeLogFiles({ sources }: LogFiles): void {
  for (const source of sources) source.close();
}

/** Whole lines of a file. */
export interface Block {
  bytes: Buffer;
  /** Where they start, in uncompressed bytes. */
  offset: number;
}

/** Texts of this size are made and freed cheaply; V8 keeps larger ones in pages of their own. */
const blockSize = 1 << 16;
const maxBackwards = 1 << 22;
/** A line longer than this is read as several: no string could hold it. */
const maxLine = 1 << 28;
const newline = 10;

/**
 * The lines of a source from an offset at which a line starts, in blocks. The last line may lack its newline.
 * @throws {Error} for a damaged compressed part, after the blocks before the damage.
 */
export async function* blocksOf(source: Source, from = 0): AsyncGenerator<Block> {
  const fd = source.open();
  if (fd === undefined) return;
  let offset = from;
  let rest: Buffer[] = [];
  let length = 0;
  for await (const chunk of source.packed ? unpacked(fd, from) : chunksOf(fd, from)) {
    const end = chunk.lastIndexOf(newline) + 1;
    if (end === 0 && length + chunk.length < maxLine) {
      rest.push(chunk);
      length += chunk.length;
      continue;
    }
    const cut = end === 0 ? chunk.length : end;
    const bytes = Buffer.concat([...rest, chunk.subarray(0, cut)]);
    rest = [chunk.subarray(cut)];
    length = chunk.length - cut;
    yield { bytes, offset };
    offset += bytes.length;
  }
  if (length > 0) yield { bytes: Buffer.concat(rest), offset };
}

/** The bytes of an open file from `position` on. */
export function* chunksOf(fd: number, position: number): Generator<Buffer> {
  for (let at = position; ; ) {
    const buffer = Buffer.allocUnsafe(blockSize);
    const count = readSync(fd, buffer, 0, blockSize, at);
    if (count === 0) return;
    at += count;
    yield buffer.subarray(0, count);
  }
}

async function* unpacked(fd: number, from: number): AsyncGenerator<Buffer> {
  let skip = from;
  // only where it is needed: loading it is a part of the start that one notices
  const { createGunzip } = await import("node:zlib");
  const { pipeline } = await import("node:stream");
  const gunzip = createGunzip({ chunkSize: blockSize });
  pipeline(chunksOf(fd, 0), gunzip, () => {});
  for await (const chunk of gunzip as AsyncIterable<Buffer>) {
    if (skip < chunk.length) yield chunk.subarray(skip);
    skip = Math.max(0, skip - chunk.length);
  }
}

/**
 * The lines of a plain source, in blocks from the end to the beginning.
 * For a compressed source, which can only be read forwards, use `blocksOf`.
 */
export function* blocksBackwards(source: Source): Generator<Block> {
  const fd = source.open();
  if (fd === undefined) return;
  let size = blockSize;
  for (let stop = fstatSync(fd).size; stop > 0; ) {
    const start = Math.max(0, stop - size);
    const bytes = Buffer.allocUnsafe(stop - start);
    let length = 0;
    while (length < bytes.length) {
      const count = readSync(fd, bytes, length, bytes.length - length, start + length);
      if (count === 0) break;
      length += count;
    }
    const first = start === 0 ? 0 : bytes.indexOf(newline) + 1;
    size *= 2;
    // no line starts in here: take more at once
    if (start > 0 && (first === 0 || first >= length)) continue;
    yield { bytes: bytes.subarray(first, length), offset: start + first };
    stop = start + first;
    size = Math.min(maxBackwards, size);
  }
}
