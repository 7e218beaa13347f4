import { constants } from "node:fs";
import { type FileHandle, lstat, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { atEnd } from "../core/at-exit.ts";
import { messageOf, systemCode } from "../core/errors.ts";
import {
  fsyncFolder,
  readPieces,
  removeStaleTemporaries,
  temporaryBeside,
} from "../files/files.ts";
import { type LogPart, listParts, statIfThere } from "./parts.ts";

/** What happens to the parts that rotation has made. */
export interface TidyOptions {
  /** How many parts stay beside the log itself; default 10. */
  keep?: number | undefined;
  /** How many bytes all parts together may take; the oldest go first. */
  maxTotal?: number | undefined;
  /** Only say what would be done. */
  dryRun?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export interface RotateReport {
  /** The part that the log became, if it was rotated. */
  rotated?: string;
  /** Parts that are compressed now (their names before). */
  compressed: string[];
  pruned: string[];
  /** Parts that somebody still writes to, or has open: they stay as they are until the next time. */
  inUse: string[];
  /** What went wrong with single parts; the parts are unharmed. */
  problems: string[];
}

export function emptyReport(): RotateReport {
  return { compressed: [], pruned: [], inUse: [], problems: [] };
}

/** Compress the parts that nobody writes to, and remove those beyond `keep` and `maxTotal`. */
export async function tidyParts(
  file: string,
  options: TidyOptions,
  report: RotateReport,
): Promise<void> {
  const { dryRun = false } = options;
  if (!dryRun) await removeStaleTemporaries(dirname(file));
  await prune(file, { ...options, maxTotal: undefined }, report);
  const gone = new Set([...report.pruned, ...report.inUse]);
  const plain = (await listParts(file)).flatMap((part) =>
    part.plain && !gone.has(part.plain) ? [part.plain] : [],
  );
  if (dryRun && report.rotated) plain.push(file);
  const written = await areInUse(plain, "writers");
  for (const [index, path] of plain.entries()) {
    if (options.signal?.aborted) return;
    if (written[index]) report.inUse.push(path);
    else if (dryRun) report.compressed.push(path);
    else await compress(path, report);
  }
  await prune(file, options, report);
}

/** `part` → `part.gz`, complete and on disk before it gets its name, and before `part` goes. */
async function compress(part: string, report: RotateReport): Promise<void> {
  const packed = `${part}.gz`;
  const temporary = temporaryBeside(packed);
  const forget = atEnd(() => rm(temporary, { force: true }));
  let from: FileHandle | undefined;
  let to: FileHandle | undefined;
  try {
    // somebody may put a link or a pipe in its place while we look
    const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
    from = await open(part, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const { mode, uid, gid, size, atime, mtime } = await from.stat();
    to = await open(temporary, "wx", mode & 0o777);
    await pack(from, to);
    await to.chown(uid, gid).catch(() => {});
    await to.utimes(atime, mtime);
    await to.sync();
    if ((await isBeingWritten(part)) || (await lstat(part)).size !== size) {
      report.inUse.push(part);
      return;
    }
    await rename(temporary, packed);
    await fsyncFolder(dirname(part));
    await rm(part);
    report.compressed.push(part);
  } catch (error) {
    // a part that another one removed needs no compressing
    if (systemCode(error) !== "ENOENT") report.problems.push(`${part}: ${messageOf(error)}`);
  } finally {
    await from?.close();
    await to?.close();
    await rm(temporary, { force: true });
    forget();
  }
}

async function pack(from: FileHandle, to: FileHandle): Promise<void> {
  const { createGzip } = await import("node:zlib");
  await pipeline(readPieces(from.fd), createGzip(), async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) await to.appendFile(chunk);
  });
}

/** The parts that are too many, or too large together; the newest stay. Pure. */
function planPrune(
  parts: readonly (LogPart & { size: number })[],
  { keep = 10, maxTotal = Number.POSITIVE_INFINITY }: Pick<TidyOptions, "keep" | "maxTotal">,
): LogPart[] {
  let count = 0;
  let total = 0;
  const newestFirst = [...parts].reverse();
  return newestFirst
    .filter(({ size }) => {
      count += 1;
      total += size;
      return count > keep || total > maxTotal;
    })
    .reverse();
}

async function prune(file: string, options: TidyOptions, report: RotateReport): Promise<void> {
  const parts = await listParts(file);
  const sized = await Promise.all(
    parts.map(async (part) => {
      const sizes = await Promise.all(
        [part.plain, part.packed].map(async (path) =>
          path ? ((await statIfThere(path))?.size ?? 0) : 0,
        ),
      );
      return { ...part, size: (sizes[0] ?? 0) + (sizes[1] ?? 0) };
    }),
  );
  // in a dry run the log itself counts as the part that it would become
  const spare = options.dryRun && report.rotated ? 1 : 0;
  const pruned = new Set(report.pruned);
  const doomed = planPrune(sized, { ...options, keep: Math.max(0, (options.keep ?? 10) - spare) });
  const paths = doomed
    .flatMap(({ plain, packed }) => [plain, packed])
    .filter((path) => path !== undefined && !pruned.has(path)) as string[];
  const inUse = await areInUse(paths, "anybody");
  for (const [index, path] of paths.entries()) {
    if (inUse[index]) {
      if (!report.inUse.includes(path)) report.inUse.push(path);
      continue;
    }
    if (!options.dryRun) await rm(path, { force: true });
    report.pruned.push(path);
  }
}

// O_NONBLOCK is 2048, F_SETLEASE 1024, F_RDLCK 0, F_WRLCK 1 and EAGAIN 11 on every Linux; the lease ends with perl
const askForLeases =
  'my $type = 0 + shift; for (@ARGV) { my $f; print sysopen($f, $_, 2048) && fcntl($f, 1024, $type) ? "free\n" : $! == 11 ? "in use\n" : "unknown\n" }';

/** A file whose users cannot be told is taken as finished when it was not written to for so long, in milliseconds. */
const quietTime = 3_600_000;

/**
 * For each path whether somebody has that file open for writing, or at all. The kernel is asked, by a
 * lease (fcntl(2), F_SETLEASE): it is given for reading only when nobody has the file open for writing,
 * for writing only when nobody has it open at all, whoever that is and in whichever container, and also
 * when it is a plain `>>` of a shell that knows nothing of locks. Neither Node nor flock(1) can ask for
 * one; perl, which is part of every Debian, can. /proc would not do: it shows an ordinary user nothing of
 * what other users have open.
 */
async function areInUse(paths: readonly string[], by: "writers" | "anybody"): Promise<boolean[]> {
  if (paths.length === 0) return [];
  // only where it is needed: loading it is a part of the start that one notices
  const { $ } = await import("../exec/exec.ts");
  const type = by === "writers" ? "0" : "1";
  const quiet = $({ nothrow: true, timeout: 10_000 });
  const { stdout } = await quiet`perl -e ${askForLeases} -- ${type} ${paths}`;
  const answers = stdout.split("\n");
  return Promise.all(
    paths.map(async (path, index) => {
      if (answers[index] === "free") return false;
      if (answers[index] === "in use") return true;
      // no perl, no leases on this file system, or the file is another user's
      const found = await stat(path).catch(() => undefined);
      return found !== undefined && Date.now() - found.mtimeMs < quietTime;
    }),
  );
}

/** Whether somebody has a log, or a part of one, open for writing. */
export async function isBeingWritten(path: string): Promise<boolean> {
  return (await areInUse([path], "writers"))[0] ?? false;
}
