/**
 * Reads the entries of a tar whose headers are as plain as nearly all are: files, folders and links with ustar or
 * GNU headers, octal numbers, a right checksum, and nothing that another header would change. The tar package takes
 * some 10 µs for each of those, which for thousands of small files is as long as unzipping them.
 *
 * What is read here is what the package would have read (test/lib/archive/tar-plain.test.ts holds both against each other);
 * from the first block on that is not plain, it is the package that reads, and judges.
 */
export interface TarEntry {
  readonly path: string;
  /** `File`, `Directory`, `SymbolicLink`, `Link` …, as the tar package calls them. */
  readonly type: string;
  readonly mode?: number | undefined;
  readonly linkpath?: string | undefined;
  /** Bytes. */
  readonly size: number;
}

/** Takes the bytes of one entry, each piece while it is called. */
export interface EntrySink {
  write(piece: Buffer): void;
  end(): void;
}

/** Told of each entry before its bytes; what it returns gets them. */
export type OnEntry = (entry: TarEntry) => EntrySink | undefined;

const blockSize = 512;

export class PlainTarReader {
  /** So many were read. */
  entries = 0;
  readonly #onEntry: OnEntry;
  /** The beginning of a header whose rest is in the next chunk. */
  readonly #held = Buffer.alloc(blockSize);
  #heldBytes = 0;
  #sink: EntrySink | undefined;
  /** Bytes of the entry under way that are still to come, and of what fills its last block. */
  #content = 0;
  #padding = 0;
  #nullBlocks = 0;

  constructor(onEntry: OnEntry) {
    this.#onEntry = onEntry;
  }

  /** Two blocks of zeros were read: what follows is not part of the archive. */
  get ended(): boolean {
    return this.#nullBlocks === 2;
  }

  /**
   * Read the next piece of the archive.
   * @returns undefined; or, once a block is not plain, that block and what follows it in the chunk: nothing more
   *   may be given to this reader then.
   */
  add(chunk: Buffer): Buffer | undefined {
    let position = 0;
    while (position < chunk.length && !this.ended) {
      if (this.#content > 0) {
        const piece = chunk.subarray(position, position + this.#content);
        this.#sink?.write(piece);
        this.#content -= piece.length;
        position += piece.length;
        if (this.#content === 0) this.#sink?.end();
      } else if (this.#padding > 0) {
        const count = Math.min(this.#padding, chunk.length - position);
        this.#padding -= count;
        position += count;
      } else if (this.#heldBytes > 0 || chunk.length - position < blockSize) {
        const count = chunk.copy(this.#held, this.#heldBytes, position);
        this.#heldBytes += count;
        position += count;
        if (this.#heldBytes < blockSize) return undefined;
        this.#heldBytes = 0;
        if (!this.#header(this.#held, 0))
          return Buffer.concat([this.#held, chunk.subarray(position)]);
      } else {
        if (!this.#header(chunk, position)) return chunk.subarray(position);
        position += blockSize;
      }
    }
    return undefined;
  }

  /** @returns false: this block is not plain. */
  #header(chunk: Buffer, at: number): boolean {
    // an archive without a single entry is no archive: the package says so
    if (this.entries > 0 && isZero(chunk, at, at + blockSize)) {
      this.#nullBlocks++;
      return true;
    }
    const entry = readPlainHeader(chunk, at);
    if (!entry) return false;
    this.#nullBlocks = 0;
    this.entries++;
    this.#sink = this.#onEntry(entry);
    this.#content = entry.size;
    this.#padding = -entry.size & (blockSize - 1);
    if (entry.size === 0) this.#sink?.end();
    return true;
  }
}

const plainTypes: Record<number, string> = {
  0x30: "File",
  0x32: "SymbolicLink",
  0x35: "Directory",
};

/** The entry in the block at `at`; undefined when the header is not plain. Pure. */
export function readPlainHeader(chunk: Buffer, at: number): TarEntry | undefined {
  const type = plainTypes[chunk[at + 156] ?? 0];
  if (type === undefined) return undefined;
  const magic = chunk.toString("latin1", at + 257, at + 265);
  const isUstar = magic === "ustar\u000000";
  if (!isUstar && magic !== "ustar  \0") return undefined;

  const mode = octal(chunk, at + 100, 8);
  const size = octal(chunk, at + 124, 12);
  const sum = octal(chunk, at + 148, 8);
  // the owner, the time and a device's number may not be in base 256; we have no use for them
  if (numberFields.some((field) => (chunk[at + field] ?? 0) >= 0x80)) return undefined;
  if (mode === undefined || size === undefined || sum !== checksum(chunk, at)) return undefined;

  const name = text(chunk, at, 100);
  const linkpath = text(chunk, at + 157, 100);
  // 475: the end of a prefix that is longer than the package reads at first; then the times of star's headers
  const prefix = isUstar ? text(chunk, at + 345, 130) : "";
  if (isUstar && !isZero(chunk, at + 475, at + 500)) return undefined;
  if (name === undefined || name === "" || prefix === undefined) return undefined;
  if (type === "File" ? name.endsWith("/") : size > 0) return undefined;
  if (linkpath === undefined || (type === "SymbolicLink") !== linkpath.length > 0) return undefined;
  const path = prefix === "" ? name : `${prefix}/${name}`;
  return type === "SymbolicLink"
    ? { path, type, mode: mode & 0o7777, size, linkpath }
    : { path, type, mode: mode & 0o7777, size };
}

const numberFields = [108, 116, 136, 329, 337];

/** Octal digits to a NUL or blank, and nothing but those behind them. */
function octal(chunk: Buffer, start: number, length: number): number | undefined {
  let value = 0;
  let at = start;
  const end = start + length;
  for (; at < end; at++) {
    const digit = (chunk[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  if (at === start || at === end) return undefined;
  for (; at < end; at++) if (chunk[at] !== 0 && chunk[at] !== 0x20) return undefined;
  return value;
}

/** The text to the first NUL, when only NULs follow that. */
function text(chunk: Buffer, start: number, length: number): string | undefined {
  const end = start + length;
  let stop = start;
  while (stop < end && chunk[stop] !== 0) stop++;
  return isZero(chunk, stop, end) ? chunk.toString("utf8", start, stop) : undefined;
}

function isZero(chunk: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (chunk[at] !== 0) return false;
  return true;
}

/** The sum of the block's bytes, with blanks for the checksum's own. */
function checksum(chunk: Buffer, at: number): number {
  let sum = 8 * 0x20;
  for (let index = at; index < at + 148; index++) sum += chunk[index] ?? 0;
  for (let index = at + 156; index < at + blockSize; index++) sum += chunk[index] ?? 0;
  return sum;
}
