import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import { messageOf, Refused, systemCode } from "../core/errors.ts";

/**
 * Reading a tar.gz entry by entry, and writing a tar. The owner of the tar package: its Parser reads the format
 * (ustar, pax, GNU's long names), its Header and Pax write it. Its unpacking is not used: it skips hostile entries
 * and succeeds.
 */

/** What an archive says of an entry. */
export interface TarEntry {
  readonly path: string;
  /** `File`, `Directory`, `SymbolicLink`, `Link` …, as the tar package calls them. */
  readonly type: string;
  readonly mode?: number | undefined;
  readonly linkpath?: string | undefined;
  /** Bytes. */
  readonly size: number;
}

/** Takes the bytes of one entry; a piece is only valid during the call. */
export interface EntrySink {
  write(piece: Buffer): void;
  end(): void;
}

/** Told of each entry before its bytes; what it returns gets them. */
export type OnEntry = (entry: TarEntry) => EntrySink | undefined;

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
 * Pass each entry of an archive to `onEntry`, and its bytes to what that returns, before the next entry comes.
 * @throws {Refused} when it is not a whole tar.gz, or goes past a limit; and what `onEntry` throws.
 */
export async function readTarGz(
  archive: AsyncIterable<Buffer>,
  onEntry: OnEntry,
  { limits = tarLimits, signal }: { limits?: TarLimits; signal?: AbortSignal | undefined } = {},
): Promise<void> {
  const parser = await createParser(onEntry);
  let packed = 0;
  let unpacked = 0;
  async function* count(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const piece of pieces) {
      packed += piece.length;
      yield piece;
    }
  }
  async function parse(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) {
      // the package would unpack a gzip within the gzip, past every count
      if (unpacked === 0 && !looksLikeTar(chunk)) throw new Refused("there is no tar in the gzip");
      unpacked += chunk.length;
      if (unpacked > limits.ratioFrom && unpacked > packed * limits.ratio)
        throw new Refused(`it unpacks to more than ${limits.ratio} times its size`);
      // headers and padding take at most 1 KB an entry, long names aside
      if (unpacked > limits.size + 1024 * limits.entries)
        throw new Refused(`it unpacks to more than ${limits.size} bytes`);
      // what follows the end is not part of the archive; the package would keep it in memory
      if (!parser.sawEnd) parser.write(chunk);
    }
  }
  try {
    await pipeline(archive, count, createGunzip({ chunkSize }), parse, {
      ...(signal ? { signal } : {}),
    });
  } catch (error) {
    const code = systemCode(error) ?? "";
    if (code.startsWith("Z_")) throw new Refused(`it is not a whole gzip (${messageOf(error)})`);
    throw error;
  }
  if (unpacked === 0) throw new Refused("there is no tar in the gzip");
  parser.end();
  if (!parser.sawEnd || unpacked % 512 !== 0) throw new Refused("it is cut off");
}

/** The package's Parser, with everything refused that it would only warn of or skip. */
async function createParser(onEntry: OnEntry) {
  const { Parser } = await import("tar/parse");
  const parser = Object.assign(new Parser({ brotli: false }), { sawEnd: false });
  parser.on("warn", (_code: string, message: string | Error) => {
    throw new Refused(`it is broken (${messageOf(message)})`);
  });
  parser.on("eof", () => {
    parser.sawEnd = true;
  });
  parser.on("meta", checkMeta);
  parser.on("ignoredEntry", ({ path, type }) => {
    throw new Refused(`"${shownName(path)}" is of a kind that is not unpacked (${type})`);
  });
  parser.on("entry", (entry) => {
    // others would give every entry that follows this name or size; the package does so with some of them
    for (const key of ["path", "linkpath", "size"] as const)
      if (entry.globalExtended?.[key] !== undefined)
        throw new Refused(`it sets one ${key} for every entry (a global pax header)`);
    const sink = onEntry(entry);
    if (sink) {
      entry.on("data", (piece: Buffer) => sink.write(piece));
      entry.on("end", () => sink.end());
    }
    entry.resume();
  });
  return parser;
}

/**
 * Judge a long name, or a pax header's records (`LENGTH KEY=VALUE`, a line each). The package reads line by line and
 * ends a name at a NUL; another reader may read on. Other records (extended attributes) are not used, may be binary.
 */
function checkMeta(text: string): void {
  if (text.includes("GNU.sparse")) throw new Refused("it holds a sparse file");
  const unclear = (name: string) => new Refused(`"${shownName(name)}": control characters in a long name`);
  if (!/^\d+ [\w.-]+=/.test(text)) {
    // GNU's long names end with a NUL
    if (text.replace(/\0+$/, "").includes("\0")) throw unclear(text);
    return;
  }
  const seen = new Set<string>();
  for (const line of text.split("\n")) {
    const [, length, key = "", value = ""] = /^(\d+) (path|linkpath)=(.*)$/s.exec(line) ?? [];
    if (length === undefined) continue;
    if (value.includes("\0") || Number(length) !== Buffer.byteLength(line) + 1) throw unclear(value);
    if (seen.has(key)) throw new Refused(`"${shownName(value)}" is a second name of one entry`);
    seen.add(key);
  }
}

function looksLikeTar(chunk: Buffer): boolean {
  const gzip = chunk[0] === 0x1f && chunk[1] === 0x8b;
  return chunk.length >= 512 && !gzip && chunk.readUInt32LE(0) !== 0xfd2fb528;
}

/** An entry to be written. */
export interface NewTarEntry {
  readonly path: string;
  readonly type: "File" | "Directory" | "SymbolicLink" | "Link";
  readonly mode: number;
  readonly size: number;
  readonly linkpath?: string;
  /** A file's bytes: `size` of them. */
  readonly content?: Iterable<Buffer> | AsyncIterable<Buffer> | undefined;
}

/**
 * The bytes of a tar of these entries in their order, with one time, owner 0 and no names. The package's Pack is for
 * files as they are on disk; its Header and Pax make the headers of entries from anywhere. The same entries give the
 * same chunks: the bytes that a compressor makes of them may depend on where they end (Deno's do).
 */
export async function* tarBytes(entries: Iterable<NewTarEntry>, mtime: Date): AsyncGenerator<Buffer> {
  const { Header } = await import("tar/header");
  const { Pax } = await import("tar/pax");
  for (const { content = [], ...entry } of entries) {
    const fields = { ...entry, mtime, uid: 0, gid: 0, uname: "", gname: "" };
    const block = Buffer.alloc(512);
    const needsPax = new Header(fields).encode(block);
    const { path, linkpath, size, uid, gid } = fields;
    const pax = new Pax({ path, size, mtime, uid, gid, ...(linkpath ? { linkpath } : {}) });
    yield needsPax ? Buffer.concat([pax.encode(), block]) : block;
    yield* content;
    if (size % 512 !== 0) yield Buffer.alloc(512 - (size % 512));
  }
  yield Buffer.alloc(1024);
}

/** A name from an archive, fit for a message. */
export function shownName(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?").slice(0, 200);
}
