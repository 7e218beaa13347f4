import { closeSync, createReadStream, fstatSync, openSync, readSync, writeSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import { StringDecoder } from "node:string_decoder";
import { systemCode } from "../core/errors.ts";
import type { Mask } from "../config/secrets.ts";
import { temporaryBeside } from "../files/files.ts";

/** A run's log: the server's own lines in it, its masking, and how it is sent to those who read it. */

/** Add a line of the server's own to a run's log, on a line of its own. */
export function noteInLog(path: string, id: string, text: string): void {
  try {
    const fd = openSync(path, "a+", 0o600);
    try {
      const { size } = fstatSync(fd);
      const lineEnd = size > 0 && !endsWithNewline(fd, size) ? "\n" : "";
      writeSync(fd, `${lineEnd}${new Date().toISOString()} ${id} hook-server | ${text}\n`);
    } finally {
      closeSync(fd);
    }
  } catch {
    // a full disk: the record says the same
  }
}

function endsWithNewline(fd: number, size: number): boolean {
  const last = Buffer.alloc(1);
  return readSync(fd, last, 0, 1, size - 1) === 1 && last[0] === 10;
}

/** So much of an endless line is buffered at most. */
const maxPiece = 256 * 1024;

/** Masks a text that comes in pieces: it gives out whole lines, so that a secret over two pieces is caught. */
class MaskedStream {
  readonly #mask: Mask;
  readonly #decoder = new StringDecoder("utf8");
  #rest = "";

  constructor(mask: Mask) {
    this.#mask = mask;
  }

  write(chunk: Buffer): string {
    this.#rest += this.#decoder.write(chunk);
    let end = this.#rest.lastIndexOf("\n") + 1;
    // an endless line goes out in pieces, less a tail in which a secret may start
    if (this.#rest.length - end > maxPiece) {
      this.#rest = this.#mask(this.#rest);
      end = this.#rest.length - 4096;
    }
    const ready = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end);
    return this.#mask(ready);
  }

  end(): string {
    const text = this.#mask(this.#rest + this.#decoder.end());
    this.#rest = "";
    return text;
  }
}

/** Mask a file in place, when there is anything in it to mask. Its size does not matter: it is read in pieces. */
export async function maskFile(path: string, mask: Mask): Promise<void> {
  let found = false;
  const search = new MaskedStream((text) => {
    found ||= mask(text) !== text;
    return "";
  });
  for await (const chunk of createReadStream(path)) search.write(chunk as Buffer);
  search.end();
  if (!found) return;
  const temporary = temporaryBeside(path);
  const out = await open(temporary, "wx", 0o600);
  try {
    const masked = new MaskedStream(mask);
    for await (const chunk of createReadStream(path))
      await out.write(masked.write(chunk as Buffer));
    await out.write(masked.end());
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await out.close();
  }
  await rename(temporary, path);
}

/** Send a log as it is now, masked. */
export async function sendLog(response: ServerResponse, path: string, mask: Mask): Promise<void> {
  response.writeHead(200, {
    "content-type": "text/plain; charset=utf-8",
    "x-content-type-options": "nosniff",
  });
  const masked = new MaskedStream(mask);
  try {
    for await (const chunk of createReadStream(path)) {
      if (!response.write(masked.write(chunk as Buffer))) await drained(response);
      if (response.destroyed) return;
    }
  } catch (error) {
    // a run that waits has no log yet
    if (systemCode(error) !== "ENOENT") throw error;
  }
  response.end(masked.end());
}

/**
 * Send a log as server-sent events (a `data:` line each), as it grows; then `event: end` with the run's state, once
 * `endState` gives one.
 */
export async function followLog(
  response: ServerResponse,
  path: string,
  { mask, endState }: { mask: Mask; endState: () => string | undefined },
): Promise<void> {
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
  });
  response.flushHeaders();
  const masked = new MaskedStream(mask);
  const piece = Buffer.alloc(64 * 1024);
  let file: FileHandle | undefined;
  let at = 0;
  try {
    for (let quiet = 0; !response.destroyed; ) {
      // asked before the log is read: an ended run writes no more
      const end = endState();
      // opened once: at a run's end its log may be replaced by a masked one, which is shorter
      file ??= await open(path).catch(() => undefined);
      const { bytesRead } = (await file?.read(piece, 0, piece.length, at)) ?? { bytesRead: 0 };
      if (bytesRead > 0) {
        at += bytesRead;
        await sendEvent(response, masked.write(piece.subarray(0, bytesRead)));
        continue;
      }
      if (end !== undefined) {
        await sendEvent(response, masked.end());
        response.end(`event: end\ndata: ${end}\n\n`);
        return;
      }
      // a comment now and then keeps proxies from closing a quiet stream
      if (++quiet % 75 === 0) response.write(": \n\n");
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  } finally {
    await file?.close();
  }
}

/** A text as one server-sent event; to its readers a lone carriage return ends a line, too. */
async function sendEvent(response: ServerResponse, text: string): Promise<void> {
  if (text === "") return;
  const lines = text.replace(/(?:\r\n|\r|\n)$/, "").split(/\r\n|\r|\n/);
  if (!response.write(`data: ${lines.join("\ndata: ")}\n\n`)) await drained(response);
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.once("drain", done);
    response.once("close", done);
  });
}
