import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../core/errors.ts";
import type { S3Body } from "../s3/s3.ts";
import { isFresh, isProof, type LocalFile, type Stamp, stampOf, tickOf } from "./folder.ts";

/** What files hold: read as they are at one moment, and hashed. */

/** A file changed each time while it was read. */
export function changedWhileRead({ path }: LocalFile): Failure {
  return new Failure(
    `${JSON.stringify(path)} changes while it is read; it was not sent: run this again when its writer is done`,
  );
}

/** How often a file that changes meanwhile is read. */
const maxReads = 4;

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

/** The hashes of some bytes. */
export type Hashes = Omit<S3Body, "bytes">;

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
export async function readPart(handle: FileHandle, at: number, length: number): Promise<S3Body> {
  const buffer = Buffer.allocUnsafe(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, at + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  const bytes = buffer.subarray(0, done);
  const hash = (name: string) => createHash(name).update(bytes).digest("hex");
  return { bytes, md5: hash("md5"), sha256: hash("sha256") };
}

/** The content of a file that goes whole. */
export const contentOf = ({ md5, sha256 }: Hashes): Content => ({ etag: md5, sha256 });

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
export async function readWhole(file: LocalFile): Promise<AtRest<S3Body>> {
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
