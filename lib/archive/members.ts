import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { gzip } from "node:zlib";

/**
 * A gzip whose parts depend on what is in them and on nothing before: several members one after another (RFC 1952),
 * which every gunzip reads as one. They are cut where the content says so, so that what is inserted changes the member
 * that it is in, and leaves the others as they were.
 */

/** Bytes of a member before it is compressed; between these a cut comes after 128 KiB on average. */
const [minSize, maxSize, bits] = [64 * 1024, 1024 * 1024, 17];
/** Members that are compressed at a time. */
const atOnce = 4;

/** A number for each byte, of which the sum over the last 32 bytes, each doubled by those after it, makes the cut. */
const gear = Uint32Array.from({ length: 256 }, (_, byte) =>
  createHash("sha256").update(`boatyard ${byte}`).digest().readUInt32LE(),
);

/** The bytes in parts, each as long as its content says. */
export async function* contentParts(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let pieces: Buffer[] = [];
  let size = 0;
  let sum = 0;
  for await (const piece of bytes) {
    let start = 0;
    for (let at = 0; at < piece.length; at++) {
      sum = ((sum << 1) + (gear[piece[at] as number] as number)) | 0;
      if (++size < minSize || (sum >>> (32 - bits) !== 0 && size < maxSize)) continue;
      yield Buffer.concat([...pieces, piece.subarray(start, at + 1)]);
      [pieces, size, sum, start] = [[], 0, 0, at + 1];
    }
    if (start < piece.length) pieces.push(piece.subarray(start));
  }
  if (pieces.length > 0) yield Buffer.concat(pieces);
}

/** The members of a gzip of these bytes. The same bytes give the same members under one runtime. */
export async function* gzipMembers(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const compress = promisify(gzip);
  const running: Promise<Buffer>[] = [];
  for await (const part of contentParts(bytes)) {
    running.push(compress(part, { level: 6 }) as Promise<Buffer>);
    if (running.length === atOnce) yield (await running.shift()) as Buffer;
  }
  for (const member of running) yield await member;
}
