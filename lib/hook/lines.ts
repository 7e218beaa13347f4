import { isUtf8 } from "node:buffer";
import { crc32 } from "node:zlib";

/**
 * A line of the store's file: `{…head,"payload":…,"sum":"1a2b3c4d"}`. Pure. The sum is the CRC-32, in hex, of all
 * bytes before `,"sum"`; a line without one was written by a person, and is taken when it is JSON. A payload that is
 * JSON in one line stands there as it came, any other text as a string: `less` shows it, and `jq` reads it.
 */
export interface Line {
  readonly head: Record<string, unknown>;
  readonly payload: Buffer | undefined;
}

// no string in a head holds these bytes: a quote in a string is escaped
const payloadMark = ',"payload":';
const sumTail = /,"sum":"([0-9a-f]{8})"\}$/;

const sumOf = (sum: number) => sum.toString(16).padStart(8, "0");

/** A line with its newline, in parts: a payload may be large, and is not copied. */
export function encodeLine(head: object, payload?: Buffer): Buffer[] {
  const start = JSON.stringify(head).slice(0, -1);
  if (!payload) return [Buffer.from(`${start},"sum":"${sumOf(crc32(start))}"}\n`)];
  const parts = [Buffer.from(start + payloadMark), asJson(payload)];
  const sum = parts.reduce((before, part) => crc32(part, before), 0);
  return [...parts, Buffer.from(`,"sum":"${sumOf(sum)}"}\n`)];
}

function asJson(payload: Buffer): Buffer {
  const isOneLine = isObject(payload) && !payload.includes("\n") && isUtf8(payload);
  return isOneLine ? payload : Buffer.from(JSON.stringify(payload.toString()));
}

function isObject(json: Buffer): boolean {
  return json[0] === 0x7b || json[0] === 0x5b;
}

/** What a line (less its newline) says; undefined: it is damaged. */
export function decodeLine(line: Buffer): Line | undefined {
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

function objectOf(text: string): Record<string, unknown> {
  const value: unknown = JSON.parse(text);
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new SyntaxError("not an object");
}
