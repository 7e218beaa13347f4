import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { Agent, ClientRequest, IncomingMessage } from "node:http";
import { isIP, type Socket } from "node:net";
import process from "node:process";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { FetchFailed } from "./retry.ts";
import type { Watch } from "./timeout.ts";
import { openWire } from "./wire.ts";
import { basicAuthorization, loginOf, proxyFor } from "../http/proxy.ts";
import { proxyAuthorization, tunnellingAgent } from "../http/tunnel.ts";

/**
 * One request and its answer: no redirects, no retries. Each kind of URL has its own `Send`.
 *
 * http and https go over node:http and not over node-fetch: for a thousand small files 20 ms away
 * node-fetch takes half as long again (bench/downloads.ts shows both).
 */
export interface SendRequest {
  url: URL;
  method: "GET" | "HEAD";
  /** Names in lower case. */
  headers: Record<string, string>;
  /** Says when to break the connection, also while the body comes. */
  watch: Watch;
}

export interface SendResponse {
  status: number;
  reason: string;
  /** Names in lower case. */
  headers: Record<string, string | undefined>;
  /** As sent: a Content-Encoding is not undone. */
  body: Readable;
  /** The body again, when its connection may be able to give it straight (lib/fetch/wire.ts). */
  wire?: IncomingMessage;
}

export type Send = (request: SendRequest) => Promise<SendResponse>;

/** A sender over connections that are kept and used again. */
export interface Connections {
  send: Send;
  close(): void;
}

/** Connections for http and https, through the environment's proxies. */
export async function openConnections(): Promise<Connections> {
  const [{ default: http }, { default: net }] = await Promise.all([
    import("node:http"),
    import("node:net"),
  ]);
  const plain = new http.Agent(agentOptions);
  // Deno's HTTP client reads from no socket of ours
  if (process.versions["deno"] === undefined)
    plain.createConnection = (options) => openWire(net.connect, options);
  const proxies = new Map<string, URL | undefined>();
  let secure: Promise<Secure> | undefined;

  /** The way for http: the usual one, and so with few steps. */
  function openPlain({ url, method, headers }: SendRequest): ClientRequest | undefined {
    const { host } = url;
    if (url.protocol !== "http:") return undefined;
    if (!proxies.has(host)) proxies.set(host, proxyFor(url));
    const proxy = proxies.get(host);
    if (proxy?.protocol === "https:") return undefined;
    const to = proxy ?? url;
    return http.request({
      host: to.hostname.replace(/^\[|\]$/g, ""),
      port: to.port || 80,
      method,
      // with a proxy the request line holds the whole address (RFC 9112, 3.2.2)
      path: proxy ? url.href : url.pathname + url.search,
      headers: rawHeaders({ host, ...headers, ...(proxy && proxyAuthorization(proxy)) }),
      agent: plain,
    });
  }

  async function openSecure({ url, method, headers }: SendRequest): Promise<ClientRequest> {
    secure ??= loadSecure();
    const { https, tunnelling, direct } = await secure;
    if (url.protocol === "https:")
      return https.request(url, { method, headers, agent: tunnelling });
    // only a proxy that is itself spoken to by https is left
    const proxy = proxies.get(url.host) as URL;
    return https.request({
      host: proxy.hostname.replace(/^\[|\]$/g, ""),
      port: proxy.port || 443,
      method,
      path: url.href,
      headers: { ...headers, host: url.host, ...proxyAuthorization(proxy) },
      agent: direct,
    });
  }

  return {
    send: async (request) =>
      await answerOf(openPlain(request) ?? (await openSecure(request)), request.watch),
    close() {
      plain.destroy();
      void secure?.then(({ tunnelling, direct }) => {
        tunnelling.destroy();
        direct.destroy();
      });
    },
  };
}

const agentOptions = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY };

/** What https takes, loaded when it is wanted. */
async function loadSecure() {
  const { default: https } = await import("node:https");
  /** `direct` is for proxies that are themselves spoken to by https. */
  return {
    https,
    tunnelling: await tunnellingAgent(agentOptions),
    direct: new https.Agent(agentOptions),
  };
}

type Secure = Awaited<ReturnType<typeof loadSecure>>;

/** Headers as node:http sends them without a look at each. */
function rawHeaders(headers: Record<string, string>): string[] {
  const raw: string[] = [];
  for (const name in headers) raw.push(name, headers[name] as string);
  return raw;
}

function answerOf(sent: ClientRequest, watch: Watch): Promise<SendResponse> {
  return new Promise((resolve, reject) => {
    watch.onBreak(() => sent.destroy(watch.reason as Error));
    sent.on("error", (error) => reject(watch.isBroken ? (watch.reason as Error) : error));
    sent.once("response", (response) =>
      resolve({
        status: response.statusCode ?? 0,
        reason: response.statusMessage ?? "",
        headers: response.headers as Record<string, string | undefined>,
        body: response,
        wire: response,
      }),
    );
    sent.end();
  });
}

/** A file of this machine, answered as a server would: ranges, conditions, times. */
export async function sendFile({ url, method, headers }: SendRequest): Promise<SendResponse> {
  const path = fileURLToPath(url);
  const info = await stat(path);
  if (!info.isFile()) throw new FetchFailed("it is no plain file");
  const etag = `"${info.ino.toString(16)}-${info.size.toString(16)}-${Math.round(info.mtimeMs * 1000).toString(16)}"`;
  const about = { etag, "last-modified": new Date(info.mtimeMs).toUTCString() };
  const answer = (status: number, more: Record<string, string>, start?: number): SendResponse => ({
    status,
    reason: "",
    headers: { ...about, ...more },
    body:
      start === undefined
        ? Readable.from([])
        : createReadStream(path, { start, highWaterMark: 1 << 20 }),
  });
  if (headers["if-none-match"] === etag) return answer(304, {});
  const start = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0);
  if (method === "HEAD" || start === 0 || start >= info.size || headers["if-range"] !== etag)
    return answer(200, { "content-length": String(info.size) }, method === "HEAD" ? undefined : 0);
  return answer(
    206,
    {
      "content-length": String(info.size - start),
      "content-range": `bytes ${start}-${info.size - 1}/${info.size}`,
    },
    start,
  );
}

export interface RequestOptions {
  /** Default: GET. */
  method?: string;
  headers?: Record<string, string>;
  /** Milliseconds for all of it. */
  timeout: number;
  /** Milliseconds for the connection, TLS included; the look-up of a name is not counted. Default: `timeout`. */
  connectTimeout?: number;
  /** So many bytes of the body are read, and no more; 0: the answer's head is enough. */
  maxBytes: number;
  /** PEM: the authorities that are trusted, instead of the public ones. */
  ca?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  /** Names in lower case. */
  headers: Record<string, string | undefined>;
  /** The body as UTF-8. */
  text: string;
  /** The body is longer than `maxBytes`. */
  truncated: boolean;
}

/**
 * One plain request and its small answer: on a connection of its own, past all proxies, without retries and
 * redirects. A login in the URL is sent.
 * @throws {FetchFailed} when no answer comes in time or it is cut off; the `signal`'s reason; else the system's error.
 */
export async function request(
  address: URL | string,
  {
    method = "GET",
    headers,
    timeout,
    connectTimeout = timeout,
    maxBytes,
    ca,
    ...outer
  }: RequestOptions,
): Promise<Answer> {
  const url = new URL(address);
  const login = loginOf(url);
  const abort = new AbortController();
  const late = (what: string, limit: number) =>
    abort.abort(new FetchFailed(`no ${what} within ${limit / 1000} s`, { again: true }));
  const timer = setTimeout(late, timeout, "answer", timeout);
  const signal = outer.signal ? AbortSignal.any([outer.signal, abort.signal]) : abort.signal;
  try {
    const agent = await openAgent(url, ca, connectTimeout, () =>
      late("connection", connectTimeout),
    );
    const response = await exchange(withoutLogin(url), {
      method,
      headers: {
        connection: "close",
        ...(login && { authorization: basicAuthorization(login.user, login.password) }),
        ...headers,
      },
      agent,
      signal,
    });
    return {
      status: response.status,
      headers: Object.fromEntries(response.headers),
      ...(await readText(response.body as Readable, maxBytes)),
    };
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

async function readText(
  body: Readable,
  maxBytes: number,
): Promise<Pick<Answer, "text" | "truncated">> {
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    // to leave the loop ends the connection
    if (maxBytes === 0) body.on("error", () => {}).destroy();
    else
      for await (const piece of body as AsyncIterable<Buffer>) {
        pieces.push(piece);
        size += piece.length;
        if (size > maxBytes) break;
      }
  } catch {
    throw new FetchFailed("the answer was cut off", { again: true });
  }
  const text = Buffer.concat(pieces).subarray(0, maxBytes).toString("utf8");
  return { text, truncated: size > maxBytes };
}

/** An agent for one connection, which tells when it takes too long to open. */
async function openAgent(
  { protocol, hostname }: URL,
  ca: string | undefined,
  limit: number,
  onLate: () => void,
): Promise<Agent> {
  const secure = protocol === "https:";
  const { default: web } = await (secure ? import("node:https") : import("node:http"));
  const agent = new web.Agent({ keepAlive: false, ...(ca === undefined ? {} : { ca }) });
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, done) => {
    const socket = connect(options, done) as Socket;
    let timer: NodeJS.Timeout | undefined;
    const start = () => (timer = setTimeout(onLate, limit));
    // many names at once wait for the resolver: that is not the server's fault
    if (isIP(hostname.replace(/^\[|\]$/g, ""))) start();
    else socket.once("lookup", start);
    for (const over of [secure ? "secureConnect" : "connect", "close"])
      socket.once(over, () => clearTimeout(timer));
    return socket;
  };
  return agent;
}

/** A request by node-fetch, as it stands: redirects and packed bodies are left alone. */
async function exchange(
  url: URL,
  options: { method: string; headers: Record<string, string>; agent: Agent; signal: AbortSignal },
) {
  const { default: fetch } = await import("node-fetch");
  try {
    const signal = options.signal as never;
    return await fetch(url, { ...options, signal, redirect: "manual", compress: false });
  } catch (error) {
    if (options.signal.aborted) throw options.signal.reason;
    throw withoutUrl(error, url);
  }
}

/** node-fetch puts the URL, which may hold a secret, before the reason. */
function withoutUrl(error: unknown, url: URL): unknown {
  const { message, code } = error as NodeJS.ErrnoException;
  const prefix = `request to ${url.href} failed, reason: `;
  if (!message.startsWith(prefix)) return error;
  return Object.assign(new Error(message.slice(prefix.length)), code === undefined ? {} : { code });
}

function withoutLogin(url: URL): URL {
  const bare = new URL(url);
  bare.username = "";
  bare.password = "";
  return bare;
}
