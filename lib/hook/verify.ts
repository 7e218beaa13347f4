import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Proof } from "./forge.ts";

/** Whether `proof` shows that the sender of `body` knows `secret`. Takes the same time wherever they differ. */
export function proves(proof: Proof, body: Uint8Array, secret: string): boolean {
  if (secret === "") return false;
  if (proof.kind === "token") return timingSafeEqual(digest(proof.token), digest(secret));
  if (!/^[0-9a-fA-F]{64}$/.test(proof.hex)) return false;
  return timingSafeEqual(
    createHmac("sha256", secret).update(body).digest(),
    Buffer.from(proof.hex, "hex"),
  );
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

/** An unsigned stranger must not make the server hash more than this for one request. */
const mostHashed = 256 * 1024 * 1024;

/** Tells which secrets the sender of one body knows; each is tried once at most. */
export class Knowledge {
  readonly #proof: Proof;
  readonly #body: Uint8Array;
  /** An honest sender's secret is nearly always the first that is tried: no Map is made for it. */
  readonly #secrets: string[] = [];
  readonly #results: boolean[] = [];

  constructor(proof: Proof, body: Uint8Array) {
    this.#proof = proof;
    this.#body = body;
  }

  /** Whether the sender knows one of these; false, too, when so many were tried that no more are. */
  ofAny(secrets: readonly string[]): boolean {
    for (const secret of secrets) if (this.#of(secret)) return true;
    return false;
  }

  #of(secret: string): boolean {
    const before = this.#secrets.indexOf(secret);
    if (before >= 0) return this.#results[before] === true;
    if ((this.#secrets.length + 1) * this.#body.length > mostHashed) return false;
    const result = proves(this.#proof, this.#body, secret);
    this.#secrets.push(secret);
    this.#results.push(result);
    return result;
  }
}

/** How each forge writes the repository's name in a JSON body, and GitHub in a form-encoded one. */
const nameKeys = ['"full_name"', '"path_with_namespace"', "%22full_name%22"].map((text) =>
  Buffer.from(text),
);
const mostHints = 8;
const named = /^(?:\s*:\s*"|(?:%20|\+)*%3A(?:%20|\+)*%22)((?:[A-Za-z0-9._/-]|%2F)+)(?:"|%22)/i;

/**
 * Repository names that an unverified body seems to hold, one after the other: a hint for which secret to try first.
 * It looks at bytes only, and no further than it is asked for the next; what the body really says is read after
 * its signature has been found good.
 */
export function* repoHints(body: Buffer): Generator<string> {
  for (const key of nameKeys) {
    let at = body.indexOf(key);
    for (let tries = 0; at >= 0 && tries < mostHints; tries++) {
      const name = named.exec(body.toString("latin1", at + key.length, at + key.length + 320))?.[1];
      if (name !== undefined) yield name.replace(/%2F/gi, "/");
      at = body.indexOf(key, at + key.length);
    }
  }
}
