import { posix } from "node:path";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { contentStream, headerNumber, isHtmlInstead } from "./fetch-body.ts";
import { type FollowOptions, follow } from "./fetch-follow.ts";
import { PartialFile, type Validator } from "./fetch-partial.ts";
import {
  FetchFailed,
  isWorthRetry,
  longestWait,
  statusFailure,
  waitBefore,
} from "./fetch-retry.ts";
import { openConnections, type Send, sendFile, type SendResponse } from "./fetch-send.ts";
import { loginFor, readNetrc } from "./netrc.ts";
import { formatSize } from "./units.ts";
import { Watch } from "./fetch-watch.ts";
import { version } from "./version.ts";

/**
 * A URL to a file, hashed as it comes: with retries, resume of what broke off, logins from netrc,
 * proxies from the environment, and limits. http, https, file and s3.
 *
 * The body must prove to be whole and the right one: its length, its range, its kind and its pin are
 * checked, and only then does the promise resolve. The caller puts the file in its place.
 */
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
  etag?: string;
  /** Last-Modified in milliseconds since 1970; the file has it as its time. */
  modified?: number;
}

export interface FetcherOptions {
  /** Repetitions after a passing failure; default 5. */
  retries?: number;
  /** Milliseconds without a byte (or with less than 1 KiB) after which a connection is given up; default 30 s. */
  stall?: number;
  /** Milliseconds before the first repetition; default 500. */
  backoff?: number;
  /** How http and https are sent; default: node:http. */
  send?: Send;
}

export interface Fetcher {
  /**
   * Fetch a URL to a file.
   * @throws {FetchFailed} when the server has no such file, or not the right one, or every try failed.
   */
  toFile(request: FetchRequest): Promise<Fetched>;
  /** What the server says of a URL, without its body. Not repeated when it fails. */
  head(
    url: string,
    signal?: AbortSignal,
  ): Promise<{ size?: number; etag?: string; modified?: number }>;
  /** Let the kept connections go. */
  close(): void;
}

/** The whole file came, and it is another than the pinned one. */
class WrongContent extends FetchFailed {
  override name = "WrongContent";
}

/** A fetcher with connections of its own, for any number of files at once. */
export function createFetcher({
  retries = 5,
  stall = 30_000,
  backoff = 500,
  send,
}: FetcherOptions = {}): Fetcher {
  const connections = send ? undefined : openConnections();
  const web = send ?? connections?.send ?? sendFile;
  let netrc: Promise<string> | undefined;
  const login: FollowOptions["login"] = async (host) => {
    netrc ??= readNetrc();
    return loginFor(await netrc, host);
  };

  async function ask(
    request: Pick<FetchRequest, "url" | "allowDowngrade" | "sha256">,
    method: "GET" | "HEAD",
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<SendResponse> {
    const url = new URL(request.url);
    return await follow(
      senderFor(url, web),
      {
        url,
        method,
        signal,
        headers: {
          "user-agent": `boatyard/${version}`,
          accept: "*/*",
          // the bytes as they are, so that lengths and ranges mean the file itself
          "accept-encoding": "identity",
          ...headers,
        },
      },
      { login, allowDowngrade: request.allowDowngrade === true || request.sha256 !== undefined },
    );
  }

  async function toFile(request: FetchRequest): Promise<Fetched> {
    const file = new PartialFile(request.to);
    await file.load(request.url);
    let fresh = false;
    let furthest = file.size;
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          const fetched = await tryOnce(request, file, fresh);
          if (request.sha256 === undefined || !fetched.changed || fetched.sha256 === request.sha256)
            return fetched;
          throw new WrongContent(
            `the content is not the pinned one: its sha256 is ${fetched.sha256}; mend the pin if this is right`,
            { again: !fresh },
          );
        } catch (error) {
          request.signal?.throwIfAborted();
          // whoever got further than ever before has all its tries again
          if (file.size > furthest + 1024 * 1024) attempt = 1;
          furthest = Math.max(furthest, file.size);
          const retryAfter = error instanceof FetchFailed ? error.retryAfter : undefined;
          if (!isWorthRetry(error) || attempt > retries || (retryAfter ?? 0) > longestWait)
            throw error;
          fresh = error instanceof WrongContent;
          const wait = waitBefore(attempt, backoff, retryAfter);
          request.onRetry?.(error, wait);
          await sleep(wait, undefined, request.signal ? { signal: request.signal } : {});
        }
      }
    } catch (error) {
      if (isWorthRetry(error) || request.signal?.aborted) await file.leave();
      else await file.discard();
      request.signal?.throwIfAborted();
      throw error;
    }
  }

  /** One try. What came of it stays in `file`, for the next try to go on with. */
  async function tryOnce(
    request: FetchRequest,
    file: PartialFile,
    fresh: boolean,
  ): Promise<Fetched> {
    const watch = new Watch(stall, request.signal);
    try {
      const { validator } = file;
      const resume = !fresh && file.size > 0 && validator ? validator : undefined;
      if (!resume) await file.restart(request.url, undefined);
      const headers: Record<string, string> = fresh ? { "cache-control": "no-cache" } : {};
      if (resume) {
        headers["range"] = `bytes=${file.size}-`;
        headers["if-range"] = resume.ifRange;
      } else if (request.unless?.etag) headers["if-none-match"] = request.unless.etag;
      else if (request.unless?.modified !== undefined)
        headers["if-modified-since"] = new Date(request.unless.modified).toUTCString();
      const response = await watch.over(ask(request, "GET", headers, watch.signal));
      watch.saw();
      const about = aboutContent(response);
      if (response.status === 304 && request.unless && !resume) {
        response.body.resume();
        return { changed: false, sha256: "", size: 0, ...about };
      }
      await begin(request, response, file, resume);
      await receive(request, response, file, watch);
      const size = file.size;
      return { changed: true, size, ...about, sha256: await file.finish(about.modified) };
    } finally {
      watch.end();
    }
  }

  return {
    toFile,
    async head(url, signal) {
      const watch = new Watch(stall, signal);
      try {
        const response = await watch.over(ask({ url }, "HEAD", {}, watch.signal));
        response.body.on("error", () => {}).resume();
        if (response.status !== 200) throw statusFailure(response.status, response.reason);
        const size = headerNumber(response.headers["content-length"]);
        return { ...aboutContent(response), ...(size === undefined ? {} : { size }) };
      } finally {
        watch.end();
      }
    },
    close: () => connections?.close(),
  };
}

function senderFor(url: URL, web: Send): Send {
  if (url.protocol === "file:") return sendFile;
  if (url.protocol !== "s3:") return web;
  return async (request) => {
    const { sendS3 } = await import("./fetch-s3.ts");
    return await sendS3(request);
  };
}

/** The answer is a file, or the rest of one: make `file` ready for its body, or say what is wrong. */
async function begin(
  request: FetchRequest,
  response: SendResponse,
  file: PartialFile,
  resume: Validator | undefined,
): Promise<void> {
  const { status, headers, body } = response;
  const refuse = (error: FetchFailed): never => {
    body.on("error", () => {});
    // a short error page is read to its end, which keeps the connection for the next file
    if ((headerNumber(headers["content-length"]) ?? Number.POSITIVE_INFINITY) < 65_536)
      body.resume();
    else body.destroy();
    throw error;
  };
  const startOver = async (message: string) => {
    await file.restart(request.url, undefined);
    return refuse(new FetchFailed(message, { again: true }));
  };
  if (resume && status === 416) await startOver("the server has fewer bytes than before");
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
    if (wrong) await startOver("the server sent another range than the one asked for");
  } else {
    await file.restart(request.url, validatorOf(headers));
  }
  const whole = status === 206 ? file.size + (length ?? 0) : length;
  if (whole !== undefined && whole > (request.maxSize ?? Number.POSITIVE_INFINITY))
    refuse(tooLarge(request.maxSize ?? 0));
}

/** Read the body to its proven end. */
async function receive(
  request: FetchRequest,
  response: SendResponse,
  file: PartialFile,
  watch: Watch,
): Promise<void> {
  const length = headerNumber(response.headers["content-length"]);
  const name = request.name ?? posix.basename(new URL(request.url).pathname);
  const { stream, sent } = contentStream(response, name);
  const start = file.size;
  const total = length === undefined || sent ? undefined : start + length;
  const limit = request.maxSize ?? Number.POSITIVE_INFINITY;
  const onTheWire = () => sent?.() ?? file.size - start;
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) {
      watch.saw(chunk.length);
      await file.add(chunk);
      if (file.size > limit) throw tooLarge(limit);
      request.onProgress?.(file.size, total);
    }
  } catch (error) {
    throw watch.signal.aborted ? watch.signal.reason : cutOff(error, length, onTheWire());
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

function aboutContent({ headers }: SendResponse): { etag?: string; modified?: number } {
  const modified = Date.parse(headers["last-modified"] ?? "");
  return {
    ...(headers["etag"] === undefined ? {} : { etag: headers["etag"] }),
    ...(Number.isNaN(modified) ? {} : { modified }),
  };
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

/**
 * http and https over node-fetch: the same `Send`, for comparison (bench/downloads.ts). Redirects and
 * packed bodies are left alone, as in our own.
 */
export async function sendWithNodeFetch(agent: unknown): Promise<Send> {
  const { default: fetch } = await import("node-fetch");
  return async ({ url, method, headers, signal }) => {
    const response = await fetch(url, {
      method,
      headers,
      signal: signal as never,
      agent: agent as never,
      redirect: "manual",
      compress: false,
    });
    return {
      status: response.status,
      reason: response.statusText,
      headers: Object.fromEntries(response.headers),
      body: response.body as Readable,
    };
  };
}
