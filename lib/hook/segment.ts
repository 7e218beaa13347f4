import { randomBytes } from "node:crypto";
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
import { crc32 } from "node:zlib";
import { exists, fsyncFolder } from "../files/files.ts";

/**
 * A segment of the journal, as bytes. Pure, but for the marks, which are random.
 *
 * Its first line is `boatyard-journal MARK`. A record is `LENGTH CHECKSUM MARK JSON\n`, then LENGTH bytes of body
 * and `\n` unless LENGTH is 0. The checksum is the CRC-32, in hex, of JSON, its newline and the body. Files are used
 * again: what an earlier use left behind has another mark, and so has whatever a sender may have put into a body.
 * A last record that a crash cut short is recognised and dropped.
 */
export interface Place {
  readonly segment: number;
  /** Where the body starts in the segment, in bytes. */
  readonly at: number;
  readonly length: number;
}

export interface Found {
  readonly head: Record<string, unknown>;
  readonly place: Place;
}

export interface Unwritten {
  readonly head: object;
  readonly body: Uint8Array | undefined;
}

/** Tells one use of a segment's file from the others: 16 hex digits that nobody can foresee. */
export function newMark(): string {
  return randomBytes(8).toString("hex");
}

const firstLine = (mark: string) => `boatyard-journal ${mark}\n`;
/** Written over the first line of a file that may be used again: nothing in it is a record any more. */
const spareLine = firstLine("spare");
const marked = /^boatyard-journal ([0-9a-f]{16})\n/;
/** What stands before a record's JSON, at its longest. */
const maxStart = 10 + 1 + 8 + 1 + 16 + 1;
const newline = 10;

/**
 * Records as they stand in a segment, from its first line on when `at` is 0. `bodies` says where each one's body
 * starts, counted from the segment's beginning.
 */
export function encodeRecords(
  records: readonly Unwritten[],
  { mark, at }: { mark: string; at: number },
): { data: Buffer; bodies: number[] } {
  const parts: Uint8Array[] = at === 0 ? [Buffer.from(firstLine(mark))] : [];
  const bodies: number[] = [];
  let end = at + (parts[0]?.length ?? 0);
  for (const { head, body = new Uint8Array() } of records) {
    const json = `${JSON.stringify(head)}\n`;
    const checksum = crc32(body, crc32(json)).toString(16).padStart(8, "0");
    const start = Buffer.from(`${body.length} ${checksum} ${mark} ${json}`);
    const lineEnd = Buffer.from(body.length > 0 ? "\n" : "");
    parts.push(start, body, lineEnd);
    bodies.push(end + start.length);
    end += start.length + body.length + lineEnd.length;
  }
  return { data: Buffer.concat(parts), bodies };
}

const headStart = /^(\d{1,10}) ([0-9a-f]{8}) ([0-9a-f]{16}) \{/;

/** What a segment's file says. */
export interface ReadSegment {
  readonly records: Found[];
  /** Where damaged records start. */
  readonly damaged: number[];
  /** Up to where it is good; 0 when it has not been used yet. */
  readonly length: number;
  readonly mark: string | undefined;
}

/** Whether a file holds something, and yet has no first line that says what. */
export function isUnreadable(data: Buffer): boolean {
  const line = data.toString("latin1", 0, 64);
  // zeros: a first write that never came to its end
  return !/^\0*$/.test(line) && !marked.test(line) && !line.startsWith(spareLine);
}

/** The good records of a segment, the places of damaged ones, and the length up to which it is good. Pure. */
export function readSegment(data: Buffer, segment: number): ReadSegment {
  const records: Found[] = [];
  const damaged: number[] = [];
  const start = marked.exec(data.toString("latin1", 0, 64));
  const mark = start?.[1];
  if (!start || mark === undefined) return { records, damaged, length: 0, mark };
  let at = start[0].length;
  let good = at;
  while (at < data.length) {
    const found = readRecord(data, { at, segment, mark });
    if (found) {
      records.push(found.record);
      at = found.end;
      good = at;
      continue;
    }
    damaged.push(at);
    const next = nextHead(data, at, mark);
    if (next === undefined) break;
    at = next;
  }
  // a torn end was never answered with 202, so it is no loss worth a warning
  return { records, damaged: damaged.filter((each) => each < good), length: good, mark };
}

function readRecord(
  data: Buffer,
  { at, segment, mark }: { at: number; segment: number; mark: string },
): { record: Found; end: number } | undefined {
  const match = headAt(data, at, mark);
  const lineEnd = match ? data.indexOf(newline, at) : -1;
  if (!match || lineEnd < 0) return undefined;
  const length = Number(match[1]);
  const jsonStart = at + match[0].length - 1;
  const bodyStart = lineEnd + 1;
  const bodyEnd = bodyStart + length;
  const end = length > 0 ? bodyEnd + 1 : bodyEnd;
  if (end > data.length) return undefined;
  if (crc32(data.subarray(jsonStart, bodyEnd)) !== Number.parseInt(match[2] ?? "", 16))
    return undefined;
  try {
    const head = JSON.parse(data.toString("utf8", jsonStart, lineEnd));
    return { record: { head, place: { segment, at: bodyStart, length } }, end };
  } catch {
    return undefined;
  }
}

function headAt(data: Buffer, at: number, mark: string): RegExpExecArray | undefined {
  const match = headStart.exec(data.toString("latin1", at, at + maxStart + 1));
  return match?.[3] === mark ? match : undefined;
}

/** Where the next record starts after a damaged one: a line of this use of the file. */
function nextHead(data: Buffer, from: number, mark: string): number | undefined {
  const within = ` ${mark} {`;
  for (let at = data.indexOf(within, from); at >= 0; at = data.indexOf(within, at + 1)) {
    const start = data.lastIndexOf(newline, at) + 1;
    if (start > from && headAt(data, start, mark)) return start;
  }
  return undefined;
}

/** Files that wait to be used again; a flood of deliveries needs one after the other. */
const maxSpares = 8;

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

  /** Release a segment, unless it was set aside. One that is longer than `maxSize` bytes is not kept. */
  async drop(number: number, maxSize: number): Promise<void> {
    const path = this.path(number);
    if (!(await exists(path))) return;
    // void in any case: a name that comes back after a power cut must not bring records back whose end is gone
    const size = await makeVoid(path).catch(() => undefined);
    if (size === undefined || size > maxSize || this.#spares.length >= maxSpares) {
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
