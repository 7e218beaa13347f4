import { setTimeout as sleep } from "node:timers/promises";
import { version } from "../core/version.ts";
import { loginFor, readNetrc } from "./netrc.ts";
import { PartialFile } from "./partial.ts";
import { aboutContent, acceptAnswer, type Fetched, type FetchRequest, headerNumber, receive } from "./response.ts";
import { FetchFailed, isWorthRetry, maxWait, statusFailure, waitBefore } from "./retry.ts";
import { type Connections, type FollowOptions, follow, openConnections, type SendRequest, sendFile } from "./send.ts";

/**
 * A URL to a file, hashed as it comes: with retries, resume of what broke off, logins from netrc,
 * proxies from the environment, and limits. http, https, file and s3.
 *
 * The body must prove to be whole and the right one: its length, its range, its kind and its pin are
 * checked, and only then does the promise resolve. The caller puts the file in its place.
 */
export type { Fetched, FetchRequest };
export { basicAuthorization } from "../http/proxy.ts";
export { FetchFailed, parseRetryAfter, reasonOf } from "./retry.ts";
export { type Answer, request, type RequestOptions } from "./request.ts";

export interface FetcherOptions {
  /** Repetitions after a passing failure; default 5. */
  retries?: number;
  /** Milliseconds in which at least 1 KiB must come, else the connection is given up; default 30 s. */
  stall?: number;
  /** Milliseconds before the first repetition; default 500. */
  backoff?: number;
}

export interface Fetcher {
  /**
   * Fetch a URL to a file.
   * @throws {FetchFailed} when the server has no such file, or not the right one, or every try failed.
   */
  toFile(request: FetchRequest): Promise<Fetched>;
  /**
   * Some bytes of a URL's content. Not repeated when it fails.
   * @throws {FetchFailed} unless the server gives just these.
   */
  part(url: string, at: number, size: number, signal?: AbortSignal): Promise<Buffer>;
  /** What the server says of a URL, without its body. Not repeated when it fails. */
  head(url: string, signal?: AbortSignal): Promise<{ size?: number; etag?: string; modified?: number }>;
  /** Close the kept connections. */
  close(): void;
}

/** Fewer bytes than this in the time of a stall are not a transfer but a connection held open. */
const minProgress = 1024;

/** Ends a transfer that does not progress: a server may hold a connection open for ever. */
function startStall(stall: number, outer: AbortSignal | undefined) {
  const abort = new AbortController();
  let why = "no answer for";
  let bytes = 0;
  const timer = setTimeout(() => {
    const what = bytes > 0 ? `the server is too slow: ${bytes} bytes in` : why;
    abort.abort(new FetchFailed(`${what} ${stall / 1000} s`, { again: true }));
  }, stall);
  return {
    /** Aborted when nothing comes, or with `outer`. */
    signal: outer ? AbortSignal.any([outer, abort.signal]) : abort.signal,
    /** The answer's head came. */
    answered() {
      why = "nothing more came for";
      timer.refresh();
    },
    /** Bytes of the body came. */
    progress(count: number) {
      bytes += count;
      if (bytes < minProgress) return;
      bytes = 0;
      timer.refresh();
    },
    stop: () => clearTimeout(timer),
  };
}

/** A fetcher with connections of its own, for any number of files at once. */
export function createFetcher({ retries = 5, stall = 30_000, backoff = 500 }: FetcherOptions = {}): Fetcher {
  let web: Promise<Connections> | undefined;
  let buckets: Promise<Connections> | undefined;
  const senderFor = async ({ protocol }: URL) => {
    if (protocol === "file:") return sendFile;
    if (protocol === "s3:")
      return (await (buckets ??= import("./s3.ts").then(({ openBuckets }) => openBuckets()))).send;
    return (await (web ??= openConnections())).send;
  };
  let netrc: Promise<string> | undefined;
  const login: FollowOptions["login"] = async (host) => loginFor(await (netrc ??= readNetrc()), host);

  // the bytes as they are, so that lengths and ranges mean the file itself
  const common = { "user-agent": `boatyard/${version}`, accept: "*/*", "accept-encoding": "identity" };
  const ask = async (request: Omit<SendRequest, "url"> & { url: string }, allowDowngrade: boolean) => {
    const url = new URL(request.url);
    const headers = { ...common, ...request.headers };
    return await follow(await senderFor(url), { ...request, url, headers }, { login, allowDowngrade });
  };

  async function toFile(request: FetchRequest): Promise<Fetched> {
    const file = new PartialFile(request.to, request.url);
    await file.load();
    let fresh = false;
    let furthest = file.size;
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          const fetched = await tryOnce(request, file, fresh);
          if (!fetched.changed || !request.handOver) file.close();
          else fetched.fd = file.handOver();
          return fetched;
        } catch (error) {
          request.signal?.throwIfAborted();
          // a try that got further than ever before starts the count anew
          if (file.size > furthest + 1024 * 1024) attempt = 1;
          furthest = Math.max(furthest, file.size);
          const failure = error instanceof FetchFailed ? error : undefined;
          const wrong = failure?.reason === "wrong content";
          const { retryAfter } = failure ?? {};
          // another content than the pinned one may have come from a cache: it is asked past, once
          const isWorth = wrong ? !fresh : isWorthRetry(error);
          if (!isWorth || attempt > retries || (retryAfter ?? 0) > maxWait) throw error;
          fresh = wrong;
          const wait = waitBefore(attempt, backoff, retryAfter);
          request.onRetry?.(error, wait);
          await sleep(wait, undefined, request.signal ? { signal: request.signal } : {});
        }
      }
    } catch (error) {
      if (isWorthRetry(error) || request.signal?.aborted) file.leave();
      else file.discard();
      request.signal?.throwIfAborted();
      throw error;
    }
  }

  /** One try. What came of it stays in `file`, for the next try to continue. */
  async function tryOnce(request: FetchRequest, file: PartialFile, fresh: boolean): Promise<Fetched> {
    const timer = startStall(stall, request.signal);
    try {
      const { validator } = file;
      const resume = !fresh && file.size > 0 && validator ? validator : undefined;
      if (!resume) file.restart();
      const headers: Record<string, string> = fresh ? { "cache-control": "no-cache" } : {};
      if (resume) {
        headers["range"] = `bytes=${file.size}-`;
        headers["if-range"] = resume.ifRange;
      } else if (request.unless?.etag) headers["if-none-match"] = request.unless.etag;
      else if (request.unless?.modified !== undefined)
        headers["if-modified-since"] = new Date(request.unless.modified).toUTCString();
      const allowDowngrade = request.allowDowngrade === true || request.sha256 !== undefined;
      const response = await ask({ url: request.url, method: "GET", headers, signal: timer.signal }, allowDowngrade);
      timer.answered();
      const about = aboutContent(response);
      if (response.status === 304 && request.unless && !resume) {
        response.body.resume();
        return { changed: false, sha256: "", size: 0, ...about };
      }
      acceptAnswer(request, response, file, resume);
      await receive(request, response, file, (count) => timer.progress(count));
      const sha256 = await file.finish(about.modified, request.flush !== false);
      if (request.sha256 !== undefined && sha256 !== request.sha256)
        throw new FetchFailed(
          `the content is not the pinned one: its sha256 is ${sha256}; fix the pin if this is right`,
          { reason: "wrong content" },
        );
      return { changed: true, size: file.size, sha256, ...about };
    } catch (error) {
      throw timer.signal.aborted ? timer.signal.reason : error;
    } finally {
      timer.stop();
    }
  }

  async function part(url: string, at: number, size: number, signal?: AbortSignal): Promise<Buffer> {
    const timer = startStall(stall, signal);
    const range = `${at}-${at + size - 1}`;
    const pieces: Buffer[] = [];
    let got = 0;
    try {
      const headers = { range: `bytes=${range}` };
      const { status, headers: about, body } = await ask({ url, method: "GET", headers, signal: timer.signal }, true);
      const isPart = status === 206 && about["content-range"]?.startsWith(`bytes ${range}/`);
      // to leave the loop ends the connection
      if (isPart)
        for await (const piece of body as AsyncIterable<Buffer>) {
          timer.progress(piece.length);
          got += piece.length;
          if (got > size) break;
          pieces.push(piece);
        }
      else body.on("error", () => {}).destroy();
      if (!isPart) throw new FetchFailed(`the server gives no parts of a file (status ${status})`);
      if (got !== size) throw new FetchFailed(`${got} bytes came of a part of ${size}`);
      return Buffer.concat(pieces);
    } catch (error) {
      throw timer.signal.aborted ? timer.signal.reason : error;
    } finally {
      timer.stop();
    }
  }

  return {
    toFile,
    part,
    async head(url, signal) {
      const timer = startStall(stall, signal);
      try {
        const response = await ask({ url, method: "HEAD", headers: {}, signal: timer.signal }, false);
        response.body.on("error", () => {}).resume();
        if (response.status !== 200) throw statusFailure(response.status, response.reason);
        const size = headerNumber(response.headers["content-length"]);
        return { ...aboutContent(response), ...(size === undefined ? {} : { size }) };
      } finally {
        timer.stop();
      }
    },
    close() {
      for (const open of [web, buckets]) void open?.then(({ close }) => close());
    },
  };
}
