import type { ServerResponse } from "node:http";
import { HttpError } from "../http/server.ts";
import { icon, pageFiles } from "./files.ts";
import type { Html } from "./html.ts";

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
  vary: "Cookie, Accept",
} as const;

/** Keep an answer to itself, whoever sends it in the end: a page, a refusal, a log. */
export function setSafeHeaders(response: ServerResponse): void {
  response.setHeaders(new Headers(safeHeaders));
}

/** What a build printed must not act on this site, whatever a browser takes it for. */
export const rawHeaders = {
  "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
};

export function sendPage(
  response: ServerResponse,
  status: number,
  body: Html,
  headers: Record<string, string> = {},
): void {
  send(response, { status, type: "text/html", text: body.text, headers });
}

/** Lead to another address of this server, by GET. */
export function redirect(response: ServerResponse, location: string, headers: Record<string, string> = {}): void {
  response.writeHead(303, { location, ...headers });
  response.end();
}

export function sendImage(response: ServerResponse, text: string, headers: Record<string, string>): void {
  send(response, { type: "image/svg+xml", text, headers: { ...rawHeaders, ...headers } });
}

/** The script, the stylesheet and the icon. @throws {HttpError} 404 */
export function sendFile(response: ServerResponse, name: string): void {
  if (name === "icon.svg") return sendImage(response, icon, { "cache-control": "public, max-age=86400" });
  const found = Object.values(pageFiles()).find((each) => each.name === name);
  if (!found) throw new HttpError(404, "there is no such page");
  const headers = { "cache-control": "public, max-age=31536000, immutable" };
  send(response, { ...found, headers });
}

interface Answer {
  status?: number;
  type: string;
  text: string;
  headers: Record<string, string>;
}

function send(response: ServerResponse, { status = 200, type, text, headers }: Answer): void {
  response.writeHead(status, {
    "content-type": `${type}; charset=utf-8`,
    "content-length": String(Buffer.byteLength(text)),
    ...headers,
  });
  response.end(text);
}
