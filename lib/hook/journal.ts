import { write } from "node:fs";
import { promisify } from "node:util";
import { fsyncFolder } from "../files/files.ts";
import {
  encodeRecords,
  type Found,
  isUnreadable,
  newMark,
  type Place,
  readSegment,
  SegmentFiles,
  type Unwritten,
} from "./segment.ts";

interface Pending {
  /** Undefined: nothing to write, somebody waits until all that came before is on disk. */
  readonly record: Unwritten | undefined;
  readonly stored: ((place: Place) => void) | undefined;
  /** Undefined: a note, which is tried again. */
  readonly failed: ((error: Error) => void) | undefined;
}

const maxRecordsInWrite = 300;
/** A write takes no further record when it has so many bytes of bodies: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;

/** The segment that is written to. */
interface Current {
  readonly number: number;
  /** The mark of its records; undefined: nothing has been written yet. */
  mark: string | undefined;
  /** Length of what is known to be good in it. */
  length: number;
}

/**
 * An append-only journal of records, each a line of JSON and perhaps a body, in numbered segment files.
 * Records that arrive together share one write, which ends when they are on disk (O_DSYNC: a write and its
 * fdatasync in one, see open(2)): `append` resolves then. While one write is under way, the records of the next
 * gather. lib/hook/segment.ts has a record's form.
 */
export class Journal {
  readonly #folder: string;
  readonly #files: SegmentFiles;
  /** Bytes after which a segment is full. */
  readonly segmentSize: number;
  #fd = -1;
  #segment: Current;
  #oldest: number;
  #pending: Pending[] = [];
  #flushing: Promise<void> | undefined;
  /** Whether a failed write may have left something behind the good end. */
  #uncut = false;

  private constructor(
    folder: string,
    files: SegmentFiles,
    { segmentSize, segment }: { segmentSize: number; segment: Current },
  ) {
    this.#folder = folder;
    this.#files = files;
    this.segmentSize = segmentSize;
    this.#segment = segment;
    this.#oldest = files.numbers[0] ?? segment.number;
  }

  /**
   * Open the journal of a folder and read what is in it, oldest first.
   * `warn` gets every damaged place, with file and byte.
   */
  static async open(
    folder: string,
    { segmentSize = 4 * 1024 * 1024, warn }: { segmentSize?: number; warn: (text: string) => void },
  ): Promise<{ journal: Journal; records: Found[] }> {
    const files = new SegmentFiles(folder);
    const records: Found[] = [];
    let segment: Current = { number: 1, mark: undefined, length: 0 };
    for (const number of files.numbers) {
      const bytes = files.bytes(number);
      if (isUnreadable(bytes)) {
        warn(
          `${files.path(number)} is not a journal of this version; kept as ${files.setAside(number)}`,
        );
        segment = { number: number + 1, mark: undefined, length: 0 };
        continue;
      }
      const read = readSegment(bytes, number);
      records.push(...read.records);
      for (const at of read.damaged)
        warn(`${files.path(number)}: the record at byte ${at} is damaged and left out`);
      segment = { number, mark: read.mark, length: read.length };
    }
    return { journal: new Journal(folder, files, { segmentSize, segment }), records };
  }

  get current(): number {
    return this.#segment.number;
  }

  get oldest(): number {
    return this.#oldest;
  }

  /**
   * Resolves when the record is on disk, with what `stored` makes of its place; rejected when it could not be
   * written (nothing of it remains then). `stored` is called at once, before the next write starts.
   */
  append<T = Place>(
    head: object,
    body?: Uint8Array,
    stored: (place: Place) => T = (place) => place as T,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const onStored = (place: Place) => {
        try {
          resolve(stored(place));
        } catch (error) {
          reject(error);
        }
      };
      this.#pending.push({ record: { head, body }, stored: onStored, failed: reject });
      this.#flushing ??= this.#flush();
    });
  }

  /** A record that nobody waits for: it goes to disk with the next flush, and is tried again when that fails. */
  note(head: object): void {
    const record = { head, body: undefined };
    this.#pending.push({ record, stored: undefined, failed: undefined });
  }

  /** Wait until all that was noted so far is on disk; what is appended meanwhile is not waited for. */
  flush(): Promise<void> {
    if (this.#pending.length === 0 && !this.#flushing) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#pending.push({ record: undefined, stored: () => resolve(), failed: reject });
      this.#flushing ??= this.#flush();
    });
  }

  async #flush(): Promise<void> {
    while (this.#pending.length > 0) {
      const batch = this.#nextBatch();
      try {
        const bodies = await this.#write(batch);
        const segment = this.#segment.number;
        let next = 0;
        for (const { record, stored } of batch) {
          const at = record ? bodies[next++] : undefined;
          stored?.({ segment, at: at ?? 0, length: record?.body?.length ?? 0 });
        }
      } catch (error) {
        this.#repair();
        const all = [...batch, ...this.#pending];
        // notes wait for the next append or flush, all others hear of it
        this.#pending = all.filter(({ failed }) => failed === undefined);
        for (const { failed } of all) failed?.(error as Error);
        break;
      }
    }
    this.#flushing = undefined;
  }

  #nextBatch(): Pending[] {
    let count = 0;
    for (let bytes = 0; count < maxRecordsInWrite && bytes < maxBytesInWrite; count++) {
      const next = this.#pending[count];
      if (!next) break;
      bytes += next.record?.body?.length ?? 0;
    }
    return this.#pending.splice(0, count);
  }

  /** Where the body of each record starts, once the batch is on disk. */
  async #write(batch: readonly Pending[]): Promise<number[]> {
    const records = batch.map(({ record }) => record).filter((record) => record !== undefined);
    if (records.length === 0) return [];
    if (this.#fd >= 0 && this.#segment.length >= this.segmentSize) this.#close();
    if (this.#fd < 0) await this.#open();
    const { length: at, mark = newMark() } = this.#segment;
    const { data, bodies } = encodeRecords(records, { mark, at });
    await writeAll(this.#fd, data, at);
    this.#segment.mark = mark;
    this.#segment.length = at + data.length;
    return bodies;
  }

  async #open(): Promise<void> {
    const { number, length } = this.#segment;
    if (this.#uncut) this.#files.cut(number, length);
    this.#uncut = false;
    const full = length >= this.segmentSize;
    this.#fd = this.#files.open(full ? number + 1 : number, { fresh: full });
    if (full) this.#segment = { number: number + 1, mark: undefined, length: 0 };
    // a file's name goes to disk before what is in it counts
    await fsyncFolder(this.#folder);
  }

  #close(): void {
    const fd = this.#fd;
    this.#fd = -1;
    if (fd >= 0) this.#files.close(fd);
  }

  /** After a failed write: take away what may be half there, or nothing more is written before that can be done. */
  #repair(): void {
    if (this.#fd < 0) return;
    try {
      // a descriptor whose write to the disk failed once cannot be trusted: the file is opened again
      this.#close();
      this.#files.cut(this.#segment.number, this.#segment.length);
    } catch {
      this.#uncut = true;
    }
  }

  /** The body of a record. */
  read({ segment, at, length }: Place): Promise<Buffer> {
    return this.#files.read(segment, at, length);
  }

  /** Release the oldest segment, all of whose records are settled. */
  async dropOldest(): Promise<void> {
    if (this.#oldest >= this.#segment.number) return;
    await this.#files.drop(this.#oldest, 2 * this.segmentSize);
    this.#oldest += 1;
  }

  async close(): Promise<void> {
    await this.flush().catch(() => {});
    await this.#flushing;
    this.#close();
  }
}

const writeSome = promisify(write);

/** One write for all records of a batch, unless a nearly full disk takes a part only. */
async function writeAll(fd: number, data: Buffer, position: number): Promise<void> {
  for (let at = 0; at < data.length; ) {
    const { bytesWritten } = await writeSome(fd, data, at, data.length - at, position + at);
    if (bytesWritten === 0)
      throw Object.assign(new Error("nothing could be written"), { code: "ENOSPC" });
    at += bytesWritten;
  }
}
