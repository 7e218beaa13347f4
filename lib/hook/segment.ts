import { crc32 } from "node:zlib";

/**
 * A segment of the journal, as bytes. Pure.
 *
 * A record is `LENGTH CHECKSUM JSON\n`, then LENGTH bytes of body and `\n` unless LENGTH is 0. The checksum
 * is the CRC-32 of JSON and body in hex. A last record that a crash cut short is recognised and dropped.
 */
export interface Place {
  readonly segment: number;
  /** Where the body begins in the segment, in bytes. */
  readonly at: number;
  readonly length: number;
}

export interface Found {
  readonly head: Record<string, unknown>;
  readonly place: Place;
}

const newline = Buffer.from("\n");

/** A record in the pieces that are written one after the other, and where its body begins in it. */
export interface Encoded {
  readonly parts: readonly Uint8Array[];
  readonly size: number;
  readonly bodyAt: number;
  readonly bodyLength: number;
}

/** Make a record of a head and perhaps a body. */
export function encodeRecord(head: object, body: Uint8Array | undefined): Encoded {
  const json = JSON.stringify(head);
  const bodyLength = body?.length ?? 0;
  const checksum = crc32(body ?? "", crc32(json))
    .toString(16)
    .padStart(8, "0");
  const line = Buffer.from(`${bodyLength} ${checksum} ${json}\n`);
  const parts = body && bodyLength > 0 ? [line, body, newline] : [line];
  const size = line.length + (bodyLength > 0 ? bodyLength + 1 : 0);
  return { parts, size, bodyAt: line.length, bodyLength };
}

const headStart = /^(\d{1,10}) ([0-9a-f]{8}) \{/;

/** The good records of a segment, the places of damaged ones, and the length up to which it is good. Pure. */
export function readSegment(
  data: Buffer,
  segment: number,
): { records: Found[]; damaged: number[]; length: number } {
  const records: Found[] = [];
  const damaged: number[] = [];
  let good = 0;
  let at = 0;
  while (at < data.length) {
    const found = readRecord(data, at, segment);
    if (found) {
      records.push(found.record);
      at = found.end;
      good = at;
      continue;
    }
    damaged.push(at);
    const next = nextHead(data, at);
    if (next === undefined) break;
    at = next;
  }
  // a torn end was never answered with 202, so it is no loss worth a warning
  if (damaged.at(-1) === good) damaged.pop();
  return { records, damaged, length: good };
}

function readRecord(
  data: Buffer,
  at: number,
  segment: number,
): { record: Found; end: number } | undefined {
  const lineEnd = data.indexOf(10, at);
  if (lineEnd < 0) return undefined;
  const match = headStart.exec(data.toString("latin1", at, at + 24));
  if (!match) return undefined;
  const length = Number(match[1]);
  const json = data.subarray(at + match[0].length - 1, lineEnd);
  const bodyStart = lineEnd + 1;
  const body = data.subarray(bodyStart, bodyStart + length);
  const end = length > 0 ? bodyStart + length + 1 : bodyStart;
  if (body.length !== length || end > data.length) return undefined;
  if (crc32(body, crc32(json)) !== Number.parseInt(match[2] ?? "", 16)) return undefined;
  try {
    return {
      record: { head: JSON.parse(json.toString()), place: { segment, at: bodyStart, length } },
      end,
    };
  } catch {
    return undefined;
  }
}

/** Where the next line begins that looks like a record, after a damaged one. */
function nextHead(data: Buffer, from: number): number | undefined {
  for (let at = data.indexOf(10, from); at >= 0; at = data.indexOf(10, at + 1)) {
    if (headStart.test(data.toString("latin1", at + 1, at + 25))) return at + 1;
  }
  return undefined;
}
