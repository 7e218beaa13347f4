import { type FileHandle, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fsyncFolder } from "../files/files.ts";
import {
  encodeRecords,
  type Found,
  isUnreadable,
  newMark,
  type Place,
  readSegment,
  type Unwritten,
} from "./segment.ts";

/** A record on its way to the disk; without a `head`: somebody waits until all that came before is there. */
interface Pending extends Unwritten {
  readonly stored?: (place: Place) => void;
  /** Undefined: a note, which is tried again. */
  readonly failed?: (error: Error) => void;
}

const maxRecordsInWrite = 300;
/** A write takes no further record when it has so many bytes of bodies: memory is bounded. */
const maxBytesInWrite = 32 * 1024 * 1024;

/** The segment that is written to: its number, the mark of its records, and how much of it is known to be good. */
interface Current {
  readonly number: number;
  readonly mark: string;
  length: number;
}

/**
 * An append-only journal of records, each a line of JSON and perhaps a body, in numbered files (segments):
 * `00000001.journal` and so on. Records that arrive together share one write and one fdatasync(2); `append` resolves
 * after that. Meanwhile the records of the next write gather. lib/hook/segment.ts has a record's form.
 */
export class Journal {
  readonly #folder: string;
  /** Bytes after which a segment is full. */
  readonly segmentSize: number;
  #file: FileHandle | undefined;
  #segment: Current;
  #oldest: number;
  #pending: Pending[] = [];
  #flushing: Promise<void> | undefined;

  private constructor(folder: string, segmentSize: number, oldest: number, segment: Current) {
    this.#folder = folder;
    this.segmentSize = segmentSize;
    this.#oldest = oldest;
    this.#segment = segment;
  }

  /**
   * Open the journal of a folder, which is made when it is not there, and read what is in it, oldest first.
   * `warn` gets every damaged place, with file and byte.
   */
  static async open(
    folder: string,
    { segmentSize = 4 * 1024 * 1024, warn }: { segmentSize?: number; warn: (text: string) => void },
  ): Promise<{ journal: Journal; records: Found[] }> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const names = (await readdir(folder)).sort();
    // files that a former version kept to use them again
    for (const name of names) if (/^\d{8}\.spare$/.test(name)) await rm(join(folder, name));
    const numbers = names
      .filter((name) => /^\d{8}\.journal$/.test(name))
      .map((name) => Number.parseInt(name, 10));
    const records: Found[] = [];
    let segment: Current = { number: 1, mark: newMark(), length: 0 };
    for (const number of numbers) {
      const path = pathOf(folder, number);
      const bytes = await readFile(path);
      if (isUnreadable(bytes)) {
        const kept = path.replace(/journal$/, "unreadable");
        await rename(path, kept);
        warn(`${path} is not a journal of this version; kept as ${kept}`);
        segment = { number: number + 1, mark: newMark(), length: 0 };
        continue;
      }
      const read = readSegment(bytes, number);
      records.push(...read.records);
      for (const at of read.damaged)
        warn(`${path}: the record at byte ${at} is damaged and left out`);
      segment = { number, mark: read.mark ?? newMark(), length: read.length };
    }
    const oldest = numbers[0] ?? segment.number;
    return { journal: new Journal(folder, segmentSize, oldest, segment), records };
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
      const onStored = (place: Place) => resolve(stored(place));
      this.#pending.push({ head, body, stored: onStored, failed: reject });
      this.#flushing ??= this.#flush();
    });
  }

  /** A record that nobody waits for: it goes to disk with the next flush, and is tried again when that fails. */
  note(head: object): void {
    this.#pending.push({ head });
  }

  /** Wait until all that was noted so far is on disk; what is appended meanwhile is not waited for. */
  flush(): Promise<void> {
    if (this.#pending.length === 0 && !this.#flushing) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#pending.push({ stored: () => resolve(), failed: reject });
      this.#flushing ??= this.#flush();
    });
  }

  async #flush(): Promise<void> {
    while (this.#pending.length > 0) {
      const batch = this.#nextBatch();
      try {
        const places = await this.#write(batch);
        for (const [index, place] of places.entries()) batch[index]?.stored?.(place);
      } catch (error) {
        await this.#cutFailedWrite();
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
      bytes += next.body?.length ?? 0;
    }
    return this.#pending.splice(0, count);
  }

  /** The place of each record's body, once the batch is on disk. */
  async #write(batch: readonly Pending[]): Promise<Place[]> {
    if (batch.some(({ head }) => head !== undefined)) await this.#makeRoom();
    const { number: segment, mark, length: at } = this.#segment;
    const { data, bodies } = encodeRecords(batch, { mark, at });
    if (data.length > 0) {
      this.#file ??= await this.#open();
      await this.#file.appendFile(data);
      await this.#file.datasync();
      this.#segment.length += data.length;
    }
    return batch.map(({ body }, n) => ({ segment, at: bodies[n] ?? 0, length: body?.length ?? 0 }));
  }

  /** Go on to the next segment when this one is full. */
  async #makeRoom(): Promise<void> {
    const { number, length } = this.#segment;
    if (length < this.segmentSize) return;
    await this.#close();
    this.#segment = { number: number + 1, mark: newMark(), length: 0 };
  }

  /** Open the segment that is written to, and cut off whatever a crash or a failed write left behind its good end. */
  async #open(): Promise<FileHandle> {
    const file = await open(pathOf(this.#folder, this.#segment.number), "a", 0o600);
    try {
      await file.truncate(this.#segment.length);
      await file.sync();
      // a file's name goes to disk before what is in it counts
      await fsyncFolder(this.#folder);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** What is half there is cut off now, or before the next write. A file whose sync failed once must be opened again. */
  async #cutFailedWrite(): Promise<void> {
    await this.#close();
    this.#file = await this.#open().catch(() => undefined);
  }

  async #close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    // whatever closing may complain of: what counts was on disk when its write ended
    await file?.close().catch(() => {});
  }

  /** The body of a record. */
  async read({ segment, at, length }: Place): Promise<Buffer> {
    const path = pathOf(this.#folder, segment);
    const file = await open(path, "r");
    try {
      const bytes = Buffer.alloc(length);
      const { bytesRead } = await file.read(bytes, 0, length, at);
      if (bytesRead !== length) throw new Error(`${path}: ends before byte ${at + length}`);
      return bytes;
    } finally {
      await file.close();
    }
  }

  /** Remove the oldest segment, all of whose records are settled, unless it is the one that is written to. */
  async dropOldest(): Promise<void> {
    if (this.#oldest >= this.#segment.number) return;
    await rm(pathOf(this.#folder, this.#oldest), { force: true });
    // on disk before the next one goes, which may tell the ends of this one's runs
    await fsyncFolder(this.#folder);
    this.#oldest += 1;
  }

  async close(): Promise<void> {
    await this.flush().catch(() => {});
    await this.#flushing;
    await this.#close();
  }
}

function pathOf(folder: string, number: number): string {
  return join(folder, `${String(number).padStart(8, "0")}.journal`);
}
