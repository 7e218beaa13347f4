import { createHash, createHmac, timingSafeEqual } from "node:crypto";

/** The proof that a delivery is genuine, and whether it holds. Pure; by the forges' own pages on webhooks. */
export type Proof =
  /** HMAC-SHA256 of the raw body in hex. */
  | { readonly kind: "hmac"; readonly hex: string }
  /** The secret itself, as GitLab sends it. */
  | { readonly kind: "token"; readonly token: string }
  /** GitLab's signing token, by Standard Webhooks (standardwebhooks.com); `token`: it may send the plain one too. */
  | {
      readonly kind: "signed";
      readonly id: string;
      readonly timestamp: string;
      /** As the header has them, separated by blanks: `v1,BASE64`. */
      readonly signatures: string;
      readonly token: string | undefined;
    };

const prefix = "whsec_";
/** Milliseconds by which a signed timestamp may differ from this machine's clock. */
const tolerance = 5 * 60_000;

/** Whether a secret says of itself that it is a signing token. */
export function isSigningToken(secret: string): boolean {
  return secret.startsWith(prefix);
}

/** The key in a signing token (`whsec_` and 24 to 64 bytes in base64); undefined when it has another form. */
export function signingKey(secret: string): Buffer | undefined {
  if (!isSigningToken(secret)) return undefined;
  const key = readBase64(secret.slice(prefix.length));
  return key && key.length >= 24 && key.length <= 64 ? key : undefined;
}

/** Buffer.from would take anything for base64. */
function readBase64(text: string): Buffer | undefined {
  const form = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
  return form.test(text) ? Buffer.from(text, "base64") : undefined;
}

/** Whether the headers alone leave it open that the sender knows `secret`. For a token they tell it all. */
export function mayProve(proof: Proof, secret: string, now = Date.now()): boolean {
  if (secret === "") return false;
  // a repo with a signing token takes nothing but its signature: no plain token beside it, no other forge's
  if (isSigningToken(secret)) return proof.kind === "signed" && whyStale(proof, now) === undefined && isSignable(proof);
  if (proof.kind === "hmac") return /^[0-9a-fA-F]{64}$/.test(proof.hex);
  return proof.token !== undefined && timingSafeEqual(digest(proof.token), digest(secret));
}

/** Whether `proof` shows that the sender of `body` knows `secret`. Takes the same time wherever they differ. */
export function proves(proof: Proof, body: Uint8Array, secret: string, now = Date.now()): boolean {
  if (!mayProve(proof, secret, now)) return false;
  const key = signingKey(secret);
  if (proof.kind === "signed" && key) {
    const { id, timestamp, signatures } = proof;
    const right = hmac(key, `${id}.${timestamp}.`, body);
    return signatures.split(" ").some((each) => {
      const given = each.startsWith("v1,") ? readBase64(each.slice(3)) : undefined;
      return given?.length === right.length && timingSafeEqual(given, right);
    });
  }
  if (proof.kind !== "hmac") return !isSigningToken(secret);
  return timingSafeEqual(hmac(secret, body), Buffer.from(proof.hex, "hex"));
}

/** What proves a delivery with this id, sent now: the proof that a forge with the same secret would send. */
export function prove(body: Uint8Array, secret: string, id: string, now = Date.now()): Proof {
  const key = signingKey(secret);
  if (!key) return { kind: "hmac", hex: hmac(secret, body).toString("hex") };
  const timestamp = String(Math.floor(now / 1000));
  const signature = hmac(key, `${id}.${timestamp}.`, body).toString("base64");
  return { kind: "signed", id, timestamp, signatures: `v1,${signature}`, token: undefined };
}

function hmac(key: string | Buffer, ...parts: (string | Uint8Array)[]): Buffer {
  const made = createHmac("sha256", key);
  for (const part of parts) made.update(part);
  return made.digest();
}

/** A dot in the id would leave open where it ends in what is signed. */
function isSignable({ id, timestamp }: Extract<Proof, { kind: "signed" }>): boolean {
  return /^[\x21-\x2d\x2f-\x7e]+$/.test(id) && /^[0-9]{1,12}$/.test(timestamp);
}

/** Why a signed delivery is too old, or too new, to be taken; undefined: it is not. */
export function whyStale(proof: Proof | undefined, now = Date.now()): string | undefined {
  if (proof?.kind !== "signed" || !/^[0-9]{1,12}$/.test(proof.timestamp)) return undefined;
  if (Math.abs(now - Number(proof.timestamp) * 1000) <= tolerance) return undefined;
  return "the signature is of another time: more than 5 minutes from this server's clock";
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** An unsigned stranger must not make the server hash more than this for one request. */
const maxHashedBytes = 64 * 1024 * 1024;

/** Whether the sender of a body knows one of these secrets; false, too, when so many were tried that no more are. */
export type SignatureCheck = (secrets: readonly string[]) => boolean;

/** Checks one body's signature against the secrets of several repos; each secret is tried once at most. */
export function signatureCheck(proof: Proof, body: Uint8Array): SignatureCheck {
  const results = new Map<string, boolean>();
  const isKnown = (secret: string): boolean => {
    const before = results.get(secret);
    if (before !== undefined) return before;
    if ((results.size + 1) * body.length > maxHashedBytes) return false;
    const result = proves(proof, body, secret);
    results.set(secret, result);
    return result;
  };
  return (secrets) => secrets.some(isKnown);
}
