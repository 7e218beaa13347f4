import { posix } from "node:path";
import type { Readable } from "node:stream";
import { contentStream, drain, headerNumber, isHtmlInstead } from "./body.ts";
import type { OpenFile, PartialFile, Validator } from "./partial.ts";
import { FetchFailed, statusFailure } from "./retry.ts";
import type { SendResponse } from "./send.ts";
import type { Watch } from "./timeout.ts";
import { formatSize } from "../core/units.ts";

/** What was asked for, and an answer proven to be it: status, length, range, kind. */

export interface FetchRequest {
  url: string;
  /** Where the file grows; the same name in a later run goes on with what this one left. */
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
   * false: do not wait until the disk has it, as a caller may who notices a loss after a crash of the
   * machine and fetches again. Default: true.
   */
  flush?: boolean;
  /** Hand the file over open, with its hash (`Fetched.open`): for whoever goes on with the bytes that were hashed. */
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
  /** When `handOver` was asked for: the file, open for reading, and its SHA-256 before the end was made of it. */
  open?: OpenFile;
  etag?: string;
  /** Last-Modified in milliseconds since 1970; the file has it as its time. */
  modified?: number;
}

/** The answer is a file, or the rest of one: make `file` ready for its body, or say what is wrong. */
export function begin(
  request: FetchRequest,
  response: SendResponse,
  file: PartialFile,
  resume: Validator | undefined,
): void {
  const { status, headers, body } = response;
  const refuse = (error: FetchFailed): never => {
    body.on("error", () => {});
    // a short error page is read to its end, which keeps the connection for the next file
    if ((headerNumber(headers["content-length"]) ?? Number.POSITIVE_INFINITY) < 65_536)
      body.resume();
    else body.destroy();
    throw error;
  };
  const startOver = (message: string): never => {
    file.restart(request.url, undefined);
    return refuse(new FetchFailed(message, { again: true }));
  };
  if (resume && status === 416) startOver("the server has fewer bytes than before");
  if (status !== 200 && !(status === 206 && resume))
    refuse(statusFailure(status, response.reason, headers["retry-after"]));
  const name = request.name ?? posix.basename(new URL(request.url).pathname);
  if (request.sha256 === undefined && isHtmlInstead(headers["content-type"], name))
    refuse(
      new FetchFailed(
        "the server sent an HTML page, not the file; pin it with #sha256-HEX if that is what it should be",
      ),
    );
  const length = headerNumber(headers["content-length"]);
  if (status === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers["content-range"] ?? "");
    const total = Number(range?.[3]);
    const wrong =
      Number(range?.[1]) !== file.size ||
      (resume?.total !== undefined && total !== resume.total) ||
      (headers["etag"] !== undefined &&
        resume?.ifRange.startsWith('"') &&
        headers["etag"] !== resume.ifRange);
    if (wrong) startOver("the server sent another range than the one asked for");
  } else {
    file.restart(request.url, validatorOf(headers));
  }
  const whole = status === 206 ? file.size + (length ?? 0) : length;
  if (whole !== undefined && whole > (request.maxSize ?? Number.POSITIVE_INFINITY))
    refuse(tooLarge(request.maxSize ?? 0));
}

/** Bodies of so many bytes come straight from their connection (lib/fetch/wire.ts). */
const straightFrom = 8 * 1024 * 1024;

/** Read the body to its proven end. */
export async function receive(
  request: FetchRequest,
  response: SendResponse,
  file: PartialFile,
  watch: Watch,
): Promise<void> {
  const length = headerNumber(response.headers["content-length"]);
  const name = request.name ?? posix.basename(new URL(request.url).pathname);
  const { stream, sent } = await contentStream(response, name);
  const start = file.size;
  const total = length === undefined || sent ? undefined : start + length;
  const limit = request.maxSize ?? Number.POSITIVE_INFINITY;
  const onTheWire = () => sent?.() ?? file.size - start;
  const take = (piece: Uint8Array, reused: boolean) => {
    watch.saw(piece.length);
    file.add(piece, reused);
    if (file.size > limit) throw tooLarge(limit);
    request.onProgress?.(file.size, total);
  };
  const { wire } = response;
  // a large body is worth its connection, which is of no use after that
  const isStraight = wire !== undefined && stream === wire && (length ?? 0) >= straightFrom;
  const left = () => (length ?? 0) - (file.size - start);
  try {
    await drain(stream, take, isStraight ? { wire, left } : undefined);
  } catch (error) {
    throw watch.isBroken ? watch.reason : cutOff(error, length, onTheWire());
  }
  const whole = length === undefined ? isComplete(response.body) : onTheWire() === length;
  if (!whole) throw cutOff(undefined, length, onTheWire());
}

/** node:http says of a chunked body whether its last chunk came. */
function isComplete(body: Readable): boolean {
  return (body as { complete?: boolean }).complete !== false;
}

function cutOff(error: unknown, length: number | undefined, sent: number): unknown {
  if (error instanceof FetchFailed) return error;
  const code = (error as { code?: string } | undefined)?.code;
  // the disk's own errors and broken packing are not the connection's
  if (
    code !== undefined &&
    /^(?:E[A-Z]+|Z_[A-Z_]+)$/.test(code) &&
    code !== "ECONNRESET" &&
    code !== "EPIPE"
  )
    return error;
  const of = length === undefined ? "" : ` of ${length}`;
  return new FetchFailed(`the body was cut off after ${sent}${of} bytes`, { again: true });
}

function tooLarge(limit: number): FetchFailed {
  return new FetchFailed(
    `the file is larger than ${formatSize(limit)}; raise --max-size to take it`,
  );
}

/** What an answer says of the content. */
export function aboutContent({ headers }: SendResponse): { etag?: string; modified?: number } {
  const modified = Date.parse(headers["last-modified"] ?? "");
  const about: { etag?: string; modified?: number } = {};
  if (headers["etag"] !== undefined) about.etag = headers["etag"];
  if (!Number.isNaN(modified)) about.modified = modified;
  return about;
}

/** What If-Range may carry: a strong ETag; else a date that is old enough to be strong (RFC 9110, 8.8.2.2). */
function validatorOf(headers: SendResponse["headers"]): Validator | undefined {
  if (headers["content-encoding"] !== undefined && headers["content-encoding"] !== "identity")
    return undefined;
  const length = headerNumber(headers["content-length"]);
  const size = length === undefined ? {} : { total: length };
  const { etag, date } = headers;
  if (etag?.startsWith('"')) return { ifRange: etag, ...size };
  const modified = headers["last-modified"];
  const age = Date.parse(date ?? "") - Date.parse(modified ?? "");
  return etag === undefined && modified !== undefined && age >= 60_000
    ? { ifRange: modified, ...size }
    : undefined;
}
