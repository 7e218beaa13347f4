import { readSync } from "node:fs";
import { createGunzip, type Gunzip } from "node:zlib";
import { messageOf, Refused, systemCode } from "../core/errors.ts";
import { type OnEntry, PlainTarReader } from "./tar-plain.ts";

/**
 * Reading a tar.gz entry by entry, and the headers for writing one. The owner of the tar package:
 * its Parser reads the format (ustar, pax, GNU's long names) from the first block on that is not plain
 * (tar-plain.ts). Its unpacking is not used, since it drops hostile entries and exits well, and makes folders
 * some forty times each.
 */
export type { EntrySink, OnEntry, TarEntry } from "./tar-plain.ts";

export interface TarLimits {
  /** Bytes of all files together. */
  size: number;
  /** Unpacked bytes for one packed byte, judged once `ratioFrom` bytes are unpacked. */
  ratio: number;
  ratioFrom: number;
  entries: number;
}

export const tarLimits: TarLimits = {
  size: 20 * 1024 ** 3,
  ratio: 200,
  ratioFrom: 64 * 1024 ** 2,
  entries: 500_000,
};

/** Bytes of a piece that is unzipped, and of one that comes out of it. */
const pieceSize = 2 * 1024 * 1024;
const chunkSize = 1024 * 1024;

/**
 * Hand each entry of the archive that is open as `fd` to `onEntry`, and its bytes to what that returns, before the
 * next entry comes. The descriptor is read from the start of the file and stays open.
 * @throws {Refused} when it is no whole tar.gz, or goes past a limit; and whatever `onEntry` throws.
 */
export async function readTarGz(
  fd: number,
  onEntry: OnEntry,
  { limits = tarLimits, signal }: { limits?: TarLimits; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const plain = new PlainTarReader(onEntry);
  let packaged: PackagedReader | undefined;
  const gunzip = createGunzip({ chunkSize });
  const packed = feed(gunzip, fd);
  let unpacked = 0;
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      signal?.throwIfAborted();
      unpacked += chunk.length;
      if (unpacked > limits.ratioFrom && unpacked > packed() * limits.ratio)
        throw new Refused(`it unpacks to more than ${limits.ratio} times its size`);
      // headers and padding take at most 1 KB an entry, long names aside
      if (unpacked > limits.size + 1024 * limits.entries)
        throw new Refused(`it unpacks to more than ${limits.size} bytes`);
      const rest = packaged ? chunk : plain.add(chunk);
      if (rest) (packaged ??= await packagedReader(rest, onEntry)).add(rest);
    }
    packaged?.end();
    if (!packaged && plain.entries === 0) throw new Refused("there is no tar in the gzip");
    if (!(packaged ?? plain).ended || unpacked % 512 !== 0) throw new Refused("it is cut off");
  } catch (error) {
    const code = systemCode(error) ?? "";
    if (code.startsWith("Z_")) throw new Refused(`it is no whole gzip (${messageOf(error)})`);
    throw error;
  } finally {
    gunzip.destroy();
  }
}

/**
 * Give the file's bytes to gunzip. Two pieces are on their way at any time: gunzip's thread goes on with the second while
 * what came out of the first is written. Read in this thread, into the same memory again: the file was just written,
 * so its bytes are at hand, and another thread or fresh memory would take longer than copying them.
 * @returns how many bytes were given so far.
 */
function feed(gunzip: Gunzip, fd: number): () => number {
  let position = 0;
  let ended = false;
  const give = (buffer: Buffer) => {
    if (ended || gunzip.destroyed) return;
    try {
      const count = readSync(fd, buffer, 0, buffer.length, position);
      position += count;
      ended = count === 0;
      if (ended) gunzip.end();
      else gunzip.write(buffer.subarray(0, count), (error) => error ?? give(buffer));
    } catch (error) {
      gunzip.destroy(error as Error);
    }
  };
  for (let piece = 0; piece < 2; piece++) give(Buffer.allocUnsafeSlow(pieceSize));
  return () => position;
}

/** The package's Parser behind the same door. */
interface PackagedReader {
  add(chunk: Buffer): void;
  end(): void;
  readonly ended: boolean;
}

async function packagedReader(first: Buffer, onEntry: OnEntry): Promise<PackagedReader> {
  // the package would unpack a gzip within the gzip, past every count
  if (!looksLikeTar(first)) throw new Refused("there is no tar in the gzip");
  const { Parser } = await import("tar");
  const parser = new Parser({ strict: false, brotli: false });
  let ended = false;
  parser.on("warn", (_code: string, message: string | Error) => {
    throw new Refused(`it is broken (${messageOf(message)})`);
  });
  parser.on("eof", () => {
    ended = true;
  });
  parser.on("meta", (text: string) => {
    if (text.includes("GNU.sparse")) throw new Refused("it holds a sparse file");
    // the package ends a name there; another reader may not (GNU's long names do end with one)
    if (text.replace(/\0+$/, "").includes("\0"))
      throw new Refused(`"${shownName(text)}": control characters in a long name`);
  });
  parser.on("ignoredEntry", ({ path, type }) => {
    throw new Refused(`"${shownName(path)}" is of a kind that is not unpacked (${type})`);
  });
  parser.on("entry", (entry) => {
    const sink = onEntry(entry);
    if (sink) {
      entry.on("data", (piece: Buffer) => sink.write(piece));
      entry.on("end", () => sink.end());
    }
    entry.resume();
  });
  return {
    add: (chunk) => void parser.write(chunk),
    end: () => parser.end(),
    get ended() {
      return ended;
    },
  };
}

function looksLikeTar(chunk: Buffer): boolean {
  const gzip = chunk[0] === 0x1f && chunk[1] === 0x8b;
  return chunk.length >= 512 && !gzip && chunk.readUInt32LE(0) !== 0xfd2fb528;
}

/** What a header says of an entry that is written. */
export interface TarHeader {
  path: string;
  type: "File" | "Directory" | "SymbolicLink" | "Link";
  mode: number;
  size: number;
  mtime: Date;
  linkpath?: string;
}

/** Makes the header blocks of entries, with a pax header before those that need one. Owners are 0, without names. */
export async function tarHeaders(): Promise<(header: TarHeader) => Buffer> {
  const { Header, Pax } = await import("tar");
  return (given) => {
    const fields = { ...given, uid: 0, gid: 0, uname: "", gname: "" };
    const header = new Header(fields);
    const block = Buffer.alloc(512);
    if (!header.encode(block)) return block;
    const { path, linkpath, size, mtime } = given;
    const pax = new Pax({ path, size, mtime, uid: 0, gid: 0, ...(linkpath ? { linkpath } : {}) });
    return Buffer.concat([pax.encode(), block]);
  };
}

/** A name from an archive, fit for a message. */
export function shownName(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, 200);
}
