import { fstatSync, readSync } from "node:fs";
import { parseLine } from "../log/format.ts";
import type { Place } from "./runs.ts";
import { lineFilter, type SelectedLine, type Selection } from "./select.ts";
import { blocksBackwards, blocksOf, type LogFiles, type Source } from "./source.ts";

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
 * The selected lines of a log, oldest first; what is later than the selection wants is not read.
 * @returns how many bytes of the log itself were read as whole lines: where following goes on.
 */
export async function readLines(
  { sources }: LogFiles,
  selection: Selection,
  choose: (selected: SelectedLine) => void,
  { from = { source: 0, offset: 0 }, to, onDamage, whole, afterBlock }: ReadOptions = {},
): Promise<number> {
  const filter = lineFilter(selection, choose);
  let read = 0;
  let isOver = false;
  for (
    let index = from.source;
    index <= (to?.source ?? sources.length - 1) && !isOver;
    index += 1
  ) {
    const source = sources[index];
    if (!source || isOlder(source, selection.since)) continue;
    let offset = index === from.source ? from.offset : 0;
    if (offset === 0 && selection.since !== undefined) offset = offsetOf(source, selection.since);
    const last = index === to?.source ? to.offset : Number.POSITIVE_INFINITY;
    try {
      for await (const block of blocksOf(source, offset)) {
        let bytes = upTo(block.bytes, last - block.offset);
        if (whole && source.isLive) bytes = bytes.subarray(0, bytes.lastIndexOf(10) + 1);
        const isDue = filter(bytes.toString("utf8"));
        if (source.isLive) read = block.offset + bytes.length;
        await afterBlock?.();
        isOver = !isDue && isLater(bytes, selection.until);
        if (isOver || last < block.offset + block.bytes.length) break;
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

/** Lines of several writers may stand somewhat out of the order of their times: in ms. */
const disorder = 10_000;

function safelyBefore(time: string): Date {
  return new Date(Date.parse(time) - disorder);
}

/** Whether a block begins safely after a time: all that follows does so, too. */
function isLater(bytes: Buffer, until: string | undefined): boolean {
  if (until === undefined) return false;
  const first = bytes.subarray(0, bytes.indexOf(10) + 1 || bytes.length).toString("utf8");
  const time = parseLine(first.trimEnd())?.time;
  return time !== undefined && time > new Date(Date.parse(until) + disorder).toISOString();
}

/** A part's name tells when it was rotated: all its lines are older. */
function isOlder({ stamp }: Source, since: string | undefined): boolean {
  if (!stamp || since === undefined) return false;
  return (
    stamp <
    safelyBefore(since)
      .toISOString()
      .replace(/[-:]|\.\d+/g, "")
  );
}

/** Where the lines since a time start, found by halving; somewhat before it rather than after it. */
function offsetOf(source: Source, since: string): number {
  const fd = source.open();
  if (fd === undefined || source.packed) return 0;
  const wanted = safelyBefore(since).toISOString();
  let low = 0;
  let high = fstatSync(fd).size;
  const bytes = Buffer.alloc(1 << 16);
  const textAt = (place: number) =>
    bytes.toString("latin1", 0, readSync(fd, bytes, 0, bytes.length, place));
  while (high - low > bytes.length) {
    const middle = Math.floor((low + high) / 2);
    const lines = textAt(middle).split("\n").slice(1, -1);
    const time = lines.map((line) => parseLine(line)?.time).find((found) => found !== undefined);
    // without a line of ours to go by there is nothing to halve
    if (time === undefined) break;
    if (time < wanted) low = middle;
    else high = middle;
  }
  const newline = low === 0 ? -1 : textAt(low).indexOf("\n");
  return newline < 0 ? 0 : low + newline + 1;
}

/**
 * A place from which at least `count` selected lines follow, or `from`, when there are not so many.
 * Saves reading a long log for its last lines.
 */
export function placeBefore(
  { sources }: LogFiles,
  selection: Selection,
  count: number,
  from: Place = { source: 0, offset: 0 },
): Place {
  let found = 0;
  const filter = lineFilter({ ...selection, before: 0, after: 0 }, () => {
    found += 1;
  });
  for (let index = sources.length - 1; index >= from.source; index -= 1) {
    const source = sources[index];
    source?.open();
    // a compressed part is read forwards anyway
    if (!source || source.packed) return index > from.source ? { source: index, offset: 0 } : from;
    for (const block of blocksBackwards(source)) {
      if (index === from.source && block.offset <= from.offset) return from;
      if (isLater(block.bytes, selection.until)) continue;
      filter(block.bytes.toString("utf8"));
      if (found >= count) return { source: index, offset: block.offset };
    }
  }
  return from;
}
