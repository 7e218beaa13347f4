import { FetchFailed } from "./retry.ts";
import type { Send, SendRequest, SendResponse } from "./send.ts";
import { basicAuthorization, loginOf } from "../http/proxy.ts";
import type { Login } from "./netrc.ts";

/** Requests that follow redirects without giving a login away or leaving the web. */

export interface FollowOptions {
  /** The login for a host, when the URL holds none. */
  login: (host: string) => Promise<Login | undefined>;
  /** Whether a redirect from https to http may be followed: only when the content is checked otherwise. */
  allowDowngrade: boolean;
}

const most = 10;
const redirects = new Set([301, 302, 303, 307, 308]);

/** Send a request and follow its redirects. */
export async function follow(
  send: Send,
  request: SendRequest,
  { login, allowDowngrade }: FollowOptions,
): Promise<SendResponse> {
  const authorization = await authorizationFor(request.url, login);
  const bare = { ...request, url: withoutLogin(request.url) };
  const known =
    authorization === undefined ? bare : { ...bare, headers: { ...bare.headers, authorization } };
  const first = await send(known);
  return redirects.has(first.status)
    ? await followOn(send, bare, known, first, allowDowngrade)
    : first;
}

/** @param known the request with its login; `bare` is the same without one. */
async function followOn(
  send: Send,
  bare: SendRequest,
  known: SendRequest,
  first: SendResponse,
  allowDowngrade: boolean,
): Promise<SendResponse> {
  let response = first;
  let { url } = bare;
  const seen = new Set([url.href]);
  for (let hop = 1; redirects.has(response.status); hop++) {
    const { location } = response.headers;
    // read to its end, so that the connection can be used again
    response.body.on("error", () => {}).resume();
    if (hop > most) throw new FetchFailed(`more than ${most} redirects`);
    if (location === undefined) throw new FetchFailed("a redirect says not where to");
    url = nextUrl(url, location, allowDowngrade);
    if (seen.has(url.href)) throw new FetchFailed("the redirects run in a circle");
    seen.add(url.href);
    // the login goes to its own place and nowhere else: not to another host, port or scheme
    response = await send({ ...(url.origin === bare.url.origin ? known : bare), url });
  }
  return response;
}

function nextUrl(from: URL, location: string, allowDowngrade: boolean): URL {
  let next: URL;
  try {
    next = new URL(location, from);
  } catch {
    throw new FetchFailed("a redirect leads to what is no URL");
  }
  if (next.protocol !== "http:" && next.protocol !== "https:")
    throw new FetchFailed(`a redirect leads to ${next.protocol}, which is not followed`);
  if (from.protocol === "https:" && next.protocol === "http:" && !allowDowngrade)
    throw new FetchFailed(
      "a redirect leads from https to http; pin the content with #sha256-HEX to follow it",
    );
  // a redirect cannot set a login: it would be sent as if it were ours
  return withoutLogin(next);
}

async function authorizationFor(
  url: URL,
  login: FollowOptions["login"],
): Promise<string | undefined> {
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  const found = loginOf(url) ?? (await login(url.hostname));
  return found && basicAuthorization(found.user, found.password);
}

function withoutLogin(url: URL): URL {
  if (url.username === "" && url.password === "") return url;
  const bare = new URL(url);
  bare.username = "";
  bare.password = "";
  return bare;
}
