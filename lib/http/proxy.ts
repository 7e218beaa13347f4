import { readFileSync } from "node:fs";
import type { Agent as HttpAgent, ClientRequest } from "node:http";
import type { Agent, AgentOptions, RequestOptions } from "node:https";
import process from "node:process";
import type { Duplex } from "node:stream";
import type { ConnectionOptions } from "node:tls";
import { Failure, UsageError } from "../core/errors.ts";

/** http and https through the proxies of the environment: which one, and the agents for it. */

/** The proxy does not let us through. */
export class ProxyRefused extends Failure {
  override name = "ProxyRefused";
  static readonly code = "ERR_PROXY_REFUSED";
  readonly code = ProxyRefused.code;
}

/**
 * The proxy for a URL from http_proxy, https_proxy, all_proxy and no_proxy, as curl reads them
 * (https://everything.curl.dev/usingcurl/proxies/env.html): HTTP_PROXY in capitals is not taken,
 * since a CGI server sets it from a request's header.
 * @returns undefined for a direct connection.
 * @throws {UsageError} for a proxy that is not an http(s) URL.
 */
export function proxyFor(url: URL, env: NodeJS.ProcessEnv = process.env): URL | undefined {
  const secure = url.protocol === "https:";
  const value =
    (secure ? env["https_proxy"] || env["HTTPS_PROXY"] : env["http_proxy"]) ||
    env["all_proxy"] ||
    env["ALL_PROXY"];
  if (!value || isExempt(url, env["no_proxy"] || env["NO_PROXY"] || "")) return undefined;
  let proxy: URL;
  try {
    proxy = new URL(/^[a-z0-9+.-]+:\/\//i.test(value) ? value : `http://${value}`);
  } catch {
    throw new UsageError("the proxy in the environment is not a URL; write http://host:port");
  }
  if (proxy.protocol !== "http:" && proxy.protocol !== "https:")
    throw new UsageError(`a proxy of kind ${proxy.protocol} is not supported; use http or https`);
  return proxy;
}

function isExempt(url: URL, list: string): boolean {
  const host = bareHost(url).toLowerCase();
  const port = String(portOf(url));
  return list.split(/[\s,]+/).some((word) => {
    if (word === "") return false;
    if (word === "*") return true;
    const match = /^(?:\[(.+)\]|(.*?))(?::(\d+))?$/.exec(word.toLowerCase());
    // an IPv6 address without brackets holds colons of its own
    const bare = word.split(":").length > 2 && !word.startsWith("[");
    const name = (bare ? word.toLowerCase() : (match?.[1] ?? match?.[2] ?? "")).replace(
      /^\*?\./,
      "",
    );
    if (!bare && match?.[3] !== undefined && match[3] !== port) return false;
    return host === name || host.endsWith(`.${name}`);
  });
}

/** A URL's host as sockets take it: an IPv6 address without its brackets. */
export function bareHost({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, "");
}

function portOf({ port, protocol }: URL): number {
  return Number(port) || (protocol === "https:" ? 443 : 80);
}

/** The header value of HTTP's Basic login (RFC 7617). */
export function basicAuthorization(user: string, password: string): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

/** The login inside a URL, its percent signs decoded; undefined when there is none. */
export function loginOf(url: URL): { user: string; password: string } | undefined {
  if (url.username === "" && url.password === "") return undefined;
  return { user: decode(url.username), password: decode(url.password) };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The proxy's own login, as a header. */
function proxyAuthorization(proxy: URL): Record<string, string> {
  const login = loginOf(proxy);
  return login ? { "proxy-authorization": basicAuthorization(login.user, login.password) } : {};
}

/** Agents for the environment's proxies. Connections are kept and used again. */
export interface Agents {
  /** The agent for a URL, whose proxy is looked up each time. */
  agentFor(url: URL): HttpAgent;
  close(): void;
}

/** Agents for http and https that keep their connections. */
export async function openAgents(): Promise<Agents> {
  const { http, https } = await loadWeb();
  const options = { keepAlive: true };
  const agents = new Map<string, HttpAgent>([
    ["http:", new http.Agent(options)],
    ["https:", await tunnellingAgent(options)],
  ]);

  return {
    agentFor(url) {
      const proxy = url.protocol === "http:" ? proxyFor(url) : undefined;
      const name = proxy?.href ?? url.protocol;
      let agent = agents.get(name);
      if (!agent && proxy) {
        const kind = proxy.protocol === "https:" ? https : http;
        agents.set(name, (agent = forwarding(new kind.Agent(options), proxy)));
      }
      return agent as HttpAgent;
    },
    close() {
      for (const agent of agents.values()) agent.destroy();
    },
  };
}

/**
 * `addRequest` is not documented, yet what every proxying agent for Node overrides: it alone sees the request.
 * The packages do the same and more: http-proxy-agent rewrites the request's `_header` and `outputData`, and
 * https-proxy-agent hands on a proxy's refusal as if it were the server's answer.
 */
type Forwarding = HttpAgent & {
  protocol: string;
  addRequest(request: ClientRequest, options: RequestOptions): void;
};

/** Make an agent send http through a proxy: the request line then holds the whole URL (RFC 9112, 3.2.2). */
function forwarding(plain: HttpAgent, proxy: URL): HttpAgent {
  const agent = plain as Forwarding;
  const connect = agent.addRequest.bind(agent);
  agent.protocol = "http:";
  agent.addRequest = (request, options) => {
    request.path = `http://${request.getHeader("host")}${request.path}`;
    for (const [name, value] of Object.entries(proxyAuthorization(proxy)))
      request.setHeader(name, value);
    const host = bareHost(proxy);
    connect(request, { ...options, host, port: portOf(proxy), servername: host });
  };
  return agent;
}

/**
 * An agent for https that asks at each connection whether there is a proxy for the host: the proxy opens a tunnel
 * and sees nothing inside.
 */
export async function tunnellingAgent(agentOptions: AgentOptions): Promise<Agent> {
  const web = await loadWeb();
  const agent = new web.https.Agent(agentOptions);
  const direct = agent.createConnection.bind(agent);
  agent.createConnection = (options, done = () => {}) => {
    const proxy = proxyFor(new URL(`https://${targetOf(options)}`));
    return proxy ? openTunnel(web, proxy, options, done) : direct(options, done);
  };
  return agent;
}

async function loadWeb() {
  const [http, https, tls] = await Promise.all([
    import("node:http"),
    import("node:https"),
    import("node:tls"),
  ]);
  return { http: http.default, https: https.default, tls: tls.default };
}

type Target = RequestOptions & { servername?: string | undefined };

function targetOf({ host, port }: Target): string {
  return `${String(host).includes(":") ? `[${host}]` : host}:${port || 443}`;
}

/** A CONNECT tunnel, and TLS to the host itself inside it (RFC 9110, 9.3.6). */
function openTunnel(
  { http, https, tls }: Awaited<ReturnType<typeof loadWeb>>,
  proxy: URL,
  options: Target,
  done: (error: Error | null, socket: Duplex) => void,
): undefined {
  const target = targetOf(options);
  const { request } = proxy.protocol === "https:" ? https : http;
  const connecting = request({
    host: bareHost(proxy),
    port: portOf(proxy),
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
    fail(new ProxyRefused(`the proxy answered ${response.statusCode} ${response.statusMessage}`));
  });
  connecting.end();
  return undefined;
}

/** Deno adds DENO_CERT to https but not to TLS inside a tunnel; Node has NODE_EXTRA_CA_CERTS in both. */
function extraAuthorities(usual: readonly string[]): ConnectionOptions {
  const file = process.versions["deno"] && process.env["DENO_CERT"];
  return file ? { ca: [...usual, readFileSync(file, "utf8")] } : {};
}
