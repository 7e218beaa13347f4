import { type FileHandle, open, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { systemCode } from "../core/errors.ts";
import { writersOf } from "../log/holders.ts";
import { compareParts, type LogPart, listParts } from "../log/parts.ts";
import { blocksOf, Source } from "./source.ts";

/** Milliseconds between two looks at a log, and after which an old part that rests lets the new one go on. */
const lookEvery = 100;
const restTime = 1000;

/** A file that is read as it grows. */
interface Tail {
  handle: FileHandle;
  position: number;
  /** The beginning of a line whose end has not come yet. */
  rest: Buffer;
  /** When it last grew. */
  grownAt: number;
  /** Its name leads to another file now. */
  rotated: boolean;
}

export interface FollowOptions {
  file: string;
  /** The open log and how much of it is known already; undefined when it is not there yet. */
  live?: { handle: FileHandle; position: number } | undefined;
  /** The newest part when the log was opened. */
  newest: LogPart | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * The whole lines that are added to a log, across rotations, each once and in order. An old part is read
 * to its end until nobody writes to it any more; when it only rests, the new file is begun, and the old
 * one is watched further. Gives an empty block after each look, so that the caller can end.
 */
export async function* follow({
  file,
  live,
  newest,
  signal,
}: FollowOptions): AsyncGenerator<Buffer> {
  const tails: Tail[] = [];
  /** All parts up to this one are read, or are among the tails. */
  let known = newest;
  if (live) tails.push(newTail(live.handle, live.position));
  try {
    while (!signal?.aborted) {
      for (const tail of tails) yield* grown(tail);
      for (const old of tails.slice(0, -1)) {
        if (await isFinished(old, file, known)) yield* ended(old, tails);
      }
      const current = tails.at(-1);
      if (!current || !(await isAt(file, current.handle))) {
        // what was written between the reading and the renaming
        if (current) yield* grown(current);
        const finished = current === undefined || (await isFinished(current, file, known));
        if (finished && current) yield* grown(current);
        if (finished || Date.now() - current.grownAt > restTime) {
          if (current && !current.rotated) {
            current.rotated = true;
            known = (await partOf(current.handle, file, known)) ?? known;
          }
          if (finished && current) yield* ended(current, tails);
          const next = await successor(file, known);
          if (next) {
            if (next.part) known = next.part;
            if (next.tail) tails.push(next.tail);
            else if (next.packed)
              for await (const block of blocksOf(next.packed)) yield block.bytes;
            await next.packed?.close();
            continue;
          }
        }
      }
      yield Buffer.alloc(0);
      await sleep(lookEvery, undefined, signal ? { signal } : {}).catch(() => {});
    }
  } finally {
    for (const { handle } of tails) await handle.close();
  }
}

function newTail(handle: FileHandle, position: number): Tail {
  return { handle, position, rest: Buffer.alloc(0), grownAt: Date.now(), rotated: false };
}

/** The whole lines that a file has got since the last look. */
async function* grown(tail: Tail): AsyncGenerator<Buffer> {
  for (;;) {
    const buffer = Buffer.allocUnsafe(1 << 18);
    const { bytesRead } = await tail.handle.read(buffer, 0, buffer.length, tail.position);
    if (bytesRead === 0) return;
    tail.position += bytesRead;
    tail.grownAt = Date.now();
    const bytes = Buffer.concat([tail.rest, buffer.subarray(0, bytesRead)]);
    const end = bytes.lastIndexOf(10) + 1;
    tail.rest = bytes.subarray(end);
    if (end > 0) yield bytes.subarray(0, end);
  }
}

/** The end of a file to which nobody writes any more: its last line may lack the newline. */
async function* ended(tail: Tail, tails: Tail[]): AsyncGenerator<Buffer> {
  yield* grown(tail);
  if (tail.rest.length > 0) yield Buffer.concat([tail.rest, Buffer.from("\n")]);
  tails.splice(tails.indexOf(tail), 1);
  await tail.handle.close();
}

async function isAt(path: string, handle: FileHandle): Promise<boolean> {
  const there = await stat(path).catch(() => undefined);
  const ours = await handle.stat();
  return there !== undefined && there.ino === ours.ino && there.dev === ours.dev;
}

/** Whether nobody writes to a rotated file any more. */
async function isFinished(tail: Tail, file: string, known: LogPart | undefined): Promise<boolean> {
  // a part is removed only when it was compressed or pruned, and both only when nobody writes to it
  if ((await tail.handle.stat()).nlink === 0) return true;
  for (const { plain } of await listParts(file)) {
    if (plain && (await isAt(plain, tail.handle))) return (await writersOf([plain]))[0] === "free";
  }
  return known === undefined && Date.now() - tail.grownAt > 10 * restTime;
}

/** The part that an open file has become: the oldest of those that came after `known`, if it was not pruned. */
async function partOf(
  handle: FileHandle,
  file: string,
  known: LogPart | undefined,
): Promise<LogPart | undefined> {
  const [first] = await partsAfter(file, known);
  if (!first) return undefined;
  if (first.plain) return (await isAt(first.plain, handle)) ? first : undefined;
  // compressed already: then only its length can tell
  const { size } = await handle.stat();
  return (await unpackedSize(first.packed ?? "")) === size % 2 ** 32 ? first : undefined;
}

async function partsAfter(file: string, known: LogPart | undefined): Promise<LogPart[]> {
  return (await listParts(file)).filter((part) => !known || compareParts(part, known) > 0);
}

/** RFC 1952: the last four bytes are the length before compressing, modulo 2^32. */
async function unpackedSize(path: string): Promise<number | undefined> {
  const handle = await open(path, "r").catch(() => undefined);
  if (!handle) return undefined;
  try {
    const { size } = await handle.stat();
    const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, Math.max(0, size - 4));
    return buffer.readUInt32LE(0);
  } finally {
    await handle.close();
  }
}

/** What is to be read after the files up to `known`: a part that was rotated meanwhile, or the log. */
async function successor(
  file: string,
  known: LogPart | undefined,
): Promise<{ part?: LogPart; packed?: Source; tail?: Tail } | undefined> {
  const handle = await open(file, "r").catch((error) => {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  });
  // listed after the opening: what was rotated before it shows now
  const [part] = await partsAfter(file, known);
  if (!part) {
    if (!handle) return undefined;
    if (await isAt(file, handle)) return { tail: newTail(handle, 0) };
    await handle.close();
    return successor(file, known);
  }
  await handle?.close();
  const source = new Source(part);
  const opened = await source.handle();
  if (!opened) return { part };
  if (source.packed) return { part, packed: source };
  const tail = newTail(opened, 0);
  tail.rotated = true;
  return { part, tail };
}
