import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { Busy, Refused } from "../core/errors.ts";
import { fsyncFolder } from "../files/files.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { emptyReport, type RotateReport, type TidyOptions, tidyParts } from "./compress.ts";
import { parseLine } from "./format.ts";
import { listParts, nextPart, statIfThere } from "./parts.ts";

/**
 * Rotation that loses no line. The log is renamed, never cut; writers notice that its name leads
 * elsewhere and go on in a new file. A part is compressed, and removed, only when nobody has it open
 * for writing; as writers check the name after each opening, nobody writes to it later on either.
 * A crash at any point leaves whole files: the next rotation goes on where this one stopped.
 */
export interface RotateOptions extends TidyOptions {
  /** Rotate a log of at least so many bytes. */
  maxSize?: number | undefined;
  /** Rotate a log whose first line is at least so many milliseconds old. */
  maxAge?: number | undefined;
}

/**
 * Rotate a log when it is due, compress the parts and remove those beyond `keep` and `maxTotal`.
 * Of two rotations at once, the second waits for the first and does not rotate again.
 * @throws {Refused} when the log is not a plain file (a link may lead anywhere).
 */
export async function rotateLog(file: string, options: RotateOptions = {}): Promise<RotateReport> {
  const report = emptyReport();
  const before = await plainFile(file);
  if (options.dryRun) {
    if (await isDue(file, options))
      report.rotated = nextPart(file, await listParts(file), new Date());
    await tidyParts(file, options, report);
    return report;
  }
  if (before === undefined && (await listParts(file)).length === 0) return report;
  const lock = await acquireLock(lockOf(file), {
    what: `logs rotate ${file}`,
    wait: true,
    signal: options.signal,
  });
  try {
    const now = await plainFile(file);
    // another file than before we waited: somebody else has just rotated
    if (now?.ino === before?.ino) await renameWhenDue(file, options, report);
    await tidyParts(file, options, report);
  } finally {
    lock.release();
  }
  return report;
}

/**
 * The same for a writer, which waits for the renaming only, and not for another rotation.
 * @returns `finish` for the rest of the work, which never throws; undefined when the log was not due.
 */
export async function startRotation(
  file: string,
  options: RotateOptions,
): Promise<{ finish(): Promise<void> } | undefined> {
  if (!(await isDue(file, options))) return undefined;
  let lock: Lock;
  try {
    lock = await acquireLock(lockOf(file), { what: `rotating ${file}` });
  } catch (error) {
    if (error instanceof Busy) return undefined;
    throw error;
  }
  const report = emptyReport();
  try {
    await renameWhenDue(file, options, report);
  } catch (error) {
    lock.release();
    throw error;
  }
  return {
    // what fails here is left to the next rotation, which tells of it
    finish: () =>
      tidyParts(file, options, report)
        .catch(() => {})
        .finally(() => lock.release()),
  };
}

function lockOf(file: string): string {
  return `${file}.lock`;
}

async function plainFile(file: string) {
  const found = await statIfThere(file);
  if (found && !found.isFile())
    throw new Refused(`${file} is not a plain file; only plain files are rotated`);
  return found;
}

/** Whether a log is to be rotated now. An empty one never is. */
async function isDue(file: string, { maxSize, maxAge }: RotateOptions): Promise<boolean> {
  const found = await plainFile(file);
  if (found === undefined || found.size === 0) return false;
  if (maxSize !== undefined && found.size >= maxSize) return true;
  return maxAge !== undefined && Date.now() - (await firstTime(file, found.birthtimeMs)) >= maxAge;
}

async function firstTime(file: string, otherwise: number): Promise<number> {
  const handle = await open(file, "r");
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(200), 0, 200, 0);
    const line = parseLine(buffer.toString("latin1", 0, bytesRead).split("\n")[0] ?? "");
    return line ? Date.parse(line.time) : otherwise;
  } finally {
    await handle.close();
  }
}

async function renameWhenDue(
  file: string,
  options: RotateOptions,
  report: RotateReport,
): Promise<void> {
  if (!(await isDue(file, options))) return;
  const part = nextPart(file, await listParts(file), new Date());
  await rename(file, part);
  await fsyncFolder(dirname(file));
  report.rotated = part;
}
