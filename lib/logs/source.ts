import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
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

/** One file of a log; its bytes can be read while it is renamed, compressed or removed. */
export class Source {
  readonly #part: LogPart | undefined;
  #handle: FileHandle | undefined;
  /** Where it is, or was when it was opened. */
  path = "";
  packed = false;

  constructor(part: LogPart | undefined, handle?: FileHandle, path = "") {
    this.#part = part;
    this.#handle = handle;
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
  async handle(): Promise<FileHandle | undefined> {
    if (this.#handle) return this.#handle;
    // a part may be compressed between the listing and now
    const { plain, packed } = this.#part ?? {};
    const places = [plain, packed ?? (plain && `${plain}.gz`)];
    for (const path of places) {
      if (!path) continue;
      try {
        this.#handle = await open(path, "r");
        this.path = path;
        this.packed = path.endsWith(".gz");
        return this.#handle;
      } catch (error) {
        if (systemCode(error) !== "ENOENT") throw error;
      }
    }
    return undefined;
  }

  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }
}

/** Open a log and list its parts, all of one instant. */
export async function openLogFiles(file: string): Promise<LogFiles> {
  for (;;) {
    const live = await openIfThere(file);
    const parts = await listParts(file);
    const there = await statIfThere(file);
    // rotated in between: the file that is open here would be listed a second time, as a part
    const same = live ? (await live.stat()).ino === there?.ino : there === undefined;
    if (same || there?.isSymbolicLink()) {
      const sources = parts.map((part) => new Source(part));
      if (live) sources.push(new Source(undefined, live, file));
      return { file, sources, newest: parts.at(-1) };
    }
    await live?.close();
  }
}

async function openIfThere(file: string): Promise<FileHandle | undefined> {
  try {
    return await open(file, "r");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

export async function closeLogFiles({ sources }: LogFiles): Promise<void> {
  for (const source of sources) await source.close();
}

/** Whole lines of a file. The bytes are good until the next block is asked for. */
export interface Block {
  bytes: Buffer;
  /** Where they begin, in uncompressed bytes. */
  offset: number;
}

const blockSize = 1 << 20;
/** A line longer than this is read as several. */
const longestLine = 1 << 28;

/**
 * The lines of a source from an offset that begins a line, in blocks. The last line may lack its newline.
 * @throws {Error} for a damaged compressed part, after the blocks before the damage.
 */
export async function* blocksOf(source: Source, from = 0): AsyncGenerator<Block> {
  const handle = await source.handle();
  if (!handle) return;
  yield* wholeLines(source.packed ? unpacked(source.path, from) : plainChunks(handle, from), from);
}

async function* wholeLines(chunks: AsyncIterable<Buffer>, from: number): AsyncGenerator<Block> {
  let offset = from;
  let rest: Buffer[] = [];
  let restLength = 0;
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(10) + 1;
    if (end === 0 && restLength + chunk.length < longestLine) {
      rest.push(Buffer.from(chunk));
      restLength += chunk.length;
      continue;
    }
    const cut = end === 0 ? chunk.length : end;
    // what is left of the block before makes one line with the beginning of this one
    if (restLength > 0) {
      const first = end === 0 ? cut : chunk.indexOf(10) + 1;
      const line = Buffer.concat([...rest, chunk.subarray(0, first)]);
      yield { bytes: line, offset };
      offset += line.length;
      if (first < cut) yield { bytes: chunk.subarray(first, cut), offset };
      offset += cut - first;
    } else {
      yield { bytes: chunk.subarray(0, cut), offset };
      offset += cut;
    }
    rest = cut < chunk.length ? [Buffer.from(chunk.subarray(cut))] : [];
    restLength = chunk.length - cut;
  }
  if (restLength > 0) yield { bytes: Buffer.concat(rest), offset };
}

/** Reads the next chunk while the one before is being looked at. */
async function* plainChunks(handle: FileHandle, from: number): AsyncGenerator<Buffer> {
  const left = Math.max(0, (await handle.stat()).size - from);
  const size = Math.min(blockSize, Math.max(left + 1, 1 << 14));
  const buffers = [Buffer.allocUnsafe(size), Buffer.allocUnsafe(size)];
  let position = from;
  let turn = 0;
  const read = () => {
    turn = 1 - turn;
    return handle.read(buffers[turn] as Buffer, 0, size, position);
  };
  let next = read();
  try {
    for (;;) {
      const { buffer, bytesRead } = await next;
      if (bytesRead === 0) return;
      position += bytesRead;
      next = read();
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await next.catch(() => {});
  }
}

async function* unpacked(path: string, from: number): AsyncGenerator<Buffer> {
  let skip = from;
  // only where it is needed: loading it is a part of the start that one notices
  const { createGunzip } = await import("node:zlib");
  const { pipeline } = await import("node:stream");
  const gunzip = createGunzip({ chunkSize: 1 << 18 });
  pipeline(createReadStream(path, { highWaterMark: 1 << 18 }), gunzip, () => {});
  for await (const chunk of gunzip as AsyncIterable<Buffer>) {
    if (skip >= chunk.length) skip -= chunk.length;
    else {
      yield chunk.subarray(skip);
      skip = 0;
    }
  }
}

/**
 * The lines of a plain source before `end`, in blocks from the end to the beginning.
 * For a compressed source, which can only be read forwards, use `blocksOf`.
 */
export async function* blocksBackwards(source: Source, end?: number): AsyncGenerator<Block> {
  const handle = await source.handle();
  if (!handle) return;
  let stop = end ?? (await handle.stat()).size;
  let size = 1 << 16;
  while (stop > 0) {
    const start = Math.max(0, stop - size);
    const bytes = Buffer.allocUnsafe(stop - start);
    let length = 0;
    while (length < bytes.length) {
      const { bytesRead } = await handle.read(bytes, length, bytes.length - length, start + length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    const first = start === 0 ? 0 : bytes.indexOf(10) + 1;
    if (start > 0 && (first === 0 || first >= length)) {
      // no line begins in here: take more at once
      size *= 2;
      continue;
    }
    yield { bytes: bytes.subarray(first, length), offset: start + first };
    stop = start + first;
    size = Math.min(4 << 20, Math.max(size, 1 << 16) * 4);
  }
}
