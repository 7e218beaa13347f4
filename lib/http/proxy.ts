import process from "node:process";
import { UsageError } from "../core/errors.ts";

/**
 * The proxy for a URL from http_proxy, https_proxy, all_proxy and no_proxy, as curl reads them
 * (https://everything.curl.dev/usingcurl/proxies/env.html): HTTP_PROXY in capitals is not taken,
 * since a CGI server sets it from a request's header.
 * @returns undefined for a direct connection.
 * @throws {UsageError} for a proxy that is no http(s) URL.
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
    throw new UsageError("the proxy in the environment is no URL; write http://host:port");
  }
  if (proxy.protocol !== "http:" && proxy.protocol !== "https:")
    throw new UsageError(`a proxy of kind ${proxy.protocol} is not supported; use http or https`);
  return proxy;
}

function isExempt(url: URL, list: string): boolean {
  const host = url.hostname.toLowerCase().replace(/^\[|\]$/g, "");
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
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
