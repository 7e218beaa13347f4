import type { IncomingMessage, ServerResponse } from "node:http";
import {
  clientAddress,
  HttpError,
  isFromProxy,
  networkOf,
  peerOf,
  readBody,
} from "../http/server.ts";
import { html, type Html } from "./html.ts";
import { redirect } from "./send.ts";
import type { Sessions, Tries } from "./sessions.ts";
import type { Right, StatusSettings } from "./source.ts";

/** Who looks at the page: cookies, what a proxy says, whether a request is a page's of ours; and how one signs in. */

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
export function viewerOf(
  request: IncomingMessage,
  settings: StatusSettings,
  sessions: Sessions,
): Viewer {
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
  return (
    origin?.startsWith("https:") === true || (told === "https" && isFromProxy(request, proxies))
  );
}

/**
 * Whether a browser would drop the cookie that it is sent: one for TLS alone, on a page that came without. On loopback
 * browsers keep it.
 */
function dropsCookie(request: IncomingMessage, { origin }: StatusSettings): boolean {
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
export function setCookie(
  request: IncomingMessage,
  settings: StatusSettings,
  value: string | undefined,
): string {
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

/** A path of this server that somebody wanted to see; `/` for anything that could lead elsewhere. */
export function returnPath(text: string | null | undefined): string {
  // one slash, and no backslash, which browsers take for one
  return text && /^\/(?!\/)[\x21-\x5b\x5d-\x7e]{0,2000}$/.test(text) ? text : "/";
}

/** The form; `problem` says why a try was not taken. */
export function signInForm(to: string, problem = ""): Html {
  return html`<section class="signin"><h1>Sign in</h1>
<form method="post" action="/sign-in"><input type="hidden" name="to" value="${to}"><input class="away" name="username" autocomplete="username" value="boatyard" tabindex="-1" aria-hidden="true" readonly><label for="secret">Password or token</label><input id="secret" name="secret" type="password" autocomplete="current-password" required autofocus maxlength="1000"${problem !== "" && html` aria-describedby="problem" aria-invalid="true"`}>
${problem !== "" && html`<p class="problem" id="problem" role="alert">${problem}</p>`}<button class="main">Sign in</button></form></section>`;
}

/** A page that asks for the same address once more: then the browser sends its cookie. */
export function bouncePage(path: string): Html {
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=${path}"><title>Boatyard</title></head><body><p><a href="${path}">Continue</a></p></body></html>
`;
}

/**
 * Sign in with what the form holds.
 * @returns what is wrong; undefined when the answer was sent.
 * @throws {HttpError} 403 for a form of another site, 429 after too many wrong tries.
 */
export async function signIn(
  request: IncomingMessage,
  response: ServerResponse,
  { settings, sessions, tries }: { settings: StatusSettings; sessions: Sessions; tries: Tries },
): Promise<{ to: string; problem: string } | undefined> {
  checkOrigin(request, settings.origin);
  const network = networkOf(clientAddress(request, settings.proxies));
  const form = new URLSearchParams((await readBody(request, { max: 8192 })).toString("utf8"));
  const to = returnPath(form.get("to"));
  if (dropsCookie(request, settings))
    return {
      to,
      problem: `Sign in at ${settings.origin}: here a browser would not keep you signed in.`,
    };
  const secret = form.get("secret") ?? "";
  const credential = tries.credentialFor(secret, network, settings.credentials);
  if (!credential) return { to, problem: "That is not a password or token of this server." };
  const value = await sessions.begin(credential);
  redirect(response, to, { "set-cookie": setCookie(request, settings, value) });
  return undefined;
}
