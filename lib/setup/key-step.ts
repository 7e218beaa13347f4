import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { exists } from "../files/files.ts";
import { file } from "./file-steps.ts";
import { inRoot } from "./machine.ts";
import type { OwnedPath, Step } from "./step.ts";

/** Ed25519 keys, as `server-update keygen` makes them. */

/** A private key, in PEM, that is made once. */
export function signingKey(options: OwnedPath): Step {
  return madeOnce(options, "key", () => {
    const { privateKey } = generateKeyPairSync("ed25519");
    return privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  });
}

/** The public half of a private key, as one word. */
export function publicKey(options: OwnedPath & { of: string }): Step {
  return madeOnce(options, "public key", async (root) => {
    const key = createPublicKey(await readFile(await inRoot(root, options.of), "utf8"));
    return `ed25519:${key.export({ format: "jwk" }).x}\n`;
  });
}

/** A file whose text comes to be when it is missing, and is not looked at again. */
function madeOnce(
  options: OwnedPath,
  kind: string,
  make: (root: string) => string | Promise<string>,
): Step {
  const step = file({ ...options, text: "", once: true });
  return {
    ...step,
    what: step.what.replace(/^file /, `${kind} `),
    async perform(root) {
      if (await exists(await inRoot(root, options.path))) return await step.perform(root);
      return await file({ ...options, text: await make(root) }).perform(root);
    },
  };
}
