import { createReadStream } from "node:fs";
import { appendFile } from "node:fs/promises";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { decodeLine } from "./lines.ts";

/** Where a line stands, less its newline, in bytes. A rewrite moves it. */
export interface Place {
  at: number;
  readonly length: number;
}

export interface FoundLine {
  readonly head: Record<string, unknown>;
  readonly place: Place;
  /** Counted from 1. */
  readonly number: number;
}

/** The first line of every file: one without it has lost its beginning. `form` is for later versions. */
export const firstLine = {
  about: "what hook-server accepted; edit it only while it is stopped",
  form: 1,
};
export const newline = Buffer.from("\n");
const pieceSize = 1024 * 1024;

/** What was read, up to where the file is good (0: there is none), and what a rewrite would do to it. */
interface Found {
  readonly lines: FoundLine[];
  readonly length: number;
  readonly rewrite?: "repairs" | "loses" | undefined;
}

/**
 * Read a file's lines, in order. What is damaged or missing is one line for `warn`, with file and line; what does not
 * read is kept in FILE.unreadable.
 * @throws {Failure} when it cannot be read at all.
 */
export async function readLines(
  path: string,
  { isNew, warn }: { isNew: boolean; warn: (text: string) => void },
): Promise<Found> {
  const lines: FoundLine[] = [];
  const unreadable: Buffer[] = [];
  const numbers: number[] = [];
  let length = 0;
  let number = 0;
  try {
    for await (const { line, at, isWhole } of linesOf(path)) {
      number += 1;
      const head = decodeLine(line)?.head;
      if (head) lines.push({ head, place: { at, length: line.length }, number });
      else if (line.length > 0) {
        unreadable.push(line, newline);
        numbers.push(number);
      }
      // the last line of a file that was edited may lack its newline
      if (head || isWhole) length = at + line.length + 1;
    }
    if (Number(lines[0]?.head["form"]) > firstLine.form)
      throw new Error("it is of a newer version");
  } catch (error) {
    if (systemCode(error) !== "ENOENT")
      throw new Failure(`${path} cannot be read: ${messageOf(error)}`);
    if (!isNew) warn(`${path} is missing: what waited in it is lost; push again`);
    return { lines, length };
  }
  const hasFirst = lines[0]?.head["form"] !== undefined;
  if (hasFirst) lines.shift();
  const lacksFirst = !hasFirst && numbers[0] !== 1;
  if (number === 0) warn(`${path} is empty: what waited in it is lost; push again`);
  else if (lacksFirst)
    warn(`${path}:1: not the first line that was written: what stood above it is lost`);
  if (numbers.length === 0) return { lines, length, rewrite: lacksFirst ? "repairs" : undefined };
  const where = `${path}:${numbers.slice(0, 10).join()}${numbers.length > 10 ? " …" : ""}`;
  try {
    await appendFile(`${path}.unreadable`, Buffer.concat(unreadable), { mode: 0o600 });
    warn(`${where}: damaged or cut off, and left out; kept in ${path}.unreadable`);
    return { lines, length, rewrite: "repairs" };
  } catch (error) {
    warn(`${where}: damaged or cut off, and left out; not kept aside: ${messageOf(error)}`);
    return { lines, length, rewrite: "loses" };
  }
}

/** The lines of a file, of any length; the last one is not whole when its newline is missing. */
async function* linesOf(path: string) {
  let rest: Buffer[] = [];
  let at = 0;
  for await (const piece of createReadStream(path, { highWaterMark: pieceSize })) {
    let start = 0;
    for (let end; (end = piece.indexOf(newline, start)) >= 0; start = end + 1) {
      const line = Buffer.concat([...rest, piece.subarray(start, end)]);
      yield { line, at, isWhole: true };
      at += line.length + 1;
      rest = [];
    }
    rest.push(piece.subarray(start));
  }
  const line = Buffer.concat(rest);
  if (line.length > 0) yield { line, at, isWhole: false };
}
