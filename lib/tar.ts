import { readSync } from "node:fs";
import { pipeline, Readable } from "node:stream";
import { createGunzip } from "node:zlib";
import { messageOf, Refused, systemCode } from "./errors.ts";

/**
 * Reading a tar.gz entry by entry, and the headers for writing one. The owner of the tar package:
 * its Parser reads the format (ustar, pax, GNU's long names); its unpacking is not used, since it drops
 * hostile entries and exits well, and makes folders some forty times each. Unzipping goes in pieces of 1 MB.
 */
export interface TarEntry {
  readonly path: string;
  /** `File`, `Directory`, `SymbolicLink`, `Link` …, as the tar package calls them. */
  readonly type: string;
  readonly mode?: number | undefined;
  readonly linkpath?: string | undefined;
  /** Bytes. */
  readonly size: number;
  on(event: "data", handler: (chunk: Buffer) => void): unknown;
  on(event: "end", handler: () => void): unknown;
}

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

const chunkSize = 1024 * 1024;

/**
 * Hand each entry of the archive that is open as `fd` to `onEntry`, which reads it there and then (by its events,
 * which come before the next entry does). The descriptor is read from the start of the file and stays open.
 * @throws {Refused} when it is no whole tar.gz, or goes past a limit; and whatever `onEntry` throws.
 */
export async function readTarGz(
  fd: number,
  onEntry: (entry: TarEntry) => void,
  { limits = tarLimits, signal }: { limits?: TarLimits; signal?: AbortSignal | undefined } = {},
): Promise<void> {
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
    onEntry(entry);
    entry.resume();
  });

  let packed = 0;
  let unpacked = 0;
  const gunzip = createGunzip({ chunkSize });
  // errors of either end come out of the loop below
  const source = Readable.from(
    piecesOf(fd, (count) => (packed += count)),
    { objectMode: false },
  );
  pipeline(source, gunzip, () => {});
  try {
    for await (const chunk of gunzip as AsyncIterable<Buffer>) {
      signal?.throwIfAborted();
      // the parser would unpack a gzip within the gzip, past every count
      if (unpacked === 0 && !looksLikeTar(chunk)) throw new Refused("there is no tar in the gzip");
      unpacked += chunk.length;
      if (unpacked > limits.ratioFrom && unpacked > packed * limits.ratio)
        throw new Refused(`it unpacks to more than ${limits.ratio} times its size`);
      // headers and padding take at most 1 KB an entry, long names aside
      if (unpacked > limits.size + 1024 * limits.entries)
        throw new Refused(`it unpacks to more than ${limits.size} bytes`);
      parser.write(chunk);
    }
    parser.end();
    if (!ended || unpacked % 512 !== 0) throw new Refused("it is cut off");
  } catch (error) {
    const code = systemCode(error) ?? "";
    if (code.startsWith("Z_")) throw new Refused(`it is no whole gzip (${messageOf(error)})`);
    throw error;
  } finally {
    source.destroy();
    gunzip.destroy();
  }
}

/**
 * The file's bytes through the descriptor, from the start. A ReadStream would close it. Read in this thread: the file
 * was just written, so its bytes are in memory, and handing each piece to another thread takes longer than copying it.
 */
function* piecesOf(fd: number, onRead: (count: number) => void): Generator<Buffer> {
  for (let position = 0; ; ) {
    const buffer = Buffer.allocUnsafe(chunkSize);
    const count = readSync(fd, buffer, 0, buffer.length, position);
    if (count === 0) return;
    position += count;
    onRead(count);
    yield buffer.subarray(0, count);
  }
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
