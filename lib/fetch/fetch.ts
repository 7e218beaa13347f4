import { setTimeout as sleep } from "node:timers/promises";
import { aboutContent, begin, type FetchRequest, type Fetched, receive } from "./response.ts";
import { headerNumber } from "./body.ts";
import { type FollowOptions, follow } from "./follow.ts";
import { PartialFile } from "./partial.ts";
import { FetchFailed, isWorthRetry, longestWait, statusFailure, waitBefore } from "./retry.ts";
import {
  type Connections,
  openConnections,
  type Send,
  sendFile,
  type SendResponse,
} from "./send.ts";
import { loginFor, readNetrc } from "./netrc.ts";
import { type Watch, Watches } from "./timeout.ts";
import { version } from "../core/version.ts";

/**
 * A URL to a file, hashed as it comes: with retries, resume of what broke off, logins from netrc,
 * proxies from the environment, and limits. http, https, file and s3.
 *
 * The body must prove to be whole and the right one: its length, its range, its kind and its pin are
 * checked, and only then does the promise resolve. The caller puts the file in its place.
 */
export type { Fetched, FetchRequest };
export { FetchFailed, reasonOf } from "./retry.ts";
export { type Answer, request, type RequestOptions } from "./send.ts";

export interface FetcherOptions {
  /** Repetitions after a passing failure; default 5. */
  retries?: number;
  /** Milliseconds without a byte (or with less than 1 KiB) after which a connection is given up; default 30 s. */
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
  /** What the server says of a URL, without its body. Not repeated when it fails. */
  head(
    url: string,
    signal?: AbortSignal,
  ): Promise<{ size?: number; etag?: string; modified?: number }>;
  /** Load what the web takes, while the caller waits for something else. */
  prepare(): void;
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
}: FetcherOptions = {}): Fetcher {
  const watches = new Watches(stall);
  let connections: Promise<Connections> | undefined;
  const web: Send = async (request) => {
    connections ??= openConnections();
    return await (await connections).send(request);
  };
  let buckets: Promise<Connections> | undefined;
  const s3: Send = async (request) => {
    buckets ??= import("./s3.ts").then(({ openBuckets }) => openBuckets());
    return await (await buckets).send(request);
  };
  const senderFor = ({ protocol }: URL) =>
    protocol === "file:" ? sendFile : protocol === "s3:" ? s3 : web;
  let netrc: Promise<string> | undefined;
  const login: FollowOptions["login"] = async (host) => {
    netrc ??= readNetrc();
    const text = await netrc;
    return text === "" ? undefined : loginFor(text, host);
  };

  async function ask(
    request: Pick<FetchRequest, "url" | "allowDowngrade" | "sha256">,
    method: "GET" | "HEAD",
    headers: Record<string, string>,
    watch: Watch,
  ): Promise<SendResponse> {
    const url = new URL(request.url);
    return await follow(
      senderFor(url),
      {
        url,
        method,
        watch,
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
            return request.handOver && fetched.changed
              ? { ...fetched, open: file.handOver() }
              : fetched;
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
      if (isWorthRetry(error) || request.signal?.aborted) file.leave();
      else file.discard();
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
    const watch = watches.begin(request.signal);
    try {
      const { validator } = file;
      const resume = !fresh && file.size > 0 && validator ? validator : undefined;
      if (!resume) file.restart(request.url, undefined);
      const headers: Record<string, string> = fresh ? { "cache-control": "no-cache" } : {};
      if (resume) {
        headers["range"] = `bytes=${file.size}-`;
        headers["if-range"] = resume.ifRange;
      } else if (request.unless?.etag) headers["if-none-match"] = request.unless.etag;
      else if (request.unless?.modified !== undefined)
        headers["if-modified-since"] = new Date(request.unless.modified).toUTCString();
      const response = await ask(request, "GET", headers, watch);
      watch.saw();
      const about = aboutContent(response);
      if (response.status === 304 && request.unless && !resume) {
        response.body.resume();
        return { changed: false, sha256: "", size: 0, ...about };
      }
      begin(request, response, file, resume);
      await receive(request, response, file, watch);
      const size = file.size;
      return {
        changed: true,
        size,
        ...about,
        sha256: await file.finish(about.modified, request.flush !== false, request.handOver),
      };
    } finally {
      watch.end();
    }
  }

  return {
    toFile,
    async head(url, signal) {
      const watch = watches.begin(signal);
      try {
        const response = await ask({ url }, "HEAD", {}, watch);
        response.body.on("error", () => {}).resume();
        if (response.status !== 200) throw statusFailure(response.status, response.reason);
        const size = headerNumber(response.headers["content-length"]);
        return { ...aboutContent(response), ...(size === undefined ? {} : { size }) };
      } finally {
        watch.end();
      }
    },
    prepare() {
      connections ??= openConnections();
    },
    close() {
      for (const open of [connections, buckets]) void open?.then(({ close }) => close());
    },
  };
}
