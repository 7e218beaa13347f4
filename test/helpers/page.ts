// The page of a hook-server in a browser: a server with a password, and a browser that has signed in.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { type Answer, type HookServer, http, makeYard, startHooks } from "./hooks.ts";
import { slowness } from "./wait.ts";

export const password = "correct horse";

const html = { accept: "text/html" };

/** What a page with a password needs; here browsers come over loopback, from the port that the server got. */
const withUrl = (top = "") => (/^url:/m.test(top) ? top : `url: http://localhost\n${top}`);

/** A folder whose hooks.yml lets people in: by the password, a token that steers, and a guest's that sees. */
export async function pageYard(options: Parameters<typeof makeYard>[0] & { status?: string } = {}): Promise<string> {
  const status = `status: { password_file: pw, token_file: token, tokens: { guest: { token_file: guest } }${options.status ?? ""} }`;
  const dir = await makeYard({ ...options, top: `${status}\n${withUrl(options.top)}` });
  for (const [name, text] of Object.entries({
    pw: password,
    token: "token-of-the-programs",
    guest: "token-of-a-guest-who-sees",
  }))
    await writeFile(join(dir, name), `${text}\n`, { mode: 0o600 });
  return dir;
}

/** A form that is sent, as a browser does. */
export async function post(
  server: HookServer,
  path: string,
  { cookie, headers, body = "" }: { cookie?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return await http(server, path, {
    method: "POST",
    body,
    headers: {
      ...html,
      "content-type": "application/x-www-form-urlencoded",
      origin: `http://127.0.0.1:${server.port}`,
      host: `127.0.0.1:${server.port}`,
      ...(cookie === undefined ? {} : { cookie }),
      ...headers,
    },
  });
}

/** @returns the session's cookie. */
export async function signIn(server: HookServer, secret = password): Promise<string> {
  const { status, text, headers } = await post(server, "/sign-in", {
    body: new URLSearchParams({ secret, to: "/" }).toString(),
  });
  if (status !== 303) throw new Error(`sign-in was answered ${status}: ${text}`);
  return String(headers["set-cookie"]).split(";")[0] ?? "";
}

export const get = (
  server: HookServer,
  path: string,
  cookie = "",
  headers: Record<string, string> = {},
): Promise<Answer> => http(server, path, { headers: { ...html, ...(cookie === "" ? {} : { cookie }), ...headers } });

export async function startPage(options: Parameters<typeof makeYard>[0] = {}): Promise<HookServer> {
  const dir = await makeYard({
    ...options,
    top: `status: { password_file: pw }\n${withUrl(options.top)}`,
  });
  await writeFile(join(dir, "pw"), `${password}\n`, { mode: 0o600 });
  return await startHooks(dir);
}

/** A page of a browser of its own, signed in; what its scripts threw is collected. */
export async function visit(
  browser: Browser,
  server: HookServer,
  path = "/",
  options: object = {},
): Promise<Page & { faults: string[] }> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = Object.assign(await context.newPage(), { faults: [] as string[] });
  page.setDefaultTimeout(20_000 * slowness());
  page.on("pageerror", (error) => page.faults.push(error.message));
  page.on("console", (message) => {
    if (message.text().includes("Content Security Policy")) page.faults.push(message.text());
  });
  page.on("dialog", (dialog) => {
    page.faults.push(`dialog ${dialog.message()}`);
    void dialog.dismiss();
  });
  await page.goto(`http://localhost:${server.port}${path}`);
  await page.fill("#secret", password);
  await page.press("#secret", "Enter");
  await page.waitForSelector("form[action='/sign-out']");
  // its script has run: keys act
  await page.waitForLoadState();
  return page;
}
