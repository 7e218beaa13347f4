import { stat } from "node:fs/promises";
import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { parseLine } from "../log/format.ts";
import { statIfThere } from "../log/parts.ts";
import type { Place } from "./runs.ts";
import { type Chosen, lineFilter, type Selection } from "./select.ts";
import { blocksBackwards, blocksOf, type LogFiles, type Source } from "./source.ts";

/** The log of a folder, or the file itself when a file is named. */
export async function logFileOf(place: string): Promise<string> {
  const found = await stat(place).catch(() => undefined);
  if (found?.isDirectory()) return join(place, "logs.txt");
  if (found?.isFile() || (await statIfThere(join(place, "..")).catch(() => undefined)))
    return place;
  throw new UsageError(
    `${place} is neither a folder nor a log; name the checkout whose log you want`,
  );
}

export interface ReadOptions {
  from?: Place | undefined;
  /** The last line of interest; it is read to its end. */
  to?: Place | undefined;
  onDamage?: ((path: string, error: unknown) => void) | undefined;
  /** Leave out a last line of the log itself that has no newline yet. */
  whole?: boolean | undefined;
  /** After each block; a promise makes the reading wait. */
  afterBlock?: (() => Promise<void> | undefined) | undefined;
}

/**
 * The chosen lines of a log, oldest first.
 * @returns how many bytes of the log itself were read as whole lines: where following goes on.
 */
export async function readLines(
  { sources }: LogFiles,
  selection: Selection,
  choose: (chosen: Chosen) => void,
  { from = { source: 0, offset: 0 }, to, onDamage, whole, afterBlock }: ReadOptions = {},
): Promise<number> {
  const filter = lineFilter(selection, choose);
  let read = 0;
  for (let index = from.source; index <= (to?.source ?? sources.length - 1); index += 1) {
    const source = sources[index];
    if (!source || isOlder(source, selection.since)) continue;
    let offset = index === from.source ? from.offset : 0;
    if (offset === 0 && selection.since !== undefined)
      offset = await offsetOfTime(source, selection.since);
    const last = index === to?.source ? to.offset : Number.POSITIVE_INFINITY;
    try {
      for await (const block of blocksOf(source, offset)) {
        const wanted = upTo(block.bytes, last - block.offset);
        const bytes =
          whole && source.isLive ? wanted.subarray(0, wanted.lastIndexOf(10) + 1) : wanted;
        filter(bytes);
        if (source.isLive) read = block.offset + bytes.length;
        await afterBlock?.();
        if (last < block.offset + block.bytes.length) break;
      }
    } catch (error) {
      if (!onDamage) throw error;
      onDamage(source.path, error);
    }
  }
  return read;
}

/** The bytes up to the end of the line in which `last` lies. */
function upTo(bytes: Buffer, last: number): Buffer {
  if (last >= bytes.length) return bytes;
  const newline = bytes.indexOf(10, Math.max(0, last));
  return newline < 0 ? bytes : bytes.subarray(0, newline + 1);
}

/** Milliseconds: lines of several writers may stand that much out of the order of their times. */
const disorder = 10_000;

/** A part's name tells when it was rotated: all its lines are older. */
function isOlder({ stamp }: Source, since: string | undefined): boolean {
  if (!stamp || since === undefined) return false;
  const sinceStamp = new Date(Date.parse(since) - disorder)
    .toISOString()
    .replace(/[-:]|\.\d+/g, "");
  return stamp < sinceStamp;
}

/** Where the lines since a time begin, found by halving; somewhat before it rather than after it. */
async function offsetOfTime(source: Source, since: string): Promise<number> {
  const handle = await source.handle();
  if (!handle || source.packed) return 0;
  const wanted = new Date(Date.parse(since) - disorder).toISOString();
  let low = 0;
  let high = (await handle.stat()).size;
  const bytes = Buffer.alloc(1 << 16);
  while (high - low > bytes.length) {
    const middle = Math.floor((low + high) / 2);
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, middle);
    const lines = bytes.toString("latin1", 0, bytesRead).split("\n").slice(1, -1);
    const time = lines.map((line) => parseLine(line)?.time).find((found) => found !== undefined);
    // without a line of ours to go by there is nothing to halve
    if (time === undefined) return low;
    if (time < wanted) low = middle;
    else high = middle;
  }
  if (low === 0) return 0;
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, low);
  const newline = bytes.subarray(0, bytesRead).indexOf(10);
  return newline < 0 ? 0 : low + newline + 1;
}

/**
 * A place from which at least `count` chosen lines follow, or `from`, when there are not so many.
 * Saves reading a long log for its last lines.
 */
export async function placeBefore(
  { sources }: LogFiles,
  selection: Selection,
  count: number,
  from: Place = { source: 0, offset: 0 },
): Promise<Place> {
  let found = 0;
  const filter = lineFilter({ ...selection, before: 0, after: 0 }, () => {
    found += 1;
  });
  for (let index = sources.length - 1; index > from.source - 1; index -= 1) {
    const source = sources[index];
    await source?.handle();
    // a compressed part is read forwards anyway
    if (!source || source.packed) return index > from.source ? { source: index, offset: 0 } : from;
    for await (const block of blocksBackwards(source)) {
      if (index === from.source && block.offset <= from.offset) return from;
      filter(block.bytes);
      if (found >= count) return { source: index, offset: block.offset };
    }
  }
  return from;
}
