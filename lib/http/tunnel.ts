import { readFileSync } from "node:fs";
import type { Agent, AgentOptions, RequestOptions } from "node:https";
import process from "node:process";
import type { Duplex } from "node:stream";
import type { ConnectionOptions } from "node:tls";
import { Failure } from "../core/errors.ts";
import { basicAuthorization, loginOf, proxyFor } from "./proxy.ts";

/** https through the environment's proxies, for whoever sends it: the proxy opens a tunnel and sees nothing inside. */

/** The proxy does not let us through. */
export class ProxyRefused extends Failure {
  override name = "ProxyRefused";
}

/** An agent for https that asks at each connection whether there is a proxy for the host. */
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

/** The proxy's own login, as a header. */
export function proxyAuthorization(proxy: URL): Record<string, string> {
  const login = loginOf(proxy);
  return login ? { "proxy-authorization": basicAuthorization(login.user, login.password) } : {};
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
