import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";

/**
 * A segment of the journal, as bytes. Pure, but for the marks, which are random.
 *
 * Its first line is `boatyard-journal MARK`. A record is `LENGTH CHECKSUM MARK JSON\n`, then LENGTH bytes of body
 * and `\n` unless LENGTH is 0. The checksum is the CRC-32, in hex, of JSON, its newline and the body. Nobody can
 * foresee a file's mark: what a sender put into a body, and what a former version's use of the file left behind it,
 * is no record. A last record that a crash cut short is recognised and dropped.
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
  /** Undefined: there is nothing to write. */
  readonly head?: object | undefined;
  readonly body?: Uint8Array | undefined;
}

/** What the records of one file have in common: 16 hex digits. */
export function newMark(): string {
  return randomBytes(8).toString("hex");
}

const firstLine = (mark: string) => `boatyard-journal ${mark}\n`;
/** A former version wrote this over the first line of a file that it would use again: there are no records in it. */
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
  const parts: Uint8Array[] = [];
  const bodies: number[] = [];
  let end = at;
  const put = (part: Uint8Array) => {
    parts.push(part);
    end += part.length;
  };
  if (at === 0) put(Buffer.from(firstLine(mark)));
  for (const { head, body = new Uint8Array() } of records) {
    const json = `${JSON.stringify(head)}\n`;
    const checksum = crc32(body, crc32(json)).toString(16).padStart(8, "0");
    if (head) put(Buffer.from(`${body.length} ${checksum} ${mark} ${json}`));
    bodies.push(end);
    put(body);
    if (body.length > 0) put(Buffer.from("\n"));
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
