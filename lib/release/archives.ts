import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { open, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { gzipMembers } from "../archive/members.ts";
import { tarBytes } from "../archive/tar.ts";
import { Failure, Refused } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { maxSignatures, Signatures } from "../openpgp/verify.ts";
import { formatIndex, indexHash, type Member, memberOf } from "../web-folder/archive-index.ts";
import { readArchiveName } from "../web-folder/version-file.ts";
import { fileNotation } from "../web-folder/web-folder.ts";
import type { PackEntry } from "./file-list.ts";
import { type Signer, signWith } from "./signer.ts";

/** The archives that stand in a web folder, and their signatures: written, listed, signed. */

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
 * @returns its index.
 * @throws {Failure} when a file changes while it is read.
 */
export async function writeArchive(
  path: string,
  entries: readonly PackEntry[],
  { mtime, onPiece, signal }: ArchiveOptions,
): Promise<string> {
  const contents = entries.map(({ source, content, ...entry }) => ({
    ...entry,
    path: entry.type === "Directory" ? `${entry.path}/` : entry.path,
    content: source === undefined ? content : readExactly(source, entry.size, onPiece),
  }));
  const tar = tarBytes(contents, mtime);
  const members: Member[] = [];
  async function* noted(pieces: AsyncIterable<Buffer>) {
    for await (const piece of pieces) {
      members.push(memberOf(piece));
      yield piece;
    }
  }
  const file = createWriteStream(path, { flags: "wx", mode: 0o644 });
  await pipeline(noted(gzipMembers(tar)), file, { ...(signal ? { signal } : {}) });
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return formatIndex(members);
}

/** A file's bytes, which must be as many as when it was listed. */
async function* readExactly(path: string, size: number, onPiece: (bytes: number) => void): AsyncGenerator<Buffer> {
  let position = 0;
  // one byte more than it should have
  const pieces = createReadStream(path, { end: size, highWaterMark: pieceSize });
  for await (const piece of pieces as AsyncIterable<Buffer>) {
    position += piece.length;
    if (position > size) break;
    yield piece;
    onPiece(piece.length);
  }
  if (position !== size) throw new Failure(`${path} changed while it was packed; pack when nothing writes there`);
}

/** An archive that stands in the folder. */
export interface Archive {
  file: string;
  app: string;
  version: string;
  platform?: string;
  size: number;
  /** When its signature was made; undefined: it has none. */
  signed?: Date;
}

/** The archives of a folder, the newest signature first; of one second, all it tells, the file written last. */
export async function archivesIn(out: string): Promise<Archive[]> {
  const found: { archive: Archive; signed: number; written: number }[] = [];
  for (const file of await readdir(out)) {
    const version = /-([0-9a-f]+(?:\.[0-9a-f]+)*)\.(?:tar\.gz|tgz)$/i.exec(file)?.[1];
    const parts = version === undefined ? undefined : readArchiveName(file, version);
    if (version === undefined || !parts) continue;
    const { size, mtimeMs: written } = await stat(join(out, file));
    const signature = await readFile(join(out, `${file}.sig`)).catch(() => undefined);
    const signed = signature && (await Signatures.read(signature, `${file}.sig`)).packets[0]?.created;
    const archive = { file, version, ...parts, size, ...(signed ? { signed } : {}) };
    found.push({ archive, signed: signed?.getTime() ?? 0, written });
  }
  found.sort((a, b) => b.signed - a.signed || b.written - a.written);
  return found.map(({ archive }) => archive);
}

/** What VERSION tells of an archive: its SHA-256 in hex, its size, and the SHA-256 of its index, where it has one. */
export async function digestOf(path: string): Promise<{ sha256: string; size: number; index?: string }> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) hash.update(chunk);
  const index = await readIfThere(`${path}.index`);
  return {
    ...{ sha256: hash.digest("hex"), size: (await stat(path)).size },
    ...(index === undefined ? {} : { index: indexHash(index) }),
  };
}

/** Whether `PATH.sig` is there, and holds a good signature over the file by this key. */
async function isSignedBy({ publicKey }: Signer, path: string): Promise<boolean> {
  const data = await readFile(`${path}.sig`).catch(() => undefined);
  if (!data) return false;
  try {
    const signatures = await Signatures.read(data, `${path}.sig`);
    await signatures.verify(publicKey, () => createReadStream(path), `${path}.sig`);
    return true;
  } catch (error) {
    if (error instanceof Refused) return false;
    throw error;
  }
}

/**
 * See to it that an archive is signed by all of these keys. A signature of theirs that is there and good stays: clients
 * hold its time against what they saw.
 * @param keepOthers what other keys have signed stays, too: VERSION names several.
 */
export async function signArchive(
  out: string,
  file: string,
  signers: readonly Signer[],
  { keepOthers }: { keepOthers: boolean },
): Promise<void> {
  const path = join(out, file);
  const missing: Signer[] = [];
  for (const signer of signers) if (!(await isSignedBy(signer, path))) missing.push(signer);
  if (missing.length === 0) return;
  const keeps = keepOthers || missing.length < signers.length;
  const before = keeps ? await readSignatures(`${path}.sig`, missing.length) : [];
  const made = await signWith(missing, { path }, { [fileNotation]: file });
  await writeAtomic(`${path}.sig`, Buffer.concat([...before, made]), { mode: 0o644 });
}

/** A signature file, unless it is none, full, or in armor, to which no other can be added. */
async function readSignatures(path: string, more: number): Promise<Buffer[]> {
  const data = await readFile(path).catch(() => undefined);
  if (!data || data.toString("latin1").trimStart().startsWith("-----BEGIN")) return [];
  const count = await Signatures.read(data, path)
    .then(({ packets }) => packets.length)
    .catch(() => Number.POSITIVE_INFINITY);
  return count + more <= maxSignatures ? [data] : [];
}
