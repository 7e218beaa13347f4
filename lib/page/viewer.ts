import type { IncomingMessage } from "node:http";
import { HttpError, isFromProxy, peerOf } from "../http/server.ts";
import type { Sessions } from "./sessions.ts";
import type { Right, StatusSettings } from "./source.ts";

/** Whose a request to the page is: by its cookie, or by what a proxy says; and whether a page of ours sends it. */

/** Who looks at the page. */
export interface Viewer {
  /** As it stands in the record of what was done. Undefined: a stranger. */
  readonly name?: string | undefined;
  /** Undefined: public repos only. */
  readonly right?: Right | undefined;
  /** The cookie's value; undefined where a proxy says who it is. */
  readonly session?: string | undefined;
}

/** Who sends a request: by its session, or by what a proxy that is believed says. */
export function viewerOf(request: IncomingMessage, settings: StatusSettings, sessions: Sessions): Viewer {
  const told = toldByProxy(request, settings);
  if (told) return told;
  const session = cookieOf(request, settings);
  const credential = sessions.find(session, settings.credentials);
  return credential ? { name: credential.name, right: credential.right, session } : {};
}

function toldByProxy(request: IncomingMessage, settings: StatusSettings): Viewer | undefined {
  const { proxies, trusted } = settings;
  if (!trusted || !proxies.includes(peerOf(request))) return undefined;
  const name = request.headers[trusted.header.toLowerCase()];
  if (typeof name !== "string" || name === "") return undefined;
  const shown = name.replace(/[^\x21-\x7e]/g, "?").slice(0, 100);
  return { name: shown, right: trusted.steer.includes(name) ? "steer" : "see" };
}

/** Whether browsers come over TLS: the address in the configuration says so, or a proxy that is believed. */
function isSecure(request: IncomingMessage, { origin, proxies }: StatusSettings): boolean {
  const told = String(request.headers["x-forwarded-proto"]).toLowerCase();
  return origin?.startsWith("https:") === true || (told === "https" && isFromProxy(request, proxies));
}

/**
 * Whether a browser would drop the cookie that it is sent: one for TLS alone, on a page that came without. On loopback
 * browsers keep it.
 */
export function dropsCookie(request: IncomingMessage, { origin }: StatusSettings): boolean {
  const { protocol, hostname } = new URL(request.headers.origin ?? "https://unknown");
  const isLoopback = /^(?:localhost|.+\.localhost|127\..*|\[::1\])$/.test(hostname);
  return protocol === "http:" && !isLoopback && origin?.startsWith("https:") === true;
}

/** Behind TLS a browser takes this name only from this host, over TLS, for all paths. */
const names = { secure: "__Host-boatyard", plain: "boatyard" };

function cookieOf(request: IncomingMessage, settings: StatusSettings): string | undefined {
  const wanted = isSecure(request, settings) ? names.secure : names.plain;
  for (const each of (request.headers.cookie ?? "").split(";")) {
    const [name, value] = each.trim().split("=", 2);
    if (name === wanted) return value;
  }
  return undefined;
}

/** The header that sets the session's cookie; without a value it is taken away. */
export function setCookie(request: IncomingMessage, settings: StatusSettings, value: string | undefined): string {
  const secure = isSecure(request, settings);
  return [
    `${secure ? names.secure : names.plain}=${value ?? ""}`,
    ...["Path=/", "HttpOnly", "SameSite=Strict"],
    ...(secure ? ["Secure"] : []),
    ...(value === undefined ? ["Max-Age=0"] : []),
  ].join("; ");
}

/**
 * Refuse a request that changes something and does not come from a page of ours.
 * @param own the origin of the server's address, where it is known: a proxy may send another `Host`. Where it is not,
 *   a proxy may also have left out the port.
 * @throws {HttpError} 403
 */
export function checkOrigin(request: IncomingMessage, own: string | undefined): void {
  const { origin, host } = request.headers;
  const site = request.headers["sec-fetch-site"];
  const isOurs =
    origin !== undefined &&
    URL.canParse(origin) &&
    (isHost(new URL(origin), host, own === undefined) || new URL(origin).origin === own) &&
    (site === undefined || site === "same-origin");
  if (!isOurs) throw new HttpError(403, "this request does not come from this page");
}

function isHost(origin: URL, host = "", mayLackPort: boolean): boolean {
  const own = host.toLowerCase();
  return own === origin.host || (mayLackPort && own === origin.hostname);
}

/**
 * Whether a request comes by a link of another site: then a browser keeps the cookie (SameSite=Strict) to itself, and
 * sends it once our own page asks for the same address again.
 */
export function cameByLink(request: IncomingMessage, settings: StatusSettings): boolean {
  const { headers, method } = request;
  return (
    method === "GET" &&
    headers["sec-fetch-site"] === "cross-site" &&
    headers["sec-fetch-mode"] === "navigate" &&
    cookieOf(request, settings) === undefined
  );
}
