import { createReadStream, createWriteStream } from "node:fs";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { tarBytes } from "../archive/tar.ts";
import { Failure } from "../core/errors.ts";
import type { PackEntry } from "./file-list.ts";

export interface ArchiveOptions {
  /** The time of every entry. */
  mtime: Date;
  /** Told of the bytes of each piece that is packed. */
  onPiece: (bytes: number) => void;
  signal?: AbortSignal | undefined;
}

const pieceSize = 256 * 1024;

/**
 * Write a tar.gz: the entries in their order, with one time, owner 0 and no names, so that the same input gives the
 * same bytes (under one runtime: zlib is built differently into each).
 * @throws {Failure} when a file changes while it is read.
 */
export async function writeArchive(
  path: string,
  entries: readonly PackEntry[],
  { mtime, onPiece, signal }: ArchiveOptions,
): Promise<void> {
  const contents = entries.map(({ source, content, ...entry }) => ({
    ...entry,
    path: entry.type === "Directory" ? `${entry.path}/` : entry.path,
    content: source === undefined ? content : readExactly(source, entry.size, onPiece),
  }));
  const tar = tarBytes(contents, mtime);
  const gzip = createGzip({ level: 6, chunkSize: pieceSize });
  const file = createWriteStream(path, { flags: "wx", mode: 0o644 });
  await pipeline(tar, gzip, file, { ...(signal ? { signal } : {}) });
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A file's bytes, which must be as many as when it was listed. */
async function* readExactly(
  path: string,
  size: number,
  onPiece: (bytes: number) => void,
): AsyncGenerator<Buffer> {
  let position = 0;
  // one byte more than it should have
  const pieces = createReadStream(path, { end: size, highWaterMark: pieceSize });
  for await (const piece of pieces as AsyncIterable<Buffer>) {
    position += piece.length;
    if (position > size) break;
    yield piece;
    onPiece(piece.length);
  }
  if (position !== size)
    throw new Failure(`${path} changed while it was packed; pack when nothing writes there`);
}
