import { Buffer } from "node:buffer";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/**
 * Signed requests: a header with the time, a nonce, and an HMAC-SHA256 over method, path and query, time and
 * nonce. Somebody who reads along cannot repeat it: a nonce is accepted once, and forgotten only when its time is past.
 */

/** The header: `time=SECONDS, nonce=HEX, hmac=HEX`. */
export const signatureHeader = "boatyard-signature";

/** How far two clocks may differ, in seconds; a nonce is remembered for twice that. */
export const allowedSkew = 300;

/** Sign a request. `path` is the path with its query, as the request line has it; `now` in milliseconds. */
export function signRequest(
  secret: string,
  method: string,
  path: string,
  now = Date.now(),
  nonce = randomBytes(16).toString("hex"),
): string {
  const time = Math.floor(now / 1000);
  return `time=${time}, nonce=${nonce}, hmac=${hmacOf(secret, method, path, String(time), nonce)}`;
}

function hmacOf(secret: string, method: string, path: string, time: string, nonce: string): string {
  return createHmac("sha256", secret).update([method, path, time, nonce].join("\n")).digest("hex");
}

export type SignatureCheck =
  | { ok: true; nonce: string /** seconds since 1970 */; time: number }
  | { ok: false; reason: string };

/**
 * Check a request's signature against the secrets that are valid now. Whether the nonce is new, the
 * caller must check. Only a caller that has a secret learns about the clock.
 */
export function verifyRequest(
  secrets: readonly string[],
  method: string,
  path: string,
  header: string | undefined,
  now = Date.now(),
): SignatureCheck {
  if (header === undefined) {
    return {
      ok: false,
      reason: "the request is not signed; send it with server-update --secret-file",
    };
  }
  const match = /^time=(\d{1,12}), nonce=([0-9a-f]{32}), hmac=([0-9a-f]{64})$/.exec(header);
  const [, time = "", nonce = "", hmac = ""] = match ?? [];
  if (!match) return { ok: false, reason: "the signature is malformed" };
  const given = Buffer.from(hmac, "hex");
  const matches = secrets
    .map((secret) =>
      timingSafeEqual(Buffer.from(hmacOf(secret, method, path, time, nonce), "hex"), given),
    )
    .includes(true);
  if (!matches) return { ok: false, reason: "the signature does not match; compare the secrets" };
  const behind = Math.round(now / 1000) - Number(time);
  if (Math.abs(behind) > allowedSkew) {
    const [amount, side] = [Math.abs(behind), behind > 0 ? "behind" : "ahead of"];
    const shown =
      amount < 7200 ? `${Math.round(amount / 60)} minutes` : `${Math.round(amount / 3600)} hours`;
    return {
      ok: false,
      reason: `the master's clock is ${shown} ${side} this slave's (${new Date(now).toISOString()}), or the request is old; set both clocks (NTP)`,
    };
  }
  return { ok: true, nonce, time: Number(time) };
}
