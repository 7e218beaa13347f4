import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { ClientRequest, IncomingMessage } from "node:http";
import process from "node:process";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { FetchFailed } from "./retry.ts";
import type { Watch } from "./timeout.ts";
import { openWire } from "./wire.ts";
import { proxyFor } from "../http/proxy.ts";
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
