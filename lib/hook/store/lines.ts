import { isUtf8 } from "node:buffer";
import { createReadStream } from "node:fs";
import { appendFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { Failure, messageOf, systemCode } from "../../core/errors.ts";

type Head = Record<string, unknown>;

/** Where a line stands, less its newline, in bytes. A rewrite moves it. */
export interface Place {
  at: number;
  readonly length: number;
}

// no string in a head holds these bytes: a quote in a string is escaped
const payloadMark = ',"payload":';
const sumTail = /,"sum":"([0-9a-f]{8})"\}$/;

const sumOf = (sum: number) => sum.toString(16).padStart(8, "0");

/**
 * A line of the store's file without a payload, with its newline: `{…head,"sum":"1a2b3c4d"}`. The sum is the CRC-32, in
 * hex, of all bytes before `,"sum"`.
 */
export function encodeHead(head: object): string {
  const start = JSON.stringify(head).slice(0, -1);
  return `${start},"sum":"${sumOf(crc32(start))}"}\n`;
}

/**
 * A line with a payload: `{…head,"payload":…,"sum":"1a2b3c4d"}`. A payload that is JSON in one line stands there as it
 * came, any other text as a string: `less` shows it, and `jq` reads it.
 * @returns the line in parts: a payload may be large, and is not copied.
 */
export function encodeLine(head: object, payload: Buffer): Buffer[] {
  const start = Buffer.from(JSON.stringify(head).slice(0, -1) + payloadMark);
  const json = asJson(payload);
  return [start, json, Buffer.from(`,"sum":"${sumOf(crc32(json, crc32(start)))}"}\n`)];
}

function asJson(payload: Buffer): Buffer {
  const isOneLine = isObject(payload) && !payload.includes("\n") && isUtf8(payload);
  return isOneLine ? payload : Buffer.from(JSON.stringify(payload.toString()));
}

function isObject(json: Buffer): boolean {
  return json[0] === 0x7b || json[0] === 0x5b;
}

/**
 * What a line (less its newline) says; undefined: it is damaged. One without a sum was written by a person and is taken
 * when it is JSON.
 */
export function decodeLine(line: Buffer): { head: Head; payload: Buffer | undefined } | undefined {
  const tail = sumTail.exec(line.toString("latin1", Math.max(0, line.length - 32)));
  try {
    if (!tail) {
      const { payload, ...head } = objectOf(line.toString());
      const text = typeof payload === "string" ? payload : JSON.stringify(payload);
      return { head, payload: text === undefined ? undefined : Buffer.from(text) };
    }
    const body = line.subarray(0, line.length - tail[0].length);
    if (sumOf(crc32(body)) !== tail[1]) return undefined;
    const at = body.indexOf(payloadMark);
    const head = objectOf(`${body.toString("utf8", 0, at < 0 ? body.length : at)}}`);
    if (at < 0) return { head, payload: undefined };
    const json = body.subarray(at + payloadMark.length);
    return { head, payload: isObject(json) ? json : Buffer.from(JSON.parse(json.toString())) };
  } catch {
    return undefined;
  }
}

function objectOf(text: string): Head {
  const value: unknown = JSON.parse(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Head;
  throw new SyntaxError("not an object");
}

const form = 1;
const about = "what hook-server accepted; edit it only while it is stopped";
/** The first line of every file: one without it has lost its beginning. `form` is for later versions. */
export const firstLine = encodeHead({ about, form });

/** A line that says something, without its payload. */
export interface ReadLine {
  readonly head: Head;
  readonly place: Place;
  /** Counted from 1. */
  readonly number: number;
}

/**
 * Read a file's lines, in order. What is damaged or missing is one line for `warn`, with file and line; what does not
 * read is kept in FILE.unreadable.
 * @returns also up to where the file is good (0: there is none), and what a rewrite would do to a damaged file.
 * @throws {Failure} when it cannot be read at all.
 */
export async function readLines(
  path: string,
  { isNew, warn }: { isNew: boolean; warn: (text: string) => void },
): Promise<{ lines: ReadLine[]; length: number; rewrite?: "repairs" | "loses" }> {
  const lines: ReadLine[] = [];
  const unreadable: { bytes: Buffer; number: number }[] = [];
  let length = 0;
  let number = 0;
  try {
    for await (const { bytes, at, isWhole } of linesOf(path)) {
      number += 1;
      const head = decodeLine(bytes)?.head;
      if (head) lines.push({ head, place: { at, length: bytes.length }, number });
      else if (bytes.length > 0) unreadable.push({ bytes, number });
      // the last line of a file that was edited may lack its newline
      if (head || isWhole) length = at + bytes.length + 1;
    }
    if (Number(lines[0]?.head["form"]) > form) throw new Error("it is of a newer version");
  } catch (error) {
    if (systemCode(error) !== "ENOENT")
      throw new Failure(`${path} cannot be read: ${messageOf(error)}; move it away, and push again what waits in it`);
    if (!isNew) warn(`${path} is missing: what waited in it is lost; push again`);
    return { lines, length };
  }
  const hasFirst = lines[0]?.head["form"] !== undefined;
  if (hasFirst) lines.shift();
  if (number === 0) warn(`${path} is empty: what waited in it is lost; push again`);
  else if (!hasFirst && unreadable[0]?.number !== 1)
    warn(`${path}:1: not the first line that was written: what stood above it is lost`);
  if (unreadable.length === 0) return { lines, length, ...(!hasFirst && { rewrite: "repairs" }) };
  const text = Buffer.concat(unreadable.flatMap(({ bytes }) => [bytes, Buffer.from("\n")]));
  const problem = await appendFile(`${path}.unreadable`, text, { mode: 0o600 }).catch(messageOf);
  const numbers = unreadable.slice(0, 10).map((each) => each.number);
  const where = `${path}:${numbers.join()}${unreadable.length > 10 ? " …" : ""}`;
  const kept = problem ? `not kept aside: ${problem}` : `kept in ${path}.unreadable`;
  warn(`${where}: damaged or cut off, and left out; ${kept}`);
  return { lines, length, rewrite: problem ? "loses" : "repairs" };
}

/** The lines of a file, of any length; the last one is not whole when its newline is missing. */
async function* linesOf(path: string) {
  let rest: Buffer[] = [];
  let at = 0;
  for await (const piece of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
    let start = 0;
    for (let end; (end = piece.indexOf("\n", start)) >= 0; start = end + 1) {
      const bytes = Buffer.concat([...rest, piece.subarray(start, end)]);
      yield { bytes, at, isWhole: true };
      at += bytes.length + 1;
      rest = [];
    }
    rest.push(piece.subarray(start));
  }
  const bytes = Buffer.concat(rest);
  if (bytes.length > 0) yield { bytes, at, isWhole: false };
}
