import { closeSync, createReadStream, fstatSync, lstatSync, openSync, readSync, writeSync } from "node:fs";
import { lstat, mkdir, rename, rm, truncate, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { dirname } from "node:path";
import { pipeline } from "node:stream/promises";
import { StringDecoder } from "node:string_decoder";
import { messageOf, systemCode } from "../../core/errors.ts";
import type { Mask } from "../../core/mask.ts";
import { temporaryBeside } from "../../files/files.ts";

/** A run's log: the server's own lines in it, its masking, and how it is sent to those who read it. */

/**
 * Make sure that what will be opened as a run's log is a file: a build that has the server's own user can put anything
 * in its place, and a pipe would hold the server up.
 */
export async function prepareLog(path: string): Promise<void> {
  // its folder may have been removed
  await mkdir(dirname(path), { mode: 0o711 }).catch(() => {});
  const found = await lstat(path).catch(() => undefined);
  if (found && !found.isFile()) await rm(path, { force: true, recursive: true });
}

/** Add a line of the server's own to a run's log, on a line of its own. Returns where it ends, unless it could not. */
export function noteInLog(path: string, id: string, text: string): number | undefined {
  try {
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile() === false) return undefined;
    const fd = openSync(path, "a+", 0o600);
    try {
      const { size } = fstatSync(fd);
      const lineEnd = size > 0 && !endsWithNewline(fd, size) ? "\n" : "";
      const line = `${lineEnd}${new Date().toISOString()} ${id} hook-server | ${text}\n`;
      return size + writeSync(fd, line);
    } finally {
      closeSync(fd);
    }
  } catch {
    // a full disk: the record says the same
    return undefined;
  }
}

/** How many bytes a log has now; undefined when there is none. */
export async function logSize(path: string): Promise<number | undefined> {
  return (await lstat(path).catch(() => undefined))?.size;
}

function endsWithNewline(fd: number, size: number): boolean {
  const last = Buffer.alloc(1);
  return readSync(fd, last, 0, 1, size - 1) === 1 && last[0] === 10;
}

/** So much of an endless line is buffered at most. */
const maxPiece = 256 * 1024;

/**
 * Masks a text that comes in pieces: it gives out whole lines, so that a secret over two pieces is caught.
 * `growing`: the end is not the text's end, and a last line that is not whole is left out.
 */
async function* masked(pieces: AsyncIterable<Buffer>, mask: Mask, { growing = false } = {}): AsyncGenerator<string> {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  for await (const piece of pieces) {
    rest += decoder.write(piece);
    let end = rest.lastIndexOf("\n") + 1;
    // an endless line goes out in pieces, less a tail in which a secret may start
    if (rest.length - end > maxPiece) {
      const cut = rest.length - 4096;
      const across = mask.spans(rest).find(([from, to]) => from < cut && to > cut);
      end = across?.[0] || cut;
    }
    yield mask(rest.slice(0, end));
    rest = rest.slice(end);
  }
  if (!growing) yield mask(rest + decoder.end());
}

/**
 * A run has ended: cut its log to `max` bytes, add the server's last line, and mask it in place when there is
 * anything in it to mask. Takes time by `max`, and memory by a piece, whatever the log grew to or something that was
 * left behind still makes of it. Returns whether it was masked.
 */
export async function sealLog(
  path: string,
  { max, mask, id, text }: { max: number; mask: Mask; id: string; text: string },
): Promise<boolean> {
  await prepareLog(path);
  const size = (await logSize(path)) ?? 0;
  if (size > max) await truncate(path, max);
  const end = noteInLog(path, id, mask(text)) ?? size;
  return await maskFile(path, { size: Math.min(end, max + maxPiece), mask });
}

/** Mask the first `size` bytes of a file, when there is anything in them to mask. */
async function maskFile(path: string, { size, mask }: { size: number; mask: Mask }): Promise<boolean> {
  if (size === 0) return false;
  const pieces = () => createReadStream(path, { end: size - 1 });
  let found = false;
  const search = (text: string) => {
    found ||= mask.spans(text).length > 0;
    return text;
  };
  const searching = Object.assign(search, { spans: mask.spans });
  for await (const _ of masked(pieces(), searching)) if (found) break;
  if (!found) return false;
  const temporary = temporaryBeside(path);
  try {
    await writeFile(temporary, masked(pieces(), mask), { flag: "wx", mode: 0o600 });
    await rename(temporary, path);
    return true;
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Send a log as it is now, masked; of one that is still `growing` the whole lines. */
export async function sendLog(
  response: ServerResponse,
  path: string,
  { mask, growing }: { mask: Mask; growing: boolean },
): Promise<void> {
  response.writeHead(200, {
    "content-type": "text/plain; charset=utf-8",
    "x-content-type-options": "nosniff",
  });
  await send(masked(readLog(path), mask, { growing }), response);
}

async function* readLog(path: string): AsyncGenerator<Buffer> {
  try {
    const found = await lstat(path);
    // as much as there is now: it may grow faster than it is read
    if (found.isFile() && found.size > 0) yield* createReadStream(path, { end: found.size - 1 });
  } catch (error) {
    // a run that waits has no log yet; and a build of the server's own user can close it, or put a file above it
    if (systemCode(error) !== "ENOENT") yield Buffer.from(`the log cannot be read: ${messageOf(error)}\n`);
  }
}

/** How the end of a connection shows. */
const goneAway = ["ERR_STREAM_PREMATURE_CLOSE", "ERR_STREAM_DESTROYED", "EPIPE", "ECONNRESET"];

/** Send texts as fast as the client takes them. That it goes away early is no error. */
async function send(texts: AsyncIterable<string>, response: ServerResponse): Promise<void> {
  await pipeline(texts, response).catch((error: unknown) => {
    if (!goneAway.includes(systemCode(error) ?? "")) throw error;
  });
}
