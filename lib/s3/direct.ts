import type { Readable } from "node:stream";

/**
 * Small puts without the SDK's way through its middleware, which takes more time than the request itself
 * (bench/uploads.ts). The first put goes the SDK's way and shows what a request to this bucket looks like; those
 * that follow are made after it, signed by the SDK's signer and sent by its connection pool. Any answer but 200
 * is left to the SDK: the same put is then made once more by the long way, which knows all about errors.
 */

interface Request {
  path: string;
  headers: Record<string, string>;
  body?: unknown;
  clone(): Request;
}

interface Answer {
  response: { statusCode: number; headers: Record<string, string>; body: Readable };
}

/** The parts of the SDK's configuration that are used here; test/lib/s3/direct.test.ts fails when they go. */
interface Parts {
  signer(): Promise<{ sign(request: Request, options: { signingDate: Date }): Promise<Request> }>;
  requestHandler: { handle(request: Request, options: object): Promise<Answer> };
  systemClockOffset: number;
}

export interface DirectPut {
  /** Middleware for a put that goes the long way: it learns from its request. */
  learn(key: string): (next: (args: { request: Request }) => unknown) => (args: never) => unknown;
  /** Put by the short way; gives the ETag, or undefined when the long way must be taken. */
  put(
    key: string,
    body: Uint8Array,
    headers: Record<string, string>,
    signal?: AbortSignal,
  ): Promise<string | undefined>;
}

/** Larger bodies ask the server first (Expect: 100-continue), which is the SDK's business. */
const largest = 1024 * 1024;

export function createDirectPut(client: { config: unknown }, bucket: string): DirectPut {
  const config = client.config as Parts;
  // directory buckets have sessions of their own; another SDK may have other parts: then all goes the long way
  const isPossible =
    !bucket.endsWith("--x-s3") &&
    typeof config.signer === "function" &&
    typeof config.requestHandler?.handle === "function";
  let example: { request: Request; base: string } | undefined;
  return {
    learn: (key) => (next) => (args: { request: Request }) => {
      const { request } = args;
      const path = encodedKey(key);
      if (isPossible && !example && request.path.endsWith(`/${path}`))
        example = { request: request.clone(), base: request.path.slice(0, -path.length) };
      return next(args);
    },
    async put(key, body, headers, signal) {
      if (!example || body.length > largest) return undefined;
      const request = example.request.clone();
      const { host = "", "user-agent": agent = "" } = example.request.headers;
      request.path = example.base + encodedKey(key);
      request.headers = { host, "user-agent": agent, ...headers };
      request.body = body;
      const signer = await config.signer();
      const signingDate = new Date(Date.now() + config.systemClockOffset);
      const signed = await signer.sign(request, { signingDate });
      const options = signal ? { abortSignal: signal } : {};
      const { response } = await config.requestHandler.handle(signed, options);
      // its connection serves the next request once the answer is read
      response.body.resume();
      return response.statusCode === 200 ? response.headers["etag"] : undefined;
    },
  };
}

/** A key in a path, as Signature Version 4 wants it: every byte but the unreserved ones and `/` encoded. */
function encodedKey(key: string): string {
  const hex = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(key)
    .replace(/[!'()*]/g, hex)
    .replaceAll("%2F", "/");
}
