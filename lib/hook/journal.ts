import {
  closeSync,
  constants,
  fdatasync,
  ftruncate,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
} from "node:fs";
import { open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { fsyncFolder } from "../files.ts";
import { writeAll } from "./write-all.ts";
import { type Encoded, encodeRecord, type Found, type Place, readSegment } from "./segment.ts";

/**
 * An append-only journal of records, each a line of JSON and perhaps a body, in numbered segment files.
 * Records that arrive together share one write and one fdatasync: `append` resolves when its record is on disk.
 * lib/hook/segment.ts has a record's form.
 */
interface Pending {
  readonly parts: readonly Uint8Array[];
  readonly size: number;
  readonly bodyAt: number;
  readonly bodyLength: number;
  readonly done: ((place: Place) => void) | undefined;
  readonly failed: ((error: Error) => void) | undefined;
}

const mostInOneWrite = 300;
/** Writes between these sizes go through one buffer that is kept. */
const smallWrite = 64 * 1024;
const largeWrite = 1024 * 1024;

export class Journal {
  readonly #folder: string;
  readonly #segmentSize: number;
  #fd = -1;
  #segment: number;
  #oldest: number;
  /** Length of what is known to be good in the current segment. */
  #length: number;
  #pending: Pending[] = [];
  #flushing: Promise<void> | undefined;
  /** Resolves when a segment that was made is in its folder for good. */
  #named: Promise<void> | undefined;
  #scratch: Buffer | undefined;

  private constructor(
    folder: string,
    segmentSize: number,
    oldest: number,
    segment: number,
    length: number,
  ) {
    this.#folder = folder;
    this.#segmentSize = segmentSize;
    this.#oldest = oldest;
    this.#segment = segment;
    this.#length = length;
  }

  /**
   * Open the journal of a folder and read what is in it, oldest first.
   * `warn` is told of every damaged place, with file and byte.
   */
  static async open(
    folder: string,
    {
      segmentSize = 16 * 1024 * 1024,
      warn,
    }: { segmentSize?: number; warn: (text: string) => void },
  ): Promise<{ journal: Journal; records: Found[] }> {
    // at once, like the segments: a start has nothing else to do meanwhile
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const numbers = readdirSync(folder)
      .map((name) => /^(\d{8})\.journal$/.exec(name)?.[1])
      .filter((number) => number !== undefined)
      .map(Number)
      .sort((a, b) => a - b);
    const records: Found[] = [];
    let length = 0;
    for (const number of numbers) {
      const path = segmentPath(folder, number);
      const read = readSegment(readFileSync(path), number);
      records.push(...read.records);
      for (const at of read.damaged)
        warn(`${path}: the record at byte ${at} is damaged and left out`);
      length = read.length;
    }
    const last = numbers.at(-1) ?? 1;
    const journal = new Journal(folder, segmentSize, numbers[0] ?? 1, last, length);
    journal.#prepare();
    return { journal, records };
  }

  get current(): number {
    return this.#segment;
  }

  get oldest(): number {
    return this.#oldest;
  }

  /** Resolves when the record is on disk; rejected when it could not be written (nothing of it remains then). */
  append(head: object, body?: Uint8Array): Promise<Place> {
    return new Promise((done, failed) => {
      this.#pending.push(pendingOf(encodeRecord(head, body), done, failed));
      this.#flushing ??= this.#flush();
    });
  }

  /** A record that nobody waits for: it goes to disk with the next flush, and is tried again when that fails. */
  note(head: object): void {
    this.#pending.push(pendingOf(encodeRecord(head, undefined), undefined, undefined));
  }

  /** Wait until all that was noted is on disk. */
  async flush(): Promise<void> {
    while (this.#flushing) await this.#flushing;
    if (this.#pending.length === 0) return;
    let problem: Error | undefined;
    this.#flushing = this.#flush((error) => {
      problem = error;
    });
    await this.#flushing;
    if (problem) throw problem;
  }

  async #flush(onFailure?: (error: Error) => void): Promise<void> {
    while (this.#pending.length > 0) {
      // what arrives in the same turn of the event loop shares a write
      await new Promise((resolve) => setImmediate(resolve));
      const batch = this.#pending.splice(0, mostInOneWrite);
      try {
        const places = await this.#write(batch);
        for (const [index, each] of batch.entries()) each.done?.(places[index] as Place);
      } catch (error) {
        const problem = error as Error;
        const notes = batch.filter((each) => each.failed === undefined);
        for (const each of batch) each.failed?.(problem);
        this.#pending.unshift(...notes);
        onFailure?.(problem);
        await this.#repair();
        // notes alone wait for the next append or flush
        if (this.#pending.every((each) => each.failed === undefined)) break;
      }
    }
    this.#flushing = undefined;
  }

  async #write(batch: readonly Pending[]): Promise<Place[]> {
    if (this.#fd >= 0 && this.#length >= this.#segmentSize) this.#close();
    if (this.#fd < 0) this.#open();
    const named = this.#named;
    const places: Place[] = [];
    let at = this.#length;
    for (const each of batch) {
      places.push({ segment: this.#segment, at: at + each.bodyAt, length: each.bodyLength });
      at += each.size;
    }
    await writeAll(this.#fd, this.#together(batch, at - this.#length), this.#length);
    await new Promise<void>((resolve, reject) =>
      fdatasync(this.#fd, (error) => (error ? reject(error) : resolve())),
    );
    await named;
    this.#named = undefined;
    this.#length = at;
    return places;
  }

  /** A batch in one piece, in memory that is used again: fresh pages for each write cost more than the copy. */
  #together(batch: readonly Pending[], size: number): Buffer {
    if (size < smallWrite || size > largeWrite)
      return Buffer.concat(
        batch.flatMap((each) => each.parts),
        size,
      );
    this.#scratch ??= Buffer.allocUnsafeSlow(largeWrite);
    let at = 0;
    for (const { parts } of batch) {
      for (const part of parts) {
        this.#scratch.set(part, at);
        at += part.length;
      }
    }
    return this.#scratch.subarray(0, size);
  }

  #open(): void {
    if (this.#length >= this.#segmentSize) {
      this.#segment += 1;
      this.#length = 0;
    }
    this.#fd = openSync(
      segmentPath(this.#folder, this.#segment),
      constants.O_RDWR | constants.O_CREAT,
      0o600,
    );
    this.#named = fsyncFolder(this.#folder);
    // the write that waits for it hears of a failure
    this.#named.catch(() => {});
  }

  /** Open the segment ahead of the first delivery. What keeps it from that is told when there is one. */
  #prepare(): void {
    try {
      this.#open();
    } catch {
      this.#fd = -1;
    }
  }

  #close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** After a failed write: take away what may be half there. The next write begins at the good length in any case. */
  async #repair(): Promise<void> {
    if (this.#fd < 0) return;
    await new Promise<void>((resolve) => ftruncate(this.#fd, this.#length, () => resolve()));
    // a descriptor whose fsync failed once cannot be trusted: open the file anew
    this.#close();
  }

  /** The body of a record. */
  async read({ segment, at, length }: Place): Promise<Buffer> {
    const handle = await open(segmentPath(this.#folder, segment), "r");
    try {
      const body = Buffer.alloc(length);
      const { bytesRead } = await handle.read(body, 0, length, at);
      if (bytesRead !== length)
        throw new Error(`${segmentPath(this.#folder, segment)}: ends before byte ${at + length}`);
      return body;
    } finally {
      await handle.close();
    }
  }

  /** Remove the oldest segment, all of whose records have been dealt with. */
  async dropOldest(): Promise<void> {
    if (this.#oldest >= this.#segment) return;
    await unlink(segmentPath(this.#folder, this.#oldest));
    this.#oldest += 1;
  }

  async close(): Promise<void> {
    await this.flush().catch(() => {});
    this.#close();
  }
}

/** No spread: thousands of these a second are to be of one shape, like the entries (lib/hook/entry.ts). */
function pendingOf(
  { parts, size, bodyAt, bodyLength }: Encoded,
  done: Pending["done"],
  failed: Pending["failed"],
): Pending {
  return { parts, size, bodyAt, bodyLength, done, failed };
}

function segmentPath(folder: string, number: number): string {
  return join(folder, `${String(number).padStart(8, "0")}.journal`);
}
