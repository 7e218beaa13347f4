import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { ClientRequest, IncomingMessage } from "node:http";
import process from "node:process";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { FetchFailed } from "./fetch-retry.ts";
import { openWire } from "./fetch-wire.ts";
import { proxyFor } from "./proxy.ts";
import { proxyAuthorization, tunnellingAgent } from "./proxy-tunnel.ts";

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
  /** Aborting it breaks the connection, also while the body comes. */
  signal: AbortSignal;
}

export interface SendResponse {
  status: number;
  reason: string;
  /** Names in lower case. */
  headers: Record<string, string | undefined>;
  /** As sent: a Content-Encoding is not undone. */
  body: Readable;
  /** The body again, when its connection may be able to give it straight (lib/fetch-wire.ts). */
  wire?: IncomingMessage;
}

export type Send = (request: SendRequest) => Promise<SendResponse>;

/** A sender over connections that are kept and used again. */
export interface Connections {
  send: Send;
  close(): void;
}

/** node's modules for the web, loaded when something is fetched: a run with nothing to do needs none. */
async function loadWeb() {
  const [http, https, net] = await Promise.all([
    import("node:http"),
    import("node:https"),
    import("node:net"),
  ]);
  return { http: http.default, https: https.default, net: net.default };
}

/** Connections for http and https, through the environment's proxies. */
export async function openConnections(): Promise<Connections> {
  const { http, https, net } = await loadWeb();
  const agentOptions = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY };
  const plain = new http.Agent(agentOptions);
  // Deno's HTTP client reads from no socket of ours
  if (process.versions["deno"] === undefined)
    plain.createConnection = (options) => openWire(net.connect, options);
  const secure = await tunnellingAgent(agentOptions);
  /** For proxies that are themselves spoken to by https. */
  const direct = new https.Agent(agentOptions);

  function open({ url, method, headers }: SendRequest): ClientRequest {
    if (url.protocol === "https:") return https.request(url, { method, headers, agent: secure });
    const proxy = proxyFor(url);
    if (!proxy) return http.request(url, { method, headers, agent: plain });
    const { request } = proxy.protocol === "https:" ? https : http;
    return request({
      host: proxy.hostname.replace(/^\[|\]$/g, ""),
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      method,
      // with a proxy the request line holds the whole address (RFC 9112, 3.2.2)
      path: url.href,
      headers: { ...headers, host: url.host, ...proxyAuthorization(proxy) },
      agent: proxy.protocol === "https:" ? direct : plain,
    });
  }

  return {
    send: (request) =>
      new Promise((resolve, reject) => {
        const sent = open(request);
        const onAbort = () => sent.destroy(request.signal.reason as Error);
        if (request.signal.aborted) onAbort();
        request.signal.addEventListener("abort", onAbort, { once: true });
        const forget = () => request.signal.removeEventListener("abort", onAbort);
        sent.on("error", (error) => {
          forget();
          reject(request.signal.aborted ? (request.signal.reason as Error) : error);
        });
        sent.once("response", (response) => {
          response.once("close", forget);
          resolve({
            status: response.statusCode ?? 0,
            reason: response.statusMessage ?? "",
            headers: response.headers as Record<string, string | undefined>,
            body: response,
            wire: response,
          });
        });
        sent.end();
      }),
    close() {
      for (const agent of [plain, secure, direct]) agent.destroy();
    },
  };
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
