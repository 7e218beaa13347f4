import { closeSync, constants, fstatSync, openSync, readSync, statSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ifMissing, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { type LogPart, listParts, stampOf } from "../log/parts.ts";

/** A log with its rotated parts, as they were at one instant. */
export interface LogFiles {
  file: string;
  /** The parts, the oldest first, then the log itself where it is there. */
  sources: Source[];
  /** Tells once of each part that is damaged; what could be read of it counts. */
  onDamage: OnDamage;
}

/** A part, or the log itself, which is open: it can be read on while it is renamed or removed. */
export type Source = LogPart | { path: string; fd: number };

/** A place in a log: which of its files, and how many (uncompressed) bytes into it. */
export interface Place {
  source: number;
  offset: number;
}

type OnDamage = (path: string, error: unknown) => void;

/**
 * The log of a folder, or the file itself when a file is named.
 * @throws {UsageError} when there is neither.
 */
export async function logFileOf(path: string): Promise<string> {
  const found = await stat(path).catch(ifMissing);
  if (found?.isDirectory()) return join(path, "logs.txt");
  if (found?.isFile() || (await stat(dirname(path)).catch(ifMissing))) return path;
  throw new UsageError(`${path} is neither a folder nor a log; name the checkout whose log you want`);
}

/**
 * The same for a log that cannot come later: a folder may have none yet, but a file that is named is there, or one of
 * its rotated parts is.
 * @throws {UsageError} when it is not, with the name that was meant.
 */
export async function existingLogOf(path: string): Promise<string> {
  const file = await logFileOf(path);
  if (file !== path || (await stat(path).catch(ifMissing)) || listParts(file).length > 0) return file;
  const meant = didYouMean(basename(path), await readdir(dirname(path)));
  throw new UsageError(`there is no ${path}${meant}; name a checkout, or its logs.txt`);
}

/** Open a log and list its parts, all of one instant. */
export function openLogFiles(file: string, warn: (line: string) => void): LogFiles {
  const damaged = new Set<string>();
  const onDamage = (path: string, error: unknown) => {
    if (!damaged.has(path)) warn(`${path} is damaged, its end is missing here: ${messageOf(error)}`);
    damaged.add(path);
  };
  for (;;) {
    const fd = openIfThere(file);
    const sources: Source[] = listParts(file);
    if (fd === undefined) return { file, sources, onDamage };
    // rotated in between: the file that is open here would be listed a second time, as a part
    if (isAt(file, fd)) return { file, sources: [...sources, { path: file, fd }], onDamage };
    closeSync(fd);
  }
}

/** Open a plain file for reading; undefined when there is none. A pipe in its place is not waited for. */
export function openIfThere(path: string): number | undefined {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
  }
  return undefined;
}

/** Whether a name leads to an open file. */
export function isAt(path: string, fd: number): boolean {
  const [there, ours] = [statSync(path, { throwIfNoEntry: false }), fstatSync(fd)];
  return there?.ino === ours.ino && there.dev === ours.dev;
}

/** The whole lines of a log from a place on, as texts of many; the last one may lack its newline. */
export async function* readLog(
  { sources, onDamage }: LogFiles,
  { from = { source: 0, offset: 0 }, to = sources.length - 1, since }: ReadOptions,
): AsyncGenerator<string> {
  for (let index = from.source; index <= to; index += 1) {
    const source = sources[index] as Source;
    // a part's name tells when it was rotated: all its lines are older
    if (since !== undefined && "stamp" in source && source.stamp < stampOf(new Date(since))) continue;
    const offset = index === from.source ? from.offset : 0;
    for await (const { bytes } of blocksOf(source, onDamage, offset)) yield bytes.toString("utf8");
  }
}

export interface ReadOptions {
  from?: Place | undefined;
  /** The last of the files to be read. */
  to?: number | undefined;
  /** No line of interest is older. */
  since?: string | undefined;
}

/** Whole lines of a file. */
export interface Block {
  bytes: Buffer;
  /** Where they start, in uncompressed bytes. */
  offset: number;
}

/** A line longer than this is read as several: no string could hold it. */
const maxLine = 1 << 28;

/** The lines of a source from an offset at which a line starts, in blocks. The last line may lack its newline. */
export async function* blocksOf(source: Source, onDamage: OnDamage, from = 0): AsyncGenerator<Block> {
  let offset = from;
  let rest: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunksOf(source, onDamage, from)) {
    const end = chunk.lastIndexOf(10) + 1;
    if (end === 0 && length + chunk.length < maxLine) {
      rest.push(chunk);
      length += chunk.length;
      continue;
    }
    const cut = end === 0 ? chunk.length : end;
    const bytes = Buffer.concat([...rest, chunk.subarray(0, cut)]);
    rest = [chunk.subarray(cut)];
    length = chunk.length - cut;
    yield { bytes, offset };
    offset += bytes.length;
  }
  if (length > 0) yield { bytes: Buffer.concat(rest), offset };
}

async function* chunksOf(source: Source, onDamage: OnDamage, from: number): AsyncGenerator<Buffer> {
  if ("fd" in source) return yield* bytesOf(source.fd, from);
  // a part may be compressed, or removed, since it was listed
  const plain = openIfThere(source.path);
  const fd = plain ?? openIfThere(`${source.path}.gz`);
  if (fd === undefined) return;
  try {
    yield* plain === undefined ? unpacked(fd, from) : bytesOf(fd, from);
  } catch (error) {
    onDamage(plain === undefined ? `${source.path}.gz` : source.path, error);
  } finally {
    closeSync(fd);
  }
}

/** Texts of this size are made and freed cheaply; V8 keeps larger ones in pages of their own. */
const chunkSize = 1 << 16;

/** The bytes of an open file from a position on. */
export function* bytesOf(fd: number, position: number): Generator<Buffer> {
  for (let at = position; ; ) {
    const buffer = Buffer.allocUnsafe(chunkSize);
    const count = readSync(fd, buffer, 0, chunkSize, at);
    if (count === 0) return;
    at += count;
    yield buffer.subarray(0, count);
  }
}

async function* unpacked(fd: number, from: number): AsyncGenerator<Buffer> {
  let skip = from;
  // only where it is needed: loading it is a part of the start that one notices
  const { createGunzip } = await import("node:zlib");
  const { pipeline } = await import("node:stream");
  const gunzip = createGunzip({ chunkSize });
  pipeline(bytesOf(fd, 0), gunzip, () => {});
  for await (const chunk of gunzip as AsyncIterable<Buffer>) {
    if (skip < chunk.length) yield chunk.subarray(skip);
    skip = Math.max(0, skip - chunk.length);
  }
}
