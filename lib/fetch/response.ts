import { posix } from "node:path";
import { pipeline } from "node:stream";
import { formatSize } from "../core/units.ts";
import type { PartialFile, Validator } from "./partial.ts";
import { FetchFailed, statusFailure } from "./retry.ts";
import { discard, type SendResponse } from "./send.ts";

/** What was asked for, and an answer proven to be it: status, length, range, kind. */

export interface FetchRequest {
  url: string;
  /** Where the file grows; the same name in a later run continues what this one left. */
  to: string;
  /** The name that the file will have: decides whether HTML and packed bytes are what is wanted. Default: the URL's. */
  name?: string;
  /** The content's sha256 in hex: another content is fetched once more, then refused. */
  sha256?: string | undefined;
  /** More bytes than this are refused, also when the server announces fewer. */
  maxSize?: number | undefined;
  /** Only when the server has something else than this. */
  unless?: { etag?: string | undefined; modified?: number | undefined } | undefined;
  /**
   * false: do not wait until the disk has it, for callers who notice a loss after a crash of the machine and
   * fetch again. Default: true.
   */
  flush?: boolean;
  /** Hand the file over open (`Fetched.fd`): for those who need the very bytes that were hashed. */
  handOver?: boolean;
  /** Follow redirects from https to http: only for content that is verified otherwise. */
  allowDowngrade?: boolean;
  /** Told as bytes come; `total` when the server gave one. */
  onProgress?: (done: number, total: number | undefined) => void;
  /** Told before each repetition. */
  onRetry?: (error: unknown, wait: number) => void;
  signal?: AbortSignal | undefined;
}

export interface Fetched {
  /** false: the server has nothing newer (`unless`), and no file was made. */
  changed: boolean;
  sha256: string;
  /** Bytes. */
  size: number;
  /** When `handOver` was asked for: the file, open for reading. */
  fd?: number;
  etag?: string;
  /** Last-Modified in milliseconds since 1970; the file has it as its time. */
  modified?: number;
}

/** A header that is a whole number; undefined when it is none. */
export function headerNumber(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

/**
 * The answer is a file, or the rest of one: make `file` ready for its body.
 * @throws {FetchFailed} when it is something else.
 */
export function acceptAnswer(
  request: FetchRequest,
  response: SendResponse,
  file: PartialFile,
  resume: Validator | undefined,
): void {
  const { status, headers } = response;
  const refuse = (error: FetchFailed | string): never => {
    discard(response);
    throw typeof error === "string" ? new FetchFailed(error) : error;
  };
  const startOver = (message: string): never => {
    file.restart();
    return refuse(new FetchFailed(message, { again: true }));
  };
  if (resume && status === 416) startOver("the server has fewer bytes than before");
  if (status !== 200 && !(status === 206 && resume))
    refuse(statusFailure(status, response.reason, headers["retry-after"]));
  if (request.sha256 === undefined && isHtmlInstead(headers["content-type"], request))
    refuse("the server sent an HTML page, not the file; pin it with #sha256-HEX if that is what it should be");
  const length = headerNumber(headers["content-length"]);
  if (status === 206) {
    const { start, total } = rangeOf(headers);
    const wrong = start !== file.size || (resume?.total !== undefined && total !== resume.total) || isPacked(headers);
    if (wrong) startOver("the server sent another range than the one asked for");
    // a server that does not know If-Range sends the rest of whatever is there now
    const { ifRange } = resume as Validator;
    if (headers[ifRange.startsWith('"') ? "etag" : "last-modified"] !== ifRange)
      startOver("the server does not say that the rest is of the same file");
  } else {
    file.restart(validatorOf(headers));
  }
  const whole = status === 206 ? file.size + (length ?? 0) : length;
  if (whole !== undefined && whole > (request.maxSize ?? Number.POSITIVE_INFINITY))
    refuse(tooLarge(request.maxSize ?? 0));
}

/** Where the bytes of a 206 begin, and how many the whole file has; undefined where the server does not say. */
function rangeOf(headers: SendResponse["headers"]): { start?: number; total?: number } {
  const [, start, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers["content-range"] ?? "") ?? [];
  if (start === undefined) return {};
  return { start: Number(start), ...(total === "*" ? {} : { total: Number(total) }) };
}

/** Whether a Content-Encoding stands between the bytes that come and those of the file. */
function isPacked(headers: SendResponse["headers"]): boolean {
  return !["identity", ""].includes((headers["content-encoding"] ?? "").toLowerCase().trim());
}

function nameOf({ name, url }: FetchRequest): string {
  return name ?? posix.basename(new URL(url).pathname);
}

/** Whether an HTML page came where another kind of file was wanted: the usual look of an error that says 200. Pure. */
function isHtmlInstead(contentType: string | undefined, request: FetchRequest): boolean {
  if (!/^\s*(?:text\/html|application\/xhtml\+xml)\b/i.test(contentType ?? "")) return false;
  const extension = /\.([A-Za-z0-9]+)$/.exec(nameOf(request))?.[1]?.toLowerCase();
  return extension !== undefined && !/^(?:x?html?|shtml|php|aspx?|jsp|cgi)$/.test(extension);
}

/**
 * Read the body to its proven end.
 * @param onBytes told how many came over the wire.
 * @throws {FetchFailed} when it is cut off, or larger than `maxSize`; a disk's error as it is.
 */
export async function receive(
  request: FetchRequest,
  { status, headers, body }: SendResponse,
  file: PartialFile,
  onBytes: (count: number) => void,
): Promise<void> {
  const length = headerNumber(headers["content-length"]);
  const unpack = await unpackerFor(headers, nameOf(request)).catch((error) => {
    body.on("error", () => {}).destroy();
    throw error;
  });
  // a server may send less than the range that it was asked for
  const whole = status === 206 ? rangeOf(headers).total : length;
  const total = unpack ? undefined : whole;
  const limit = request.maxSize ?? Number.POSITIVE_INFINITY;
  let received = 0;
  async function* wire() {
    for await (const piece of body as AsyncIterable<Uint8Array>) {
      received += piece.length;
      onBytes(piece.length);
      yield piece;
    }
  }
  try {
    for await (const piece of unpack ? pipeline(wire, unpack, () => {}) : wire()) {
      file.add(piece as Uint8Array);
      if (file.size > limit) throw tooLarge(limit);
      request.onProgress?.(file.size, total);
    }
  } catch (error) {
    throw cutOff(error, length, received);
  }
  if (length !== undefined && received !== length) throw cutOff(undefined, length, received);
  if (total !== undefined && file.size !== total) throw cutOff(undefined, total, file.size);
}

/**
 * What undoes a Content-Encoding. We ask for none; a server that packs all the same is undone, except where the name
 * says that the packed bytes are the file (servers send .tar.gz as `Content-Encoding: gzip`).
 */
async function unpackerFor(headers: SendResponse["headers"], name: string) {
  const packedName = /\.(?:t?gz|gzip|br|zz|z|zst|tbz2?|bz2|xz)$/i.test(name);
  if (!isPacked(headers) || packedName) return undefined;
  const encoding = headers["content-encoding"]?.toLowerCase().trim();
  const { createBrotliDecompress, createGunzip, createInflate } = await import("node:zlib");
  if (encoding === "gzip" || encoding === "x-gzip") return createGunzip();
  if (encoding === "deflate") return createInflate();
  if (encoding === "br") return createBrotliDecompress();
  throw new FetchFailed(`the server packed the body as ${encoding}, which is not understood`);
}

function cutOff(error: unknown, length: number | undefined, received: number): unknown {
  if (error instanceof FetchFailed) return error;
  const code = (error as { code?: string } | undefined)?.code;
  // the disk's own errors and broken packing are not the connection's
  if (code !== undefined && /^(?:E[A-Z]+|Z_[A-Z_]+)$/.test(code) && code !== "ECONNRESET" && code !== "EPIPE")
    return error;
  const of = length === undefined ? "" : ` of ${length}`;
  return new FetchFailed(`the body was cut off after ${received}${of} bytes`, { again: true });
}

function tooLarge(limit: number): FetchFailed {
  return new FetchFailed(`the file is larger than ${formatSize(limit)}; raise --max-size to take it`, {
    reason: "too large",
  });
}

/** What an answer says of the content. */
export function aboutContent({ headers }: SendResponse): { etag?: string; modified?: number } {
  const { etag } = headers;
  const modified = Date.parse(headers["last-modified"] ?? "");
  return { ...(etag === undefined ? {} : { etag }), ...(Number.isNaN(modified) ? {} : { modified }) };
}

/** What If-Range may carry: a strong ETag; else a date that is old enough to be strong (RFC 9110, 8.8.2.2). */
function validatorOf(headers: SendResponse["headers"]): Validator | undefined {
  if (isPacked(headers)) return undefined;
  const length = headerNumber(headers["content-length"]);
  const size = length === undefined ? {} : { total: length };
  const { etag, date } = headers;
  if (etag?.startsWith('"')) return { ifRange: etag, ...size };
  const modified = headers["last-modified"];
  const age = Date.parse(date ?? "") - Date.parse(modified ?? "");
  return etag === undefined && modified !== undefined && age >= 60_000 ? { ifRange: modified, ...size } : undefined;
}
