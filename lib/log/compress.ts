import { type FileHandle, lstat, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { atEnd } from "../core/at-exit.ts";
import { messageOf, systemCode } from "../core/errors.ts";
import { fsyncFolder, removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import { openAmong, writersOf } from "./holders.ts";
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
  held: string[];
  /** What went wrong with single parts; the parts are unharmed. */
  problems: string[];
}

export function emptyReport(): RotateReport {
  return { compressed: [], pruned: [], held: [], problems: [] };
}

/** A part whose writers cannot be told is taken as left when it was not written to for so long. */
const quietTime = 3_600_000;

/** Compress the parts that nobody writes to, and remove those beyond `keep` and `maxTotal`. */
export async function tidyParts(
  file: string,
  options: TidyOptions,
  report: RotateReport,
): Promise<void> {
  const { dryRun = false } = options;
  if (!dryRun) await removeStaleTemporaries(dirname(file));
  await prune(file, { ...options, maxTotal: undefined }, report);
  const gone = new Set([...report.pruned, ...report.held]);
  const plain = (await listParts(file)).flatMap((part) =>
    part.plain && !gone.has(part.plain) ? [part.plain] : [],
  );
  if (dryRun && report.rotated) plain.push(file);
  const states = await leftByWriters(plain);
  for (const [index, path] of plain.entries()) {
    if (options.signal?.aborted) return;
    if (!states[index]) report.held.push(path);
    else if (dryRun) report.compressed.push(path);
    else await compress(path, report);
  }
  await prune(file, options, report);
}

/** For each path whether it can be taken as finished. */
async function leftByWriters(paths: readonly string[]): Promise<boolean[]> {
  const states = await writersOf(paths);
  return Promise.all(
    states.map(async (state, index) => {
      if (state !== "unknown") return state === "free";
      const found = await stat(paths[index] ?? "").catch(() => undefined);
      return found !== undefined && Date.now() - found.mtimeMs > quietTime;
    }),
  );
}

/** `part` → `part.gz`, complete and on disk before it gets its name, and before `part` goes. */
async function compress(part: string, report: RotateReport): Promise<void> {
  const packed = `${part}.gz`;
  const temporary = temporaryBeside(packed);
  const forget = atEnd(() => rm(temporary, { force: true }));
  let from: FileHandle | undefined;
  let to: FileHandle | undefined;
  try {
    from = await open(part, "r");
    const { mode, uid, gid, size, atime, mtime } = await from.stat();
    to = await open(temporary, "wx", mode & 0o777);
    const bytes = await pack(from, to);
    await to.chown(uid, gid).catch(() => {});
    await to.utimes(atime, mtime);
    await to.sync();
    const [left] = await leftByWriters([part]);
    if (bytes !== size || (await lstat(part)).size !== size || !left) {
      report.held.push(part);
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

/** @returns how many bytes were read. */
async function pack(from: FileHandle, to: FileHandle): Promise<number> {
  const { createGzip } = await import("node:zlib");
  let position = 0;
  await pipeline(
    async function* () {
      for (;;) {
        const { buffer, bytesRead } = await from.read(Buffer.alloc(1 << 18), 0, 1 << 18, position);
        if (bytesRead === 0) return;
        position += bytesRead;
        yield buffer.subarray(0, bytesRead);
      }
    },
    createGzip(),
    async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) await to.appendFile(chunk);
    },
  );
  return position;
}

/** The parts that are too many, or too large together; the newest stay. Pure. */
export function planPrune(
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
  const paths = doomed.flatMap(({ plain, packed }) =>
    [plain, packed].filter((path) => path !== undefined),
  );
  const fresh = paths.filter((path) => !pruned.has(path));
  const open = await openAmong(fresh);
  const states = await writersOf(fresh);
  for (const [index, path] of fresh.entries()) {
    if (open.has(path) || states[index] === "held") {
      if (!report.held.includes(path)) report.held.push(path);
      continue;
    }
    if (!options.dryRun) await rm(path, { force: true });
    report.pruned.push(path);
  }
}
