import { randomBytes } from "node:crypto";
import { lstatSync, read, readFileSync } from "node:fs";
import { lstat, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { atEnd } from "../core/at-exit.ts";
import { ifMissing, systemCode } from "../core/errors.ts";

/**
 * Files are replaced in one step: write beside, fsync, rename, fsync of the folder (rename(2), fsync(2)).
 * A reader sees the old content or the new one, also after a crash.
 */

/** A name for a temporary file in the folder of `path`; it tells whose it is, so that a later start can tidy up. */
export function temporaryBeside(path: string): string {
  return join(dirname(path), `.${basename(path)}.tmp-${process.pid}-${randomBytes(4).toString("hex")}`);
}

const temporaryName = /^\..+\.tmp-(\d+)-[0-9a-f]{8}$/;

/**
 * Replace a file's content in one step.
 * @param mode the permissions of the new file; default: those of the old one, else 666 less the umask. In the place
 * of a link: those of what it leads to, but never more than 666 less the umask.
 * @param durable false: without fsync, where a power cut may take the change back (a killed process does not).
 */
export async function writeAtomic(
  path: string,
  data: string | Uint8Array,
  { mode, durable = true }: { mode?: number; durable?: boolean } = {},
): Promise<void> {
  const temporary = temporaryBeside(path);
  const forget = atEnd(() => rm(temporary, { force: true }));
  try {
    const kept = mode ?? (await stat(path).catch(() => undefined))?.mode;
    const isLink = mode === undefined && (await lstat(path).catch(() => undefined))?.isSymbolicLink();
    const file = await open(temporary, "wx", mode ?? 0o666);
    try {
      if (kept !== undefined) {
        // a link may lead to what everybody may write, as /tmp
        const most = isLink ? (await file.stat()).mode : 0o777;
        await file.chmod(kept & most & 0o777);
      }
      await file.writeFile(data);
      if (durable) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    forget();
  }
  if (durable) await fsyncFolder(dirname(path));
}

/**
 * Make a folder, and those above it that are missing. Not by Node's `recursive`: that tries without end where a file
 * system takes no folders, as /proc.
 * @throws the system's error; ENOTDIR or EEXIST: a file is in the way
 */
export async function makeFolder(path: string): Promise<void> {
  const makeOne = () =>
    mkdir(path).catch(async (error: unknown) => {
      if (systemCode(error) !== "EEXIST" || !(await stat(path)).isDirectory()) throw error;
    });
  try {
    await makeOne();
  } catch (error) {
    const parent = dirname(path);
    if (systemCode(error) !== "ENOENT" || parent === path) throw error;
    await makeFolder(parent);
    await makeOne();
  }
}

/** Make what was renamed or created in a folder survive a power cut. */
export async function fsyncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Remove temporary files and folders that a killed process of ours left in `folder`. */
export async function removeStaleTemporaries(folder: string): Promise<void> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names) {
    const owner = Number(temporaryName.exec(name)?.[1] ?? 0);
    if (owner > 0 && !isRunning(owner)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

/** Whether there is a process of this number. */
export function isRunning(pid: number): boolean {
  if (pid <= 0) return false;
  if (pid === process.pid) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === "EPERM";
  }
}

/**
 * A small file's text, or undefined when there is none. Other errors are thrown. It is read at once,
 * which takes some 30 µs: through the pool of threads it would be four trips, and ten times that.
 */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    // Node does not say which folder was read as a file
    throw Object.assign(error as Error, { path });
  }
}

/** Whether something stands at `path`, a dangling link included. */
export async function exists(path: string): Promise<boolean> {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch (error) {
    ifMissing(error);
    return false;
  }
}

/** Whether one at least of these is in a folder. */
export async function existsAny(folder: string, names: readonly string[]): Promise<boolean> {
  const found = await Promise.all(names.map((name) => exists(join(folder, name))));
  return found.includes(true);
}

const readAt = promisify(read);
const pieceSize = 1024 * 1024;

/** The bytes of an open file from its start. The descriptor stays open, which a stream of it would close. */
export async function* readPieces(fd: number): AsyncGenerator<Buffer> {
  for (let position = 0; ; ) {
    const { bytesRead, buffer } = await readAt(fd, Buffer.allocUnsafe(pieceSize), 0, pieceSize, position);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
    position += bytesRead;
  }
}
