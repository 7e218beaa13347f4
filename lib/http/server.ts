import type { Buffer as NodeBuffer } from "node:buffer";
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";
import { messageOf, UsageError } from "../core/errors.ts";

/** The parts of a small HTTP server that hook-server and slave-server share: addresses, limits, bodies, answers. */

/** Where a server listens. */
export type Listen = { host: string; port: number } | { path: string };

/**
 * Read `127.0.0.1:3420`, `[::1]:3420`, `localhost:3420`, `:3420` (all addresses), `3420` (loopback) or `unix:/path`.
 * @throws {UsageError} for anything else.
 */
export function parseListen(text: string): Listen {
  const path = /^(?:unix:)?(\/.+)$/.exec(text)?.[1];
  if (path) return { path };
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (!match || port > 65535 || (match[1] && isIP(match[1]) !== 6)) {
    throw new UsageError(
      `"${text}" is not an address to listen on; write 127.0.0.1:3420, [::1]:3420, :3420 or unix:/path`,
    );
  }
  return { host: host === undefined ? "127.0.0.1" : host === "" ? "0.0.0.0" : host, port };
}

/** An address as `parseListen` takes it. */
export function formatListen(listen: Listen): string {
  if ("path" in listen) return `unix:${listen.path}`;
  return `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
}

/** An answer other than 200, thrown by whoever finds the reason; `message` is sent to the client as it is. */
export class HttpError extends Error {
  override name = "HttpError";
  readonly status: number;
  readonly headers: Record<string, string>;
  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

/** Send a JSON document with its length. */
export function sendJson(
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string> = {},
): void {
  // text, not a Buffer: Node sends it with the headers in one write
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json; charset=utf-8",
    "content-length": String(Buffer.byteLength(body)),
  });
  response.end(body);
}

export interface ServerOptions {
  /** Milliseconds within which the headers must have come; default 10 s. */
  headersTimeout?: number;
  /** Milliseconds within which headers and body must have come; default 20 s. */
  requestTimeout?: number;
}

/**
 * A server that closes slow connections, and turns what a handler throws into a JSON answer with one `error` line.
 * An HttpError is answered as it says; anything else is a bug: 500 without detail, and `onBug` is told.
 */
export function createHttpServer(
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void> | void,
  onBug: (error: unknown) => void,
  { headersTimeout = 10_000, requestTimeout = 20_000 }: ServerOptions = {},
): Server {
  const server = createServer({
    headersTimeout,
    requestTimeout,
    connectionsCheckingInterval: 1000,
    maxHeaderSize: 16 * 1024,
  });
  server.on("request", (request, response) => {
    void answer(request, response);
  });
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      await handle(request, response);
    } catch (error) {
      if (!(error instanceof HttpError)) onBug(error);
      if (response.headersSent) return void response.destroy();
      const status = error instanceof HttpError ? error.status : 500;
      // what was not read of the request must not be taken for the next one
      const close: Record<string, string> = request.complete ? {} : { connection: "close" };
      sendJson(
        response,
        status,
        { error: error instanceof HttpError ? error.message : "internal error" },
        {
          ...(error instanceof HttpError ? error.headers : {}),
          ...close,
        },
      );
    }
  }
  return server;
}

/**
 * The whole body of a request.
 * @throws {HttpError} 413 over `max` bytes (by Content-Length before a byte is read), 408 after `timeout` ms, 400 when it is cut off.
 */
export function readBody(
  request: IncomingMessage,
  { max, timeout = 10_000 }: { max: number; timeout?: number },
): Promise<NodeBuffer> {
  if (Number(request.headers["content-length"] ?? 0) > max) {
    return Promise.reject(new HttpError(413, `body over ${max} bytes`));
  }
  return new Promise((resolve, reject) => {
    const chunks: NodeBuffer[] = [];
    let size = 0;
    let settled = false;
    const settle = () => {
      settled = true;
      clearTimeout(timer);
    };
    const stop = (status: number, message: string) => {
      if (settled) return;
      settle();
      request.pause();
      reject(new HttpError(status, message));
    };
    const timer = setTimeout(stop, timeout, 408, "body came too slowly");
    request.on("data", (chunk: NodeBuffer) => {
      size += chunk.length;
      if (size > max) stop(413, `body over ${max} bytes`);
      else chunks.push(chunk);
    });
    request.on("end", () => {
      if (settled) return;
      settle();
      resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks));
    });
    const cutOff = () => stop(400, "body was cut off");
    request.on("error", cutOff);
    request.on("close", cutOff);
  });
}

/**
 * Start listening; the address it got is returned (port 0 asks for a free one).
 * @throws {UsageError} when the address cannot be had.
 */
export function listenOn(server: Server, listen: Listen | { fd: number }): Promise<Listen> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) => {
      const where = "fd" in listen ? `descriptor ${listen.fd}` : formatListen(listen);
      reject(
        new UsageError(
          `cannot listen on ${where}: ${messageOf(error)}; name another address, or stop the process that listens there`,
        ),
      );
    };
    server.once("error", onError);
    server.listen(listen, () => {
      server.off("error", onError);
      const address = server.address();
      if (address === null || typeof address === "string") resolve({ path: address ?? "" });
      else resolve({ host: address.address, port: address.port });
    });
  });
}
