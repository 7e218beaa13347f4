import { createHash } from "node:crypto";
import { type BigIntStats, closeSync, fstatSync, openSync, readSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../core/errors.ts";
import { changeTimeOf, type LocalFile, type Stamp, stampOf } from "./folder.ts";

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

/** Larger files go in parts. */
export const wholeUpTo = 16 * 1024 * 1024;
const partBytes = 8 * 1024 * 1024;
const mostParts = 10_000;

/** How long the parts of a file of `size` bytes are. */
export function partSizeOf(size: number): number {
  const step = 1024 * 1024;
  return Math.max(partBytes, Math.ceil(size / mostParts / step) * step);
}

/** The hashes of one whole body, in hex. */
export function hashBytes(bytes: Uint8Array): { md5: string; sha256: string } {
  const md5 = createHash("md5").update(bytes).digest("hex");
  return { md5, sha256: createHash("sha256").update(bytes).digest("hex") };
}

/** The content of a file from those of its parts, in order. */
export function contentOfParts(parts: readonly { md5: string; sha256: string }[]): Content {
  const md5 = createHash("md5");
  const sha256 = createHash("sha256");
  for (const part of parts) {
    md5.update(part.md5, "hex");
    sha256.update(part.sha256, "hex");
  }
  return { etag: `${md5.digest("hex")}-${parts.length}`, sha256: sha256.digest("hex") };
}

/** The file changed while it was read, each time. */
export function changedWhileRead(path: string): Failure {
  return new Failure(
    `${JSON.stringify(path)} changes while it is read; it was not sent: run this again when its writer is done`,
  );
}

/** How often a file that changes under our hands is read anew. */
export const readTries = 4;

/**
 * A small file as it is at one moment, with its hashes and its stamp at that moment.
 * @throws {Failure} when it keeps changing.
 */
export async function readWhole(
  file: LocalFile,
): Promise<{ bytes: Uint8Array; md5: string; content: Content; stamp: Stamp }> {
  for (let attempt = 0; attempt < readTries; attempt++) {
    if (attempt > 0) await sleep(50 * 4 ** (attempt - 1));
    // sync: one file is a few small calls, and the thread pool would cost several times as much
    const fd = openSync(file.file, "r");
    try {
      const before = fstatSync(fd, { bigint: true });
      const stamp = stampOf(before);
      const bytes = Buffer.allocUnsafe(Number(before.size));
      if (fill(fd, bytes) !== bytes.length) continue;
      // within the tick of its last change the stamp would not show another: then the content must
      if (isFresh(stamp)) {
        const again = Buffer.allocUnsafe(bytes.length);
        if (fill(fd, again) !== bytes.length || !again.equals(bytes)) continue;
      }
      if (stampOf(fstatSync(fd, { bigint: true })) !== stamp) continue;
      const { md5, sha256 } = hashBytes(bytes);
      return { bytes, md5, content: { etag: md5, sha256 }, stamp };
    } finally {
      closeSync(fd);
    }
  }
  throw changedWhileRead(file.path);
}

function fill(fd: number, bytes: Uint8Array): number {
  let done = 0;
  while (done < bytes.length) {
    const count = readSync(fd, bytes, done, bytes.length - done, done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/**
 * The content of a file of any size, read in pieces, with its stamp at that moment.
 * @throws {Failure} when it keeps changing.
 */
export async function hashFile(
  file: LocalFile,
  signal?: AbortSignal,
): Promise<{ content: Content; stamp: Stamp }> {
  if (file.size <= wholeUpTo) return await readWhole(file);
  for (let attempt = 0; attempt < readTries; attempt++) {
    const handle = await open(file.file, "r");
    try {
      const before = await pastTick(handle);
      const stamp = stampOf(before);
      const size = Number(before.size);
      const length = partSizeOf(size);
      const buffer = Buffer.allocUnsafe(Math.min(length, size));
      const parts: { md5: string; sha256: string }[] = [];
      for (let at = 0; at < size; at += length) {
        signal?.throwIfAborted();
        const wanted = Math.min(length, size - at);
        const { bytesRead } = await handle.read(buffer, 0, wanted, at);
        if (bytesRead !== wanted) break;
        parts.push(hashBytes(buffer.subarray(0, wanted)));
      }
      if (stampOf(await handle.stat({ bigint: true })) !== stamp) continue;
      // it may have shrunk below the size where parts begin
      if (size <= wholeUpTo) return await readWhole({ ...file, size, stamp });
      return { content: contentOfParts(parts), stamp };
    } finally {
      await handle.close();
    }
  }
  throw changedWhileRead(file.path);
}

/**
 * Two changes within one tick of the file system's clock leave one change time. A stamp proves nothing about
 * a content that was read within the tick of its change (git calls such files racy: racy-git.txt).
 * The tick: 10 ms at most on Linux; a second or two where times are whole seconds.
 */
export function isFresh(stamp: Stamp, now = Date.now()): boolean {
  const changed = changeTimeOf(stamp);
  const tick = changed % 1_000_000_000n === 0n ? 2000 : 20;
  const age = now - Number(changed / 1_000_000n);
  // a time in the future says that one of the clocks is wrong: the stamp is then no proof either
  return age < tick && age > -tick;
}

/** Whether hashes that were made at `when` still stand for a file with this stamp. */
export function isProof(stamp: Stamp, when: number): boolean {
  return !isFresh(stamp, when) && Number(changeTimeOf(stamp) / 1_000_000n) < when;
}

/** The state of an open file once the tick of its last change is over, so that a change from now on leaves a mark. */
export async function pastTick(handle: FileHandle): Promise<BigIntStats> {
  let stat = await handle.stat({ bigint: true });
  for (let waited = 0; isFresh(stampOf(stat)) && waited < 2500; waited += 25) {
    await sleep(25);
    stat = await handle.stat({ bigint: true });
  }
  return stat;
}
