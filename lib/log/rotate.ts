import { constants, lstatSync, renameSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { atEnd } from "../core/at-exit.ts";
import { messageOf, Refused } from "../core/errors.ts";
import { fsyncFolder, readPieces, removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import { parseLine } from "./format.ts";
import { type LogPart, listParts, nextPart } from "./parts.ts";

/**
 * Rotation, by whoever has the log's lock: its one writer, or `logs rotate` where nobody writes. The log is renamed,
 * never cut; a part is compressed beside and put in its place. A crash at any point leaves whole files: the next
 * rotation goes on where this one stopped.
 */
export interface RotateOptions {
  /** Rotate a log of at least so many bytes. */
  maxSize?: number | undefined;
  /** Rotate a log whose first line is at least so many milliseconds old. */
  maxAge?: number | undefined;
  /** How many parts stay beside the log itself; default 10. */
  keep?: number | undefined;
  /** How many bytes all parts together may take; the oldest go first. */
  maxTotal?: number | undefined;
  /** Only say what would be done. */
  dryRun?: boolean | undefined;
}

export interface RotateReport {
  /** The part that the log became, if it was rotated. */
  rotated?: string;
  /** Parts that are compressed now (their names before). */
  compressed: string[];
  pruned: string[];
  /** What went wrong with single parts; the parts are unharmed. */
  problems: string[];
}

/**
 * Rename a log that is due, compress the parts that are not, and remove those that are too many.
 * @throws {Refused} when the log is not a plain file (a link may lead anywhere).
 */
export async function rotateLog(file: string, options: RotateOptions): Promise<RotateReport> {
  const { dryRun = false, keep = 10, maxTotal = Number.POSITIVE_INFINITY } = options;
  const report: RotateReport = { compressed: [], pruned: [], problems: [] };
  let parts = listParts(file);
  const prune = async (doomed: readonly LogPart[]) => {
    parts = parts.filter((part) => !doomed.includes(part));
    const paths = doomed.flatMap(filesOf);
    if (!dryRun) for (const path of paths) await rm(path, { force: true });
    report.pruned.push(...paths);
  };
  if (await isDue(file, options)) {
    const part = dryRun ? { ...nextPart(file), plain: file } : renameLog(file);
    parts.push(part);
    report.rotated = part.path;
  }
  if (!dryRun) await removeStaleTemporaries(dirname(file));
  await prune(parts.slice(0, Math.max(0, parts.length - keep)));
  for (const part of parts) {
    if (part.plain === undefined) continue;
    try {
      if (!dryRun) await compress(part.plain);
      report.compressed.push(part.plain);
      if (!dryRun) Object.assign(part, { plain: undefined, packed: `${part.path}.gz` });
    } catch (error) {
      report.problems.push(`${part.plain}: ${messageOf(error)}`);
    }
  }
  let total = 0;
  const sizes = parts.map((part) => filesOf(part).reduce((sum, path) => sum + lstatSync(path).size, 0));
  const first = sizes.findLastIndex((size) => (total += size) > maxTotal);
  await prune(parts.slice(0, first + 1));
  return report;
}

/** Rename a log to its next part. */
export function renameLog(file: string): LogPart {
  const part = nextPart(file);
  renameSync(file, part.path);
  return part;
}

/** Whether a log is to be rotated now. An empty one never is. */
async function isDue(file: string, { maxSize, maxAge }: RotateOptions): Promise<boolean> {
  const found = lstatSync(file, { throwIfNoEntry: false });
  if (found && !found.isFile()) throw new Refused(`${file} is not a plain file; only plain files are rotated`);
  if (found === undefined || found.size === 0) return false;
  if (maxSize !== undefined && found.size >= maxSize) return true;
  if (maxAge === undefined) return false;
  const log = await open(file, readPlain);
  const { buffer, bytesRead } = await log.read(Buffer.alloc(200));
  await log.close();
  const first = parseLine(buffer.toString("latin1", 0, bytesRead).split("\n")[0] ?? "");
  return Date.now() - (first ? Date.parse(first.time) : found.birthtimeMs) >= maxAge;
}

function filesOf({ plain, packed }: LogPart): string[] {
  return [plain, packed].filter((path) => path !== undefined);
}

// somebody may put a link or a pipe in a file's place while we look
const readPlain = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** `part` → `part.gz`, complete and on disk before it gets its name, and before `part` goes. */
async function compress(part: string): Promise<void> {
  const { createGzip } = await import("node:zlib");
  const temporary = temporaryBeside(`${part}.gz`);
  const forget = atEnd(() => rm(temporary, { force: true }));
  const from = await open(part, readPlain);
  try {
    const { mode, uid, gid, atime, mtime } = await from.stat();
    const to = await open(temporary, "wx", mode & 0o777);
    try {
      await pipeline(readPieces(from.fd), createGzip(), async (chunks: AsyncIterable<Buffer>) => {
        for await (const chunk of chunks) await to.appendFile(chunk);
      });
      await to.chown(uid, gid).catch(() => {});
      await to.utimes(atime, mtime);
      await to.sync();
    } finally {
      await to.close();
    }
    await rename(temporary, `${part}.gz`);
    await fsyncFolder(dirname(part));
    await rm(part);
  } finally {
    await from.close();
    await rm(temporary, { force: true });
    forget();
  }
}
