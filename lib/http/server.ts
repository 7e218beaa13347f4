import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isIP } from "node:net";

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

/** The requests that came over a Unix socket. */
const localRequests = new WeakSet<IncomingMessage>();

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
  server.on("request", (request, response) => {
    void answer(request, response);
  });
  server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) => {
    continuations.set(request, () => response.writeContinue());
    void answer(request, response);
  });
  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const address = server.address();
    if (address === null || typeof address === "string") localRequests.add(request);
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

/** Milliseconds within which a body must have come. */
const bodyTimeout = 10_000;

/**
 * The whole body of a request. What is kept grows with what has come: a length that is only announced costs nothing.
 * @throws {HttpError} before a byte is read: 411 without Content-Length (a byte a chunk would take a hundred times its
 * size), 413 over `max` bytes; else 408 after 10 s, 400: cut off.
 */
export function readBody(request: IncomingMessage, max: number): Promise<Buffer> {
  const { "content-length": length } = request.headers;
  if (length === undefined) return Promise.reject(new HttpError(411, "send a Content-Length"));
  if (Number(length) > max) return Promise.reject(new HttpError(413, `body over ${max} bytes`));
  const { socket } = request;
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const keep = (chunk: Buffer) => chunks.push(chunk);
    const settle = (reason?: HttpError) => {
      clearTimeout(timer);
      request.off("data", keep);
      socket.off("end", cutOff);
      if (!reason) return resolve(Buffer.concat(chunks));
      request.pause();
      reject(reason);
    };
    const cutOff = () => {
      if (!request.complete) settle(new HttpError(400, "body was cut off"));
    };
    const timer = setTimeout(() => settle(new HttpError(408, "body came too slowly")), bodyTimeout);
    request.on("data", keep).once("end", () => settle());
    request.on("error", cutOff).on("close", cutOff);
    // Deno tells the request nothing of it
    socket.once("end", cutOff);
    continuations.get(request)?.();
  });
}

/** Whether a request came over a Unix socket: from whoever may open it. */
export function isLocal(request: IncomingMessage): boolean {
  return localRequests.has(request);
}

/**
 * Who sends a request, for the log: the peer's address, or what a proxy on this machine says in the last place of
 * X-Forwarded-For. Whatever else runs on this machine can claim any over TCP.
 */
export function clientAddress(request: IncomingMessage): string {
  // a dual-stack socket writes IPv4 addresses as IPv6 ones
  const peer = (request.socket.remoteAddress ?? "").replace(/^::ffff:(?=\d+\.)/i, "");
  if (!isLocal(request) && !/^(?:::1|127\..*)$/.test(peer)) return peer;
  const told = String(request.headers["x-forwarded-for"] ?? "");
  const last = told.split(",").at(-1)?.trim() ?? "";
  return isIP(last) ? last : peer || "a socket";
}
