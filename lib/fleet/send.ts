import { Buffer } from "node:buffer";
import { Agent as HttpAgent, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { isIP, type Socket } from "node:net";
import { systemCode } from "../core/errors.ts";
import { signatureHeader, signRequest } from "./sign.ts";

/**
 * One small request to one slave. It is node:http and not node-fetch: over thousands of hosts node-fetch takes
 * about twice the time and memory (bench/fleet.ts shows both).
 */

export interface SenderOptions {
  /** Signs every request. */
  secret?: string | undefined;
  /** PEM: the authority that signed the slaves' certificates, instead of the public ones. */
  ca?: string | undefined;
  /** Milliseconds for the connection, TLS included; the look-up of a name is not counted. */
  connectTimeout: number;
  /** Milliseconds for all of it. */
  timeout: number;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  /** The body, if it is a JSON object. */
  json: Record<string, unknown> | undefined;
  /** The body's first line, for messages. */
  text: string;
  retryAfter: number | undefined;
}

/** No answer came, or none that could be read. */
export class NoAnswer extends Error {
  override name = "NoAnswer";
  /** Whether the request may have reached the slave. */
  readonly sent: boolean;
  constructor(message: string, sent: boolean) {
    super(message);
    this.sent = sent;
  }
}

/** Answers here are a line of JSON; more is somebody else's server. */
const longestAnswer = 64 * 1024;

export interface Sender {
  /**
   * GET a URL.
   * @param patience milliseconds added to the time limit, for answers that the slave holds back
   * @throws {NoAnswer}
   */
  get(url: URL, patience?: number): Promise<Answer>;
  close(): void;
}

export function createSender(options: SenderOptions): Sender {
  // a connection a request: each slave is asked once or twice, and an idle socket a slave is memory
  const agents = {
    "http:": new HttpAgent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY }),
    "https:": new HttpsAgent({
      keepAlive: false,
      maxSockets: Number.POSITIVE_INFINITY,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
    }),
  };
  // one listener for all: hundreds on one signal cost more than the requests
  const underWay = new Set<() => void>();
  const interrupt = () => {
    for (const stop of [...underWay]) stop();
  };
  options.signal?.addEventListener("abort", interrupt, { once: true });
  return {
    get: (url, patience = 0) => exchange(url, patience, agents, options, underWay),
    close() {
      options.signal?.removeEventListener("abort", interrupt);
      agents["http:"].destroy();
      agents["https:"].destroy();
    },
  };
}

function exchange(
  url: URL,
  patience: number,
  agents: { "http:": HttpAgent; "https:": HttpsAgent },
  { secret, connectTimeout, timeout, signal }: SenderOptions,
  underWay: Set<() => void>,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const path = url.pathname + url.search;
    const headers: Record<string, string> = { accept: "application/json", connection: "close" };
    if (secret !== undefined) headers[signatureHeader] = signRequest(secret, "GET", path);
    const secure = url.protocol === "https:";
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const start = secure ? httpsRequest : httpRequest;
    const request = start({
      host,
      port: url.port === "" ? (secure ? 443 : 80) : Number(url.port),
      path,
      headers: { ...headers, host: url.host },
      agent: secure ? agents["https:"] : agents["http:"],
    });
    let connected = false;
    let settled = false;
    let connectTimer: NodeJS.Timeout | undefined;
    const timer = setTimeout(() => {
      fail(`no answer within ${seconds(timeout + patience)}`);
    }, timeout + patience);
    const stop = () => fail("interrupted");
    underWay.add(stop);
    if (signal?.aborted) stop();

    function settle(): boolean {
      if (settled) return false;
      settled = true;
      clearTimeout(timer);
      clearTimeout(connectTimer);
      underWay.delete(stop);
      return true;
    }
    function fail(message: string): void {
      if (!settle()) return;
      reject(new NoAnswer(message, connected));
      request.destroy();
    }
    function awaitConnection(): void {
      connectTimer ??= setTimeout(() => {
        fail(`no connection within ${seconds(connectTimeout)}`);
      }, connectTimeout);
    }

    request.on("socket", (socket: Socket) => {
      // many names at once wait for the resolver: that is not the slave's fault
      if (isIP(host)) awaitConnection();
      else socket.once("lookup", awaitConnection);
      socket.once(secure ? "secureConnect" : "connect", () => {
        connected = true;
        clearTimeout(connectTimer);
      });
    });
    request.on("error", (error) => fail(reasonOf(error)));
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > longestAnswer) fail("the answer is no slave-server's: it is too long");
        else chunks.push(chunk);
      });
      response.on("error", (error) => fail(reasonOf(error)));
      response.on("close", () => {
        if (!response.complete) fail("the answer was cut off");
      });
      response.on("end", () => {
        if (!settle()) return;
        const text = Buffer.concat(chunks).toString("utf8").trim();
        const wait = Number(response.headers["retry-after"]);
        resolve({
          status: response.statusCode ?? 0,
          json: parseObject(text),
          // control characters of a stranger must not reach the terminal
          text: (text.split("\n", 1)[0] ?? "").replace(/[\x00-\x1f\x7f-\x9f]/g, "").slice(0, 200),
          retryAfter: Number.isFinite(wait) && wait > 0 ? wait * 1000 : undefined,
        });
      });
    });
    request.end();
  });
}

function seconds(ms: number): string {
  return `${ms / 1000} s`;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

const plainWords: Record<string, string> = {
  ECONNREFUSED: "connection refused: no slave-server listens there",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to its network",
  ENOTFOUND: "there is no host of that name",
  EAI_AGAIN: "its name could not be looked up",
  ETIMEDOUT: "the connection timed out",
  EMFILE: "too many open files here; raise ulimit -n or lower --jobs",
};

/** Node gives codes of OpenSSL, Deno words of rustls. */
function aboutCertificate(code = "", message: string): string | undefined {
  if (code === "CERT_HAS_EXPIRED" || /certificate.*Expired/.test(message))
    return "its certificate has expired";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID" || /certificate.*NotValidForName/.test(message))
    return "its certificate is for another name";
  if (!/CERT|ERR_TLS|UNABLE_TO_VERIFY/.test(code) && !/invalid peer certificate/.test(message))
    return undefined;
  return `its certificate is not trusted (${code || message}); see --ca`;
}

function reasonOf(error: Error): string {
  const code = systemCode(error);
  // several addresses of one host, each with its own error (happy eyeballs)
  const inner = (error as { errors?: Error[] }).errors?.[0];
  if (code === undefined && inner) return reasonOf(inner);
  if (code !== undefined && plainWords[code] !== undefined) return plainWords[code];
  const certificate = aboutCertificate(code, error.message);
  if (certificate !== undefined) return certificate;
  return code === undefined || error.message.includes(code)
    ? error.message
    : `${error.message} (${code})`;
}
