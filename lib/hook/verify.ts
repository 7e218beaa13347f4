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

/** How each forge writes the repository's name in a JSON body, and GitHub in a form-encoded one. */
const nameKeys = ['"full_name"', '"path_with_namespace"', "%22full_name%22"].map((text) =>
  Buffer.from(text),
);
const mostHints = 8;

/**
 * Repository names that an unverified body seems to hold, in order of appearance: a hint for which secret to try first.
 * It looks at bytes only; what the body really says is read after its signature has been found good.
 */
export function repoHints(body: Buffer): string[] {
  const hints = new Set<string>();
  for (const key of nameKeys) {
    let at = body.indexOf(key);
    for (let tries = 0; at >= 0 && tries < mostHints; tries++) {
      const after = body.toString("latin1", at + key.length, at + key.length + 320);
      const name =
        /^(?:\s*:\s*"|(?:%20|\+)*%3A(?:%20|\+)*%22)((?:[A-Za-z0-9._/-]|%2F)+)(?:"|%22)/i.exec(
          after,
        )?.[1];
      if (name !== undefined) hints.add(name.replace(/%2F/gi, "/"));
      at = body.indexOf(key, at + key.length);
    }
  }
  return [...hints];
}
