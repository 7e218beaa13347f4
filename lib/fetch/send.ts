import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import type { Agent } from "node:http";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { Failure } from "../core/errors.ts";
import { type Agents, basicAuthorization, closeAgents, loginOf, openAgents, ProxyRefused } from "../http/proxy.ts";
import type { Login } from "./netrc.ts";
import { FetchFailed } from "./retry.ts";

/** One request and its answer, without retries: http and https by node-fetch, our redirects; this machine's files. */

export interface SendRequest {
  url: URL;
  method: "GET" | "HEAD";
  /** Names in lower case. */
  headers: Record<string, string>;
  /** Says when to break the connection, also while the body comes. */
  signal: AbortSignal;
}

export interface SendResponse {
  status: number;
  reason: string;
  /** Names in lower case. */
  headers: Record<string, string | undefined>;
  /** As sent: a Content-Encoding is not undone. */
  body: Readable;
}

/** Each kind of URL has its own. */
export type Send = (request: SendRequest) => Promise<SendResponse>;

/** A sender over connections that are kept and used again. */
export interface Connections {
  send: Send;
  close(): void;
}

/** Connections for http and https, through the environment's proxies. Redirects are not followed. */
export async function openConnections(): Promise<Connections> {
  const agents = await openAgents();
  return {
    send: (request) => exchange({ ...request, agent: agents[request.url.protocol as keyof Agents] }),
    close: () => closeAgents(agents),
  };
}

/** A request by node-fetch, as it stands: redirects and packed bodies are left alone. */
export async function exchange({
  url,
  body = null,
  ...options
}: Omit<SendRequest, "method"> & {
  method: string;
  body?: string | null | undefined;
  agent: Agent;
}): Promise<SendResponse> {
  const { default: fetch } = await import("node-fetch");
  try {
    const signal = options.signal as never;
    const response = await fetch(url, {
      ...options,
      body,
      signal,
      redirect: "manual",
      compress: false,
    });
    return {
      status: response.status,
      reason: response.statusText,
      headers: Object.fromEntries(response.headers),
      body: response.body as Readable,
    };
  } catch (error) {
    throw options.signal.aborted ? options.signal.reason : withoutUrl(error, url);
  }
}

/** node-fetch puts the URL, which may hold a secret, before the reason, and drops the error itself. */
function withoutUrl(error: unknown, url: URL): unknown {
  const { message, code } = error as NodeJS.ErrnoException;
  const prefix = `request to ${url.href} failed, reason: `;
  if (!message.startsWith(prefix)) return error;
  const reason = message.slice(prefix.length);
  if (code === ProxyRefused.code) return new ProxyRefused(reason);
  // no error of the system: a permission that Deno was not given
  return code === undefined ? new Failure(reason) : Object.assign(new Error(reason), { code });
}

export interface FollowOptions {
  /** The login for a host, when the URL holds none. */
  login: (host: string) => Promise<Login | undefined>;
  /** Whether a redirect from https to http may be followed: only when the content is checked otherwise. */
  allowDowngrade: boolean;
}

const maxRedirects = 10;
const redirects = new Set([301, 302, 303, 307, 308]);

/** Send a request and follow its redirects, without giving a login away or leaving the web. Changes `request.url`. */
export async function follow(
  send: Send,
  request: SendRequest,
  { login, allowDowngrade }: FollowOptions,
): Promise<SendResponse> {
  let { url } = request;
  const { origin } = url;
  const authorization = await takeLogin(url, login);
  const visited = new Set<string>();
  for (;;) {
    visited.add(url.href);
    // the login goes to its own place and nowhere else: not to another host, port or scheme
    const own = authorization !== undefined && url.origin === origin ? { authorization } : {};
    const response = await send({ ...request, url, headers: { ...request.headers, ...own } });
    if (!redirects.has(response.status)) return response;
    discard(response);
    if (visited.size > maxRedirects) throw new FetchFailed(`more than ${maxRedirects} redirects`);
    url = nextUrl(url, response.headers["location"], allowDowngrade);
    if (visited.has(url.href)) throw new FetchFailed("the redirects run in a circle");
  }
}

/** Done with an answer whose body is not wanted: a short one is read on, which keeps the connection for the next. */
export function discard({ headers, body }: SendResponse): void {
  body.on("error", () => {});
  const length = headers["content-length"] ?? "";
  if (/^\d{1,5}$/.test(length)) body.resume();
  else body.destroy();
}

function nextUrl(from: URL, location: string | undefined, allowDowngrade: boolean): URL {
  if (location === undefined) throw new FetchFailed("a redirect does not say where to");
  // a header's bytes come as Latin-1: what the server should have escaped stays the bytes that it sent
  const escaped = location.replace(/[\x80-\xff]/g, (byte) => `%${byte.charCodeAt(0).toString(16).toUpperCase()}`);
  let next: URL;
  try {
    next = new URL(escaped, from);
  } catch {
    throw new FetchFailed("a redirect leads to what is not a URL");
  }
  if (next.protocol !== "http:" && next.protocol !== "https:")
    throw new FetchFailed(`a redirect leads to ${next.protocol}, which is not followed`);
  if (from.protocol === "https:" && next.protocol === "http:" && !allowDowngrade)
    throw new FetchFailed("a redirect leads from https to http; pin the content with #sha256-HEX to follow it");
  // a redirect cannot set a login: it would be sent as if it were ours
  [next.username, next.password] = ["", ""];
  return next;
}

/** The authorization by the login in a URL, which is taken out of it, else by another login for its host. */
export async function takeLogin(url: URL, other: FollowOptions["login"]): Promise<string | undefined> {
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  const login = loginOf(url) ?? (await other(url.hostname));
  [url.username, url.password] = ["", ""];
  return login && basicAuthorization(login.user, login.password);
}

/** A file of this machine, answered as a server would that knows no ranges. */
export async function sendFile({ url, headers }: SendRequest): Promise<SendResponse> {
  const path = fileURLToPath(url);
  const info = await stat(path);
  if (!info.isFile()) throw new FetchFailed("it is not a plain file");
  const etag = `"${info.ino.toString(16)}-${info.size.toString(16)}-${Math.round(info.mtimeMs * 1000).toString(16)}"`;
  const isKnown = headers["if-none-match"] === etag;
  return {
    status: isKnown ? 304 : 200,
    reason: "",
    headers: {
      etag,
      "last-modified": new Date(info.mtimeMs).toUTCString(),
      "content-length": String(info.size),
    },
    body: isKnown ? Readable.from([]) : createReadStream(path),
  };
}
