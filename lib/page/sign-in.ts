import type { IncomingMessage, ServerResponse } from "node:http";
import { clientAddress, networkOf, readBody } from "../http/server.ts";
import { html, type Html } from "./html.ts";
import { redirect } from "./send.ts";
import type { Sessions, Tries } from "./sessions.ts";
import type { StatusSettings } from "./source.ts";
import { checkOrigin, dropsCookie, setCookie } from "./viewer.ts";

/** The sign-in page, what it sends, and where one goes from there. */

/** A path of this server that somebody wanted to see; `/` for anything that could lead elsewhere. */
export function returnPath(text: string | null | undefined): string {
  // one slash, and no backslash, which browsers take for one
  return text && /^\/(?!\/)[\x21-\x5b\x5d-\x7e]{0,2000}$/.test(text) ? text : "/";
}

/** The form; `problem` says why a try was not taken. */
export function signInForm(to: string, problem = ""): Html {
  const wrong = html` aria-describedby="problem" aria-invalid="true"`;
  return html`<section class="signin"><h1>Sign in</h1>
<form method="post" action="/sign-in"><input type="hidden" name="to" value="${to}"><input class="away" name="username"
autocomplete="username" value="boatyard" tabindex="-1" aria-hidden="true" readonly>
<label for="secret">Password or token</label><input id="secret" name="secret" type="password"
autocomplete="current-password" required autofocus maxlength="1000"${problem !== "" && wrong}>
${problem !== "" && html`<p class="problem" id="problem" role="alert">${problem}</p>`}
<button class="main">Sign in</button></form></section>`;
}

/** A page that asks for the same address once more: then the browser sends its cookie. */
export function bouncePage(path: string): Html {
  return html`<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="0;url=${path}"><title>Boatyard</title></head>
<body><p><a href="${path}">Continue</a></p></body></html>
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
