import { readFileSync } from "node:fs";
import type { Agent, ClientRequest } from "node:http";
import type { AgentOptions, RequestOptions } from "node:https";
import { isIP } from "node:net";
import process from "node:process";
import type { PeerCertificate } from "node:tls";
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
    (secure ? env["https_proxy"] || env["HTTPS_PROXY"] : env["http_proxy"]) || env["all_proxy"] || env["ALL_PROXY"];
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
    const name = (bare ? word.toLowerCase() : (match?.[1] ?? match?.[2] ?? "")).replace(/^\*?\./, "");
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

/** Agents for requests of each protocol. */
export type Agents = Record<"http:" | "https:", Agent>;

/** `addRequest` is not documented, yet what every agent for proxies overrides: it alone sees the request. */
type Requesting = Agent & { addRequest(request: ClientRequest, target: Target): void };
type Target = RequestOptions & { secureEndpoint?: boolean };

/**
 * Agents that ask at each request which proxy of the environment leads to its host, and keep their connections.
 * Through a tunnel (CONNECT) the proxy sees nothing of https; http is sent to it as it stands.
 */
export async function openAgents(options: AgentOptions = { keepAlive: true }): Promise<Agents> {
  const [{ default: http }, { default: https }, { default: tls }] = await Promise.all([
    import("node:http"),
    import("node:https"),
    import("node:tls"),
  ]);
  const isProxied = Object.keys(process.env).some((name) => /^(?:https?|all)_proxy$/i.test(name));
  const tunnelling = isProxied ? await import("https-proxy-agent") : undefined;
  // Deno adds DENO_CERT to https but not to TLS inside a tunnel; Node has NODE_EXTRA_CA_CERTS in both
  const file = process.versions["deno"] && process.env["DENO_CERT"];
  const authorities = file ? { ca: [...tls.rootCertificates, readFileSync(file, "utf8")] } : {};
  const direct = { "http:": new http.Agent(options), "https:": new https.Agent(options) };
  const tunnels = new Map<string, Agent>();

  function tunnelThrough(proxy: URL): Agent {
    const known = tunnels.get(proxy.href);
    if (known || !tunnelling) return known as Agent;
    // the package takes a login as it stands to be encoded rightly
    const place = new URL(proxy);
    const login = loginOf(proxy);
    if (login)
      Object.assign(place, {
        username: encodeURIComponent(login.user),
        password: encodeURIComponent(login.password),
      });
    const tunnel = new tunnelling.HttpsProxyAgent(place, { ...options, ...authorities } as object);
    const connect = tunnel.connect.bind(tunnel);
    tunnel.connect = (...given) =>
      connect(...given).catch((error: NodeJS.ErrnoException) => {
        // the package gives no code to a proxy that hangs up, which is worth another try
        throw error.code === undefined && error.constructor === Error
          ? Object.assign(error, { code: "ECONNRESET" })
          : error;
      });
    // else its answer would be taken for the server's
    tunnel.on("proxyConnect", ({ statusCode, statusText }, request: ClientRequest) => {
      if (statusCode !== 200) request.destroy(new ProxyRefused(`the proxy answered ${statusCode} ${statusText}`));
    });
    tunnels.set(proxy.href, tunnel);
    return tunnel;
  }

  function agentOf(protocol: keyof Agents, { Agent }: typeof http | typeof https): Agent {
    const agent = new Agent(options) as Requesting;
    agent.addRequest = (request, target) => {
      const host = String(target.host);
      const proxy = proxyFor(new URL(`${protocol}//${host.includes(":") ? `[${host}]` : host}:${target.port ?? ""}`));
      let next: Agent = direct[protocol];
      if (proxy && protocol === "https:") {
        next = tunnelThrough(proxy);
        target = { ...target, ...authorities, secureEndpoint: true };
        // an address has no server name: the certificate would be compared with the proxy's
        const checkServerIdentity = (_: string, certificate: PeerCertificate) =>
          tls.checkServerIdentity(host, certificate);
        if (isIP(host)) Object.assign(target, { checkServerIdentity });
      } else if (proxy) {
        // the request line then holds the whole URL (RFC 9112, 3.2.2)
        request.path = `http://${request.getHeader("host")}${request.path}`;
        const login = loginOf(proxy);
        if (login) request.setHeader("proxy-authorization", basicAuthorization(login.user, login.password));
        next = direct[proxy.protocol as keyof Agents];
        target = { ...target, host: bareHost(proxy), port: portOf(proxy), servername: bareHost(proxy) };
      }
      (next as Requesting).addRequest(request, target);
    };
    agent.destroy = () => {
      for (const each of [...Object.values(direct), ...tunnels.values()]) each.destroy();
    };
    return agent;
  }
  return { "http:": agentOf("http:", http), "https:": agentOf("https:", https) };
}

/** Close their kept connections. */
export function closeAgents(agents: Agents): void {
  for (const agent of Object.values(agents)) agent.destroy();
}
