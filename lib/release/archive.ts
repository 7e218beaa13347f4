import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { Failure } from "../core/errors.ts";
import { tarBytes } from "../archive/tar.ts";
import type { PackEntry } from "./file-list.ts";

export interface ArchiveOptions {
  /** The time of every entry. */
  mtime: Date;
  onProgress?: ((done: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Write a tar.gz: the entries in their order, with one time, owner 0 and no names, so that the same input gives the
 * same bytes (under one runtime: zlib is built differently into each).
 * @throws {Failure} when a file changes while it is read.
 */
export async function writeArchive(
  path: string,
  entries: readonly PackEntry[],
  { mtime, onProgress, signal }: ArchiveOptions,
): Promise<{ sha256: string; size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  const measure = async function* (chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      hash.update(chunk);
      size += chunk.length;
      yield chunk;
    }
  };
  let done = 0;
  const progress = (bytes: number) => onProgress?.((done += bytes));
  const tar = tarBytes(
    entries.map(({ source, content, ...entry }) => ({
      ...entry,
      path: entry.type === "Directory" ? `${entry.path}/` : entry.path,
      content: content ? [content] : readExactly(source, entry.size, progress),
    })),
    mtime,
  );
  const gzip = createGzip({ level: 6, chunkSize: 256 * 1024 });
  const file = createWriteStream(path, { flags: "wx", mode: 0o644 });
  await pipeline(tar, gzip, measure, file, {
    ...(signal ? { signal } : {}),
  });
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return { sha256: hash.digest("hex"), size };
}

const pieceSize = 256 * 1024;

/** A file's bytes, which must be as many as it had when it was listed. */
async function* readExactly(
  path: string | undefined,
  size: number,
  onPiece: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  if (path === undefined || size === 0) return;
  const file = await open(path, "r");
  try {
    let position = 0;
    for (;;) {
      const buffer = Buffer.allocUnsafe(Math.min(pieceSize, size - position + 1));
      const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
      position += bytesRead;
      if (position > size || (bytesRead === 0 && position < size))
        throw new Failure(`${path} changed while it was packed; pack when nothing writes there`);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
      onPiece(bytesRead);
    }
  } finally {
    await file.close();
  }
}
