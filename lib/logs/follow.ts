import { closeSync, fstatSync, readSync, statSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../core/errors.ts";
import { isBeingWritten } from "../log/compress.ts";
import { markStage, parseLine, parseMark } from "../log/format.ts";
import { compareParts, type LogPart, listParts } from "../log/parts.ts";
import { lineFilter, type Selection } from "./select.ts";
import type { Printer } from "./show.ts";
import { blocksOf, chunksOf, type LogFiles, openIfThere, Source } from "./source.ts";

/** Milliseconds between two looks at a log, and after which an old part that rests lets the new one go on. */
const lookEvery = 100;
const restTime = 1000;
/** Milliseconds without a line after which it is asked whether anybody still writes. */
const silence = 3000;

export interface FollowOptions {
  /** Only this run; undefined: all, and with `untilDone` the next that starts. */
  run: string | undefined;
  selection: Selection;
  /** End with the run, with its exit code. */
  untilDone: boolean;
  signal: AbortSignal;
}

/**
 * Print what is added to a log.
 * @param position how much of the log itself was shown already.
 * @returns the exit code of the run that was waited for; 0 when it was not asked for one.
 * @throws {Failure} when the run was cut off: it has no end, and nobody writes to the log any more.
 */
export async function followLog(
  files: LogFiles,
  { run, selection, untilDone, signal }: FollowOptions,
  position: number,
  printer: Printer,
): Promise<number> {
  const runs = run === undefined ? undefined : new Set([run]);
  const filter = lineFilter({ ...selection, runs }, (selected) => printer.print(selected));
  let waitedFor = run;
  let grownAt = Date.now();
  for await (const text of addedLines(files, position, signal)) {
    if (text !== "") {
      grownAt = Date.now();
      filter(text);
      await printer.flush();
      if (!untilDone) continue;
      const { code, ...found } = findEnd(text, waitedFor);
      if (code !== undefined) return code;
      waitedFor = found.run;
    } else if (untilDone && waitedFor !== undefined && Date.now() - grownAt > silence) {
      grownAt = Date.now();
      if (!(await isBeingWritten(files.file))) {
        throw new Failure(
          `run ${waitedFor} was cut off: it has no end, and nobody writes to ${files.file} any more`,
        );
      }
    }
  }
  return 0;
}

/** The run that is waited for, once it has started, and its exit code, once it has finished. */
function findEnd(text: string, waitedFor: string | undefined): { run?: string; code?: number } {
  let run = waitedFor;
  for (const raw of text.split("\n")) {
    const line = parseLine(raw);
    const mark = line?.stage === markStage ? parseMark(line.text) : undefined;
    if (!line || !mark) continue;
    if (mark.kind === "start") run ??= line.run;
    if (mark.kind === "end" && line.run === run) return { run, code: mark.code };
  }
  return run === undefined ? {} : { run };
}

/** A file that is read as it grows. */
interface Tail {
  fd: number;
  position: number;
  /** The beginning of a line whose end has not come yet. */
  rest: Buffer;
  /** When it last grew. */
  grownAt: number;
  /** Its name leads to another file now. */
  rotated: boolean;
}

/**
 * The whole lines that are added to a log, across rotations, each once and in order. An old part is read
 * to its end until nobody writes to it any more; when it only rests, the new file is started, and the old
 * one is watched further. Gives an empty text after each look, so that the caller can end.
 */
async function* addedLines(
  { file, sources, newest }: LogFiles,
  position: number,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const live = sources.find((source) => source.isLive)?.open();
  const tails = live === undefined ? [] : [newTail(live, position)];
  /** All parts up to this one are read, or are among the tails. */
  let known = newest;
  try {
    while (!signal.aborted) {
      for (const tail of tails) yield* grown(tail);
      for (const old of tails.slice(0, -1)) if (await isFinished(old)) yield* readToEnd(old, tails);
      const current = tails.at(-1);
      if (!current || !isAt(file, current.fd)) {
        const finished = current === undefined || (await isFinished(current));
        if (finished || Date.now() - current.grownAt > restTime) {
          if (current && !current.rotated) {
            current.rotated = true;
            known = (await partOf(current.fd, file, known)) ?? known;
          }
          if (finished && current) yield* readToEnd(current, tails);
          const next = await successor(file, known);
          if (next) {
            known = next.part ?? known;
            if (next.tail) tails.push(next.tail);
            else if (next.packed)
              for await (const { bytes } of blocksOf(next.packed)) yield bytes.toString("utf8");
            next.packed?.close();
            continue;
          }
        }
      }
      yield "";
      await sleep(lookEvery, undefined, { signal }).catch(() => {});
    }
  } finally {
    // the log that was open at the start is closed with the other sources
    for (const { fd } of tails) if (fd !== live) closeSync(fd);
  }
}

function newTail(fd: number, position: number, rotated = false): Tail {
  return { fd, position, rest: Buffer.alloc(0), grownAt: Date.now(), rotated };
}

/** The whole lines that a file has got since the last look. */
function* grown(tail: Tail): Generator<string> {
  for (const chunk of chunksOf(tail.fd, tail.position)) {
    tail.position += chunk.length;
    tail.grownAt = Date.now();
    const bytes = Buffer.concat([tail.rest, chunk]);
    const end = bytes.lastIndexOf(10) + 1;
    tail.rest = bytes.subarray(end);
    if (end > 0) yield bytes.toString("utf8", 0, end);
  }
}

/** The end of a file to which nobody writes any more: its last line may lack the newline. */
function* readToEnd(tail: Tail, tails: Tail[]): Generator<string> {
  yield* grown(tail);
  if (tail.rest.length > 0) yield `${tail.rest.toString("utf8")}\n`;
  tails.splice(tails.indexOf(tail), 1);
}

/** Whether nobody writes to a file any more, whatever its name is now. */
async function isFinished({ fd }: Tail): Promise<boolean> {
  return !(await isBeingWritten(`/proc/${process.pid}/fd/${fd}`));
}

function isAt(path: string, fd: number): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  const ours = fstatSync(fd);
  return found !== undefined && found.ino === ours.ino && found.dev === ours.dev;
}

/** The part that an open file has become: the oldest of those that came after `known`, if it was not pruned. */
async function partOf(
  fd: number,
  file: string,
  known: LogPart | undefined,
): Promise<LogPart | undefined> {
  const [first] = await partsAfter(file, known);
  if (!first) return undefined;
  if (first.plain) return isAt(first.plain, fd) ? first : undefined;
  // compressed already: then only its length can tell
  const same = unpackedSize(first.packed ?? "") === fstatSync(fd).size % 2 ** 32;
  return same ? first : undefined;
}

async function partsAfter(file: string, known: LogPart | undefined): Promise<LogPart[]> {
  return (await listParts(file)).filter((part) => !known || compareParts(part, known) > 0);
}

/** RFC 1952: the last four bytes are the length before compressing, modulo 2^32. */
function unpackedSize(path: string): number | undefined {
  const fd = openIfThere(path);
  if (fd === undefined) return undefined;
  const bytes = Buffer.alloc(4);
  readSync(fd, bytes, 0, 4, Math.max(0, fstatSync(fd).size - 4));
  closeSync(fd);
  return bytes.readUInt32LE(0);
}

/** What is to be read after the files up to `known`: a part that was rotated meanwhile, or the log. */
async function successor(
  file: string,
  known: LogPart | undefined,
): Promise<{ part?: LogPart; packed?: Source; tail?: Tail } | undefined> {
  const live = openIfThere(file);
  // listed after the opening: what was rotated before it shows now
  const [part] = await partsAfter(file, known);
  if (!part && live === undefined) return undefined;
  if (!part && live !== undefined && isAt(file, live)) return { tail: newTail(live, 0) };
  if (live !== undefined) closeSync(live);
  if (!part) return successor(file, known);
  const source = new Source(part);
  const fd = source.open();
  if (fd === undefined) return { part };
  return source.packed ? { part, packed: source } : { part, tail: newTail(fd, 0, true) };
}
