import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { HttpError } from "../http/server.ts";
import type { Visit } from "./access.ts";
import { iconOf, pageFiles } from "./files.ts";

/** How answers are sent. */

/** What each answer has: nothing from elsewhere, no script or style in a page, no frame, no referrer to other sites. */
const safeHeaders = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cache-control": "no-store",
  vary: "Cookie, Accept, Accept-Encoding",
} as const;

/** Keep an answer to itself, whoever sends it in the end: a page, a refusal, a log. */
export function setSafeHeaders(response: ServerResponse): void {
  response.setHeaders(new Headers(safeHeaders));
}

/** What a build printed must not act on this site, whatever a browser takes it for. */
export const rawHeaders = {
  "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
};

/** Lead to another address of this server, by GET. */
export function redirect(response: ServerResponse, location: string, headers: Record<string, string> = {}): void {
  response.writeHead(303, { location, ...headers });
  response.end();
}

/** The script, the stylesheet and the icons. @throws {HttpError} 404 */
export async function sendFile(visit: Visit, name: string): Promise<void> {
  const icon = iconOf(name);
  const found = icon ?? Object.values(pageFiles()).find((each) => each.name === name);
  if (!found) throw new HttpError(404, "there is no such page");
  const age = icon ? "max-age=86400" : "max-age=31536000, immutable";
  await send(visit, { ...found, headers: { ...(icon && rawHeaders), "cache-control": `public, ${age}` } });
}

interface Answer {
  status?: number;
  type: string;
  text: string;
  headers?: object;
}

const compress = promisify(gzip);
/** Of texts that do not change: the script and the stylesheet. */
const compressed = new Map<string, Buffer>();

/** Send a text, compressed where that is worth it; what a browser may keep and has already, it is not sent again. */
export async function send({ request, response }: Visit, { status = 200, type, text, headers }: Answer): Promise<void> {
  const head: Record<string, string> = { "content-type": `${type}; charset=utf-8`, ...headers };
  if (/no-cache/.test(head["cache-control"] ?? "")) {
    head["etag"] = `W/"${createHash("sha256").update(text).digest("base64url").slice(0, 27)}"`;
    if (request.headers["if-none-match"] === head["etag"]) return void response.writeHead(304, head).end();
  }
  let body: string | Buffer = text;
  if (text.length > 1000 && /\bgzip\b/.test(String(request.headers["accept-encoding"]))) {
    head["content-encoding"] = "gzip";
    body = compressed.get(text) ?? (await compress(text));
    if (/immutable/.test(head["cache-control"] ?? "")) compressed.set(text, body);
  }
  head["content-length"] = String(Buffer.byteLength(body));
  response.writeHead(status, head).end(body);
}
