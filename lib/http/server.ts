import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { limitConnections } from "./connections.ts";

export { clientAddress, networkOf, peerOf } from "./connections.ts";
export {
  closeServer,
  formatListen,
  type Listen,
  listenOn,
  listenPrivately,
  parseListen,
} from "./listen.ts";

/** The parts of a small HTTP server that hook-server and slave-server share: limits, bodies, answers. */

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
  response.writeHead(status, { ...headers, ...jsonHeaders(body) });
  response.end(body);
}

function jsonHeaders(body: string): Record<string, string> {
  return {
    "content-type": "application/json; charset=utf-8",
    "content-length": String(Buffer.byteLength(body)),
  };
}

/** Milliseconds within which the headers must have come, and headers and body. */
const [headersTimeout, requestTimeout] = [10_000, 20_000];
/** Connections at once: this leaves room below the usual 1,024 descriptors. */
const maxConnections = 800;

/** Tells a client that waits for it (`Expect: 100-continue`) to send its body. */
const continuations = new WeakMap<IncomingMessage, () => void>();

/**
 * A server that closes slow connections, and turns what a handler throws into a JSON answer with one `error` line.
 * An HttpError is answered as it says; anything else is a bug: 500 without detail, and `onBug` is told.
 */
export function createHttpServer(
  handle: (request: IncomingMessage, response: ServerResponse) => Promise<void> | void,
  onBug: (error: unknown) => void,
): Server {
  const server = createServer({
    headersTimeout,
    requestTimeout,
    connectionsCheckingInterval: 1000,
    maxHeaderSize: 16 * 1024,
  });
  // a client may close its side when it has sent all, and still waits for its answer
  Object.assign(server, { httpAllowHalfOpen: true });
  limitConnections(server, maxConnections);
  server.on("request", (request, response) => {
    void answer(request, response);
  });
  server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
    continuations.set(request, () => response.writeContinue());
    void answer(request, response);
  });
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      refuseOddFraming(request);
      await handle(request, response);
    } catch (error) {
      if (!(error instanceof HttpError)) onBug(error);
      if (response.headersSent || request.socket.destroyed) return void response.destroy();
      const { status, message, headers } = error instanceof HttpError ? error : new HttpError(500, "internal error");
      if (request.complete) sendJson(response, status, { error: message }, headers);
      else answerEarly(request, response, status, { error: message }, headers);
    }
  }
  return server;
}

/** @throws {HttpError} for what a proxy in front may have read in another way than our parser (RFC 9112, 6.1). */
function refuseOddFraming(request: IncomingMessage): void {
  if (request.httpVersion === "1.0" && request.headers["transfer-encoding"] !== undefined)
    throw new HttpError(400, "HTTP/1.0 has no transfer encodings");
}

/** How long, and for how many bytes, a request is read on after its answer. */
const linger = { time: 5000, bytes: 32 * 1024 * 1024 };

/**
 * Answer a request whose body was not read, and close the connection so that the answer arrives (RFC 9112, 9.6): if it
 * were closed while data still comes, it would be reset, and many clients would see that instead. So what comes is read
 * and dropped for a while; the end of the answer is held back until then, but its length has told the client already.
 */
function answerEarly(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string>,
): void {
  const body = `${JSON.stringify(value)}\n`;
  response.writeHead(status, { ...jsonHeaders(body), ...headers, connection: "close" });
  response.write(body);
  let left = linger.bytes;
  const close = () => {
    clearTimeout(timer);
    response.end();
  };
  const timer = setTimeout(close, linger.time);
  request.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) close();
  });
  for (const event of ["end", "error", "close"]) request.on(event, close);
  request.resume();
}

interface BodyOptions {
  /** Bytes that a body may have. */
  max: number;
  /**
   * Told of the bytes of each piece of a body that comes piece by piece, before they are kept. By `stop` reading is
   * ended early, and rejected with that reason.
   */
  onPiece?: (bytes: number, stop: (reason: Error) => void) => void;
}

/** Milliseconds within which a body must have come. */
const bodyTimeout = 10_000;
const nothing = Buffer.alloc(0);

/**
 * The whole body of a request. What is kept grows with what has come: a length that is only announced costs nothing.
 * @throws {HttpError} 413 over `max` bytes (by Content-Length before a byte is read), 408 after 10 s, 400: cut off.
 */
export function readBody(request: IncomingMessage, { max, onPiece }: BodyOptions): Promise<Buffer> {
  const announced = Number(request.headers["content-length"] ?? 0);
  if (announced > max) return Promise.reject(new HttpError(413, `body over ${max} bytes`));
  const { socket } = request;
  return new Promise((resolve, reject) => {
    let body: Buffer = nothing;
    let size = 0;
    let settled = false;
    const settle = () => {
      settled = true;
      clearTimeout(timer);
      socket.off("end", onSocketEnd);
      const read = body.subarray(0, size);
      // a connection that idles remembers its last request
      body = nothing;
      return read;
    };
    const stop = (reason: Error) => {
      if (settled) return;
      settle();
      request.pause();
      reject(reason);
    };
    // every request is closed in the end: an error, with its stack, is made for those that are not whole
    const cutOff = () => {
      if (!settled) stop(new HttpError(400, "body was cut off"));
    };
    // Deno tells the request nothing of it
    const onSocketEnd = () => {
      if (!request.complete) cutOff();
    };
    const timer = setTimeout(() => stop(new HttpError(408, "body came too slowly")), bodyTimeout);
    request.on("data", (chunk: Buffer) => {
      if (settled) return;
      // a whole body is kept as it came
      if (chunk.length === announced) body = chunk;
      else {
        if (size + chunk.length > max) return stop(new HttpError(413, `body over ${max} bytes`));
        onPiece?.(chunk.length, stop);
        if (settled) return;
        // copied: a piece of a byte may be a window on a buffer of 64 KiB
        if (size + chunk.length > body.length) body = grown(body, size + chunk.length, max);
        chunk.copy(body, size);
      }
      size += chunk.length;
    });
    request.on("end", () => {
      if (!settled) resolve(settle());
    });
    request.on("error", cutOff).on("close", cutOff);
    socket.once("end", onSocketEnd);
    continuations.get(request)?.();
  });
}

/** A copy with room for `needed` bytes, and for as much again: then each byte is copied twice at most. */
function grown(body: Buffer, needed: number, max: number): Buffer {
  const larger = Buffer.allocUnsafe(Math.min(max, Math.max(needed, 2 * body.length, 16 * 1024)));
  body.copy(larger);
  return larger;
}
