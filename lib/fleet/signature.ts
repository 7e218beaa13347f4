import { Buffer } from "node:buffer";
import { createHash, createHmac, type KeyObject, randomBytes, sign, timingSafeEqual, verify } from "node:crypto";

/** Signed requests and answers over HTTP: headers of our own. Updates by a master with a key carry an order as well. */

/** An order as `signOrder` writes it. */
export const orderHeader = "boatyard-order";
/** `target=NAME, time=SECONDS, nonce=HEX` and one or both of `hmac=HEX`, `ed25519=BASE64URL`. */
export const requestHeader = "boatyard-signature-v2";
/** What an answer is for, and whose it is: `for=HEX` and one or both of `hmac=HEX`, `ed25519=BASE64URL`. */
export const answerHeader = "boatyard-answer";

/** How far two clocks may differ, in seconds. */
export const allowedSkew = 300;

/** What requests and answers are signed with, and checked against. */
export interface Keys {
  /** One's own. */
  key?: KeyObject | undefined;
  secret?: string | undefined;
}

export interface SignedRequest {
  method: string;
  /** With its query, as the request line has it. */
  path: string;
  target: string;
}

/** Sign a request; `now` in milliseconds. */
export function signRequest(
  { key, secret }: Keys,
  request: SignedRequest,
  now = Date.now(),
  nonce = randomBytes(16).toString("hex"),
): string {
  const time = String(Math.floor(now / 1000));
  const text = requestText(request, time, nonce);
  const words = [`target=${request.target}`, `time=${time}`, `nonce=${nonce}`];
  if (secret !== undefined) words.push(`hmac=${hmacOf(secret, text)}`);
  if (key !== undefined) words.push(`ed25519=${sign(null, Buffer.from(text), key).toString("base64url")}`);
  return words.join(", ");
}

function requestText({ method, path, target }: SignedRequest, time: string, nonce: string): string {
  return ["boatyard-request-v2", method, path, target, time, nonce].join("\n");
}

function hmacOf(secret: string, text: string): string {
  return createHmac("sha256", secret).update(text).digest("hex");
}

/** What a signature was checked against. */
export interface Trusted {
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  secrets: readonly string[];
}

export type SignatureCheck =
  | {
      ok: true;
      nonce: string /** Seconds since 1970. */;
      time: number;
      secret?: string | undefined;
    }
  /** `isLate`: it is good but for its time. */
  | { ok: false; reason: string; isLate?: true };

const form =
  /^target=([\w.:-]{1,253}), time=(\d{1,12}), nonce=([\da-f]{32})(?:, hmac=([\da-f]{64}))?(?:, ed25519=([\w-]{86}))?$/;

/**
 * Check the signature of a request, by a key or by a shared secret. Only a caller that has one learns about the clock.
 * Whether the nonce is new and the target is us, the caller must check.
 */
export function verifyRequest(
  trusted: Trusted,
  request: Omit<SignedRequest, "target">,
  header: string,
  now = Date.now(),
): SignatureCheck & { target?: string } {
  const match = form.exec(header);
  const [, target = "", time = "", nonce = "", hmac, ed25519] = match ?? [];
  if (!match) return { ok: false, reason: "the signature is malformed" };
  const text = requestText({ ...request, target }, time, nonce);
  const secret = hmac === undefined ? undefined : secretFor(trusted.secrets, text, hmac);
  const byKey = ed25519 !== undefined && isSignedBy(trusted.keys, text, ed25519);
  if (secret === undefined && !byKey)
    return { ok: false, reason: "the signature does not match; compare the keys or secrets" };
  const late = clockRefusal(Number(time) * 1000, now);
  if (late !== undefined) return { ok: false, reason: late, isLate: true };
  return { ok: true, nonce, time: Number(time), secret, target };
}

/** The secret that a text was signed with; every one is tried, so that the time tells nothing. */
function secretFor(secrets: readonly string[], text: string, hmac: string): string | undefined {
  const given = Buffer.from(hmac, "hex");
  const fits = secrets.map((each) => timingSafeEqual(Buffer.from(hmacOf(each, text), "hex"), given));
  return secrets[fits.indexOf(true)];
}

function isSignedBy(keys: readonly KeyObject[], text: string, signature: string): boolean {
  const bytes = Buffer.from(signature, "base64url");
  return keys.some((key) => verify(null, Buffer.from(text), key, bytes));
}

/** Pure: why a request of that time (both in milliseconds) is not taken, if the clocks differ too much. */
export function clockRefusal(time: number, now: number): string | undefined {
  const behind = now - time;
  if (Math.abs(behind) <= allowedSkew * 1000) return undefined;
  const [amount, side] = [Math.abs(behind) / 1000, behind > 0 ? "behind" : "ahead of"];
  const shown = amount < 7200 ? `${Math.round(amount / 60)} minutes` : `${Math.round(amount / 3600)} hours`;
  const here = new Date(now).toISOString();
  return `the master's clock is ${shown} ${side} this slave's (${here}), or the request is old; set both clocks (NTP)`;
}

/** Pure: why an order of that time (both in ms) is not taken: a clock is wrong, and later ones would be under it. */
export function clockAhead(time: number, now: number): string | undefined {
  return time > now ? clockRefusal(time, now) : undefined;
}

/** Pure: why an order is not taken any more (both in ms): it is too old, or the clock here is wrong. */
export function expiredWords(until: number, now: number): string | undefined {
  if (now <= until) return undefined;
  const [end, here] = [until, now].map((time) => new Date(time).toISOString());
  return (
    `the order was good until ${end}, and the clock here says ${here}; ` +
    "the master renews it: server-update --converge; or set this clock (NTP)"
  );
}

/** What an answer says it is for: the header by which the request was accepted. */
export function digestOf(header: string): string {
  return createHash("sha256").update(header).digest("hex");
}

/** Bind an answer to a request: nobody can give it as the answer to another, and with a key or secret it is signed. */
export function signAnswer({ key, secret }: Keys, digest: string, status: number, body: string) {
  const text = answerText(digest, status, body);
  const words = [`for=${digest}`];
  if (secret !== undefined) words.push(`hmac=${hmacOf(secret, text)}`);
  if (key !== undefined) words.push(`ed25519=${sign(null, Buffer.from(text), key).toString("base64url")}`);
  return words.join(", ");
}

function answerText(digest: string, status: number, body: string): string {
  return ["boatyard-answer-v1", digest, status, digestOf(body)].join("\n");
}

/**
 * Pure: why an answer is not the slave's own answer to this very request, if it is not.
 * @param sent the headers of the request, of which the slave accepted one
 * @param own what it was signed with
 * @param slaveKey the slave's public key, when the list names it: then only its signature counts
 */
export function answerRefusal(
  header: string | undefined,
  { sent, own, slaveKey }: { sent: readonly string[]; own: Keys; slaveKey?: KeyObject | undefined },
  status: number,
  body: string,
): string | undefined {
  const [, digest = "", hmac, ed25519] =
    /^for=([0-9a-f]{64})(?:, hmac=([0-9a-f]{64}))?(?:, ed25519=([A-Za-z0-9_-]{86}))?$/.exec(header ?? "") ?? [];
  if (!sent.some((each) => digestOf(each) === digest))
    return "its answer is not bound to the request: it comes from another program, or another time";
  const text = answerText(digest, status, body);
  if (slaveKey !== undefined)
    return ed25519 !== undefined && isSignedBy([slaveKey], text, ed25519)
      ? undefined
      : "its answer is not signed with the key that the list has for it";
  if (own.secret === undefined || (hmac === undefined && own.key !== undefined)) return undefined;
  return hmac !== undefined && secretFor([own.secret], text, hmac) !== undefined
    ? undefined
    : "its answer is not signed with the shared secret";
}
