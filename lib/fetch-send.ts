import { createReadStream, readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import type { ClientRequest, IncomingMessage } from "node:http";
import type { RequestOptions } from "node:https";
import process from "node:process";
import { type Duplex, Readable } from "node:stream";
import type { ConnectionOptions } from "node:tls";
import { fileURLToPath } from "node:url";
import { FetchFailed } from "./fetch-retry.ts";
import { openWire } from "./fetch-wire.ts";
import { basicAuthorization, loginOf, proxyFor } from "./proxy.ts";

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
  const [http, https, net, tls] = await Promise.all([
    import("node:http"),
    import("node:https"),
    import("node:net"),
    import("node:tls"),
  ]);
  return { http: http.default, https: https.default, net: net.default, tls: tls.default };
}

type Web = Awaited<ReturnType<typeof loadWeb>>;

/** Connections for http and https, through the environment's proxies. */
export async function openConnections(): Promise<Connections> {
  const web = await loadWeb();
  const { http, https, net } = web;
  const agentOptions = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY };
  const plain = new http.Agent(agentOptions);
  // Deno's HTTP client reads from no socket of ours
  if (process.versions["deno"] === undefined)
    plain.createConnection = (options) => openWire(net.connect, options);
  const secure = new https.Agent(agentOptions);
  const tunnels = new Map<string, InstanceType<typeof https.Agent>>();
  const tunnelAgent = (proxy: URL) => {
    let agent = tunnels.get(proxy.href);
    if (!agent) {
      agent = new https.Agent(agentOptions);
      agent.createConnection = (options, done = () => {}) => openTunnel(web, proxy, options, done);
      tunnels.set(proxy.href, agent);
    }
    return agent;
  };

  function open({ url, method, headers }: SendRequest): ClientRequest {
    const proxy = proxyFor(url);
    if (!proxy) {
      return url.protocol === "https:"
        ? https.request(url, { method, headers, agent: secure })
        : http.request(url, { method, headers, agent: plain });
    }
    if (url.protocol === "https:")
      return https.request(url, { method, headers, agent: tunnelAgent(proxy) });
    const { request } = proxy.protocol === "https:" ? https : http;
    return request({
      host: proxy.hostname.replace(/^\[|\]$/g, ""),
      port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
      method,
      // with a proxy the request line holds the whole address (RFC 9112, 3.2.2)
      path: url.href,
      headers: { ...headers, host: url.host, ...proxyAuthorization(proxy) },
      agent: proxy.protocol === "https:" ? secure : plain,
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
      for (const agent of [plain, secure, ...tunnels.values()]) agent.destroy();
    },
  };
}

function proxyAuthorization(proxy: URL): Record<string, string> {
  const login = loginOf(proxy);
  return login ? { "proxy-authorization": basicAuthorization(login.user, login.password) } : {};
}

/** https through a proxy: a CONNECT tunnel, TLS to the host itself inside it (RFC 9110, 9.3.6). */
function openTunnel(
  { http, https, tls }: Web,
  proxy: URL,
  options: RequestOptions & { servername?: string | undefined },
  done: (error: Error | null, socket: Duplex) => void,
): undefined {
  const target = `${String(options.host).includes(":") ? `[${options.host}]` : options.host}:${options.port}`;
  const { request } = proxy.protocol === "https:" ? https : http;
  const connecting = request({
    host: proxy.hostname.replace(/^\[|\]$/g, ""),
    port: proxy.port || (proxy.protocol === "https:" ? 443 : 80),
    method: "CONNECT",
    path: target,
    headers: { host: target, ...proxyAuthorization(proxy) },
    agent: false,
  });
  const fail = (error: Error) => done(error, undefined as never);
  connecting.once("error", fail);
  connecting.once("connect", (response, socket) => {
    if (response.statusCode === 200) {
      const ca = extraAuthorities(tls.rootCertificates);
      const inside = { ...options, path: undefined, socket, ...ca } as ConnectionOptions;
      done(null, tls.connect({ ...inside, servername: options.servername || options.host || "" }));
      return;
    }
    socket.destroy();
    fail(new FetchFailed(`the proxy answered ${response.statusCode} ${response.statusMessage}`));
  });
  connecting.end();
  return undefined;
}

/** Deno adds DENO_CERT to https but not to TLS inside a tunnel; Node has NODE_EXTRA_CA_CERTS in both. */
function extraAuthorities(usual: readonly string[]): ConnectionOptions {
  const file = process.versions["deno"] && process.env["DENO_CERT"];
  return file ? { ca: [...usual, readFileSync(file, "utf8")] } : {};
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
