import { createHash } from "node:crypto";
import { type BigIntStats, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { sep } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, Refused, systemCode, UsageError } from "../core/errors.ts";

/** The files of the folder that is published, and what they hold. */

/** A file that is to be published. */
export interface LocalFile {
  /** Within the folder, parts joined by `/`. */
  path: string;
  /** Where it is read, absolute. */
  file: string;
  /** Bytes. */
  size: number;
  executable: boolean;
  stamp: Stamp;
}

/**
 * All files of a folder, in the order of their paths. Links are followed as long as they stay inside.
 * @throws {UsageError} when there is no such folder.
 * @throws {Refused} when a link leads out of the folder, in a circle or nowhere, or a name or kind of file cannot be published.
 */
export function scanFolder(root: string): LocalFile[] {
  let real: string;
  try {
    real = realpathSync(root);
    if (!statSync(real).isDirectory())
      throw new UsageError(`${root} is not a folder; correct from:`);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new UsageError(
      `there is no folder ${root}; build first, or correct from: in uploads.yml`,
    );
  }
  const files: LocalFile[] = [];
  const problems: string[] = [];
  // sync: for thousands of small calls the way through the thread pool costs several times the work
  const visit = (folder: string, path: string, above: readonly string[]) => {
    for (const name of readdirSync(folder)) {
      const file = `${folder}${sep}${name}`;
      const itsPath = path === "" ? name : `${path}/${name}`;
      const shown = JSON.stringify(itsPath);
      if (name.includes("\ufffd")) {
        problems.push(`${shown}: the name is not UTF-8; rename it`);
        continue;
      }
      let stat = lstatSync(file, { bigint: true });
      let target = file;
      if (stat.isSymbolicLink()) {
        const followed = follow(file, real);
        if (typeof followed === "string") {
          problems.push(`${shown}: ${followed}`);
          continue;
        }
        ({ stat, target } = followed);
      }
      if (stat.isDirectory()) {
        const place = realpathSync(target);
        if (above.includes(place) || place === real)
          problems.push(`${shown}: the link leads back to a folder that holds it; remove it`);
        else visit(file, itsPath, [...above, place]);
      } else if (stat.isFile()) {
        const executable = (stat.mode & 0o100n) !== 0n;
        files.push({
          ...{ path: itsPath, file, size: Number(stat.size), executable, stamp: stampOf(stat) },
        });
      } else {
        problems.push(`${shown}: neither a file nor a folder; remove it`);
      }
    }
  };
  visit(real, "", []);
  if (problems.length > 0)
    throw new Refused(problems.map((problem) => `cannot publish ${problem}`).join("\n"));
  return files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

/** The first file that is no longer what it was when the folder was scanned. */
export function changedSince(files: readonly LocalFile[]): LocalFile | undefined {
  return files.find(({ file, stamp }) => {
    const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
    return !stat || stampOf(stat) !== stamp;
  });
}

function follow(link: string, root: string): { stat: BigIntStats; target: string } | string {
  let target: string;
  try {
    target = realpathSync(link);
  } catch (error) {
    return systemCode(error) === "ELOOP"
      ? "the link leads in a circle; remove it"
      : "the link leads nowhere; remove it";
  }
  if (target !== root && !target.startsWith(root + sep))
    return `the link leads out of the folder, to ${target}; copy what it names, or remove it`;
  return { stat: statSync(target, { bigint: true }), target };
}

/**
 * What the file system says of a file's content: as long as it is equal, the content is. A program can set back
 * the size and the modification time, but not the change time.
 *
 * But two changes within one tick of the file system's clock leave one change time: a stamp proves nothing about
 * a content that was read within the tick of its change (git calls such files racy: racy-git.txt).
 */
export type Stamp = string;

/** The stamp: size, modification time, change time (both in ns), inode. */
function stampOf(stat: BigIntStats): Stamp {
  return `${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.ino}`;
}

/** The change time in a stamp, in ns since 1970. */
function changeTimeOf(stamp: Stamp): bigint {
  return BigInt(stamp.split(" ")[2] ?? "0");
}

/** In ms: 10 at most on Linux; a second or two where times are whole seconds. */
function tickOf(stamp: Stamp): number {
  return changeTimeOf(stamp) % 1_000_000_000n === 0n ? 2000 : 20;
}

/** Whether a file with this stamp may have changed within this tick. */
export function isFresh(stamp: Stamp, now = Date.now()): boolean {
  const age = now - Number(changeTimeOf(stamp) / 1_000_000n);
  return Math.abs(age) < tickOf(stamp);
}

/** Whether hashes that were made at `when` still stand for a file with this stamp. */
export function isProof(stamp: Stamp, when: number): boolean {
  // a time in the future says that one of the clocks is wrong: the stamp is then no proof either
  return !isFresh(stamp, when) && Number(changeTimeOf(stamp) / 1_000_000n) < when;
}

/** A file changed each time while it was read. */
export function changedWhileRead({ path }: LocalFile): Failure {
  return new Failure(
    `${JSON.stringify(path)} changes while it is read; it was not sent: run this again when its writer is done`,
  );
}

/** How often a file that changes meanwhile is read. */
export const maxReads = 4;

/** What was read, and the stamp by which it is known again; undefined when that would prove nothing. */
export interface AtRest<T> {
  result: T;
  stamp: Stamp | undefined;
}

/**
 * Read a file as it is at one moment: when it changes meanwhile, `read` is called again.
 * @param isEqual what has just changed is read twice and compared; without it we wait until another change would show.
 * @throws {Failure} when it keeps changing.
 */
export async function readAtRest<T>(
  file: LocalFile,
  read: (handle: FileHandle, size: number) => Promise<T>,
  isEqual?: (one: T, other: T) => boolean,
): Promise<AtRest<T>> {
  for (let attempt = 0; attempt < maxReads; attempt++) {
    if (attempt > 0) await sleep(50 * 4 ** (attempt - 1));
    const handle = await open(file.file, "r");
    try {
      const when = Date.now();
      let stat = await handle.stat({ bigint: true });
      if (!isEqual && isFresh(stampOf(stat))) {
        await sleep(tickOf(stampOf(stat)));
        stat = await handle.stat({ bigint: true });
      }
      const [stamp, size] = [stampOf(stat), Number(stat.size)];
      const fresh = isFresh(stamp);
      const result = await read(handle, size);
      if (fresh && !isEqual?.(result, await read(handle, size))) continue;
      if (stampOf(await handle.stat({ bigint: true })) === stamp)
        return { result, stamp: isProof(stamp, when) ? stamp : undefined };
    } finally {
      await handle.close();
    }
  }
  throw changedWhileRead(file);
}

/** What a file holds, by two hashes. */
export interface Content {
  /**
   * The ETag that S3 gives to this content: its MD5, or, above `wholeUpTo`, the MD5 of its parts' MD5s with
   * `-` and their number. Source: S3's "Checking object integrity".
   */
  etag: string;
  /** SHA-256 in hex; above `wholeUpTo` that of its parts' SHA-256s. It is this that decides what changed. */
  sha256: string;
}

/** The hashes of some bytes, in hex. */
export interface Hashes {
  md5: string;
  sha256: string;
}

export interface Hashed extends Hashes {
  bytes: Uint8Array;
}

/** Larger files go in parts. */
export const wholeUpTo = 16 * 1024 * 1024;
const partBytes = 8 * 1024 * 1024;
const maxParts = 10_000;

/** How long the parts of a file of `size` bytes are. */
export function partSizeOf(size: number): number {
  const step = 1024 * 1024;
  return Math.max(partBytes, Math.ceil(size / maxParts / step) * step);
}

/** A part of an open file; shorter where the file ends. */
export async function readPart(handle: FileHandle, at: number, length: number): Promise<Hashed> {
  const buffer = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, at + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return hashed(buffer.subarray(0, done));
}

function hashed(bytes: Uint8Array): Hashed {
  const md5 = createHash("md5").update(bytes).digest("hex");
  return { bytes, md5, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** The content of a file that goes whole. */
export function contentOf({ md5, sha256 }: Hashes): Content {
  return { etag: md5, sha256 };
}

/** The content of a file from those of its parts, in order. */
export function contentOfParts(parts: readonly Hashes[]): Content {
  const md5 = createHash("md5");
  const sha256 = createHash("sha256");
  for (const part of parts) {
    md5.update(part.md5, "hex");
    sha256.update(part.sha256, "hex");
  }
  return { etag: `${md5.digest("hex")}-${parts.length}`, sha256: sha256.digest("hex") };
}

const isEqual = (one: { sha256: string }, other: { sha256: string }) => one.sha256 === other.sha256;

/** A small file as it is at one moment. @throws {Failure} when it keeps changing. */
export async function readWhole(file: LocalFile): Promise<AtRest<Hashed>> {
  return await readAtRest(file, (handle, size) => readPart(handle, 0, size), isEqual);
}

/** The content of a file of any size. @throws {Failure} when it keeps changing. */
export async function hashFile(file: LocalFile, signal?: AbortSignal): Promise<AtRest<Content>> {
  const read = async (handle: FileHandle, size: number) => {
    if (size <= wholeUpTo) return contentOf(await readPart(handle, 0, size));
    const length = partSizeOf(size);
    const parts: Hashes[] = [];
    for (let at = 0; at < size; at += length) {
      signal?.throwIfAborted();
      const { md5, sha256 } = await readPart(handle, at, length);
      parts.push({ md5, sha256 });
    }
    return contentOfParts(parts);
  };
  return await readAtRest(file, read, isEqual);
}
