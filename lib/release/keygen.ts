import { mkdir, writeFile } from "node:fs/promises";
import { hostname, userInfo } from "node:os";
import { dirname } from "node:path";
import { systemCode, UsageError } from "../core/errors.ts";
import { generateSigningKey } from "../openpgp/sign.ts";
import { readSecretFile } from "../config/secrets.ts";
import { defaultKeyFile } from "./signer.ts";

export interface KeygenOptions {
  out?: string | undefined;
  name?: string | undefined;
  email?: string | undefined;
  passphraseFile?: string | undefined;
}

/**
 * Make a signing key: ed25519, armored, mode 600.
 * @throws {UsageError} when the file is there: a key is never overwritten.
 */
export async function keygen({
  out = defaultKeyFile(),
  name = `${userInfo().username}@${hostname()}`,
  email,
  passphraseFile,
}: KeygenOptions): Promise<{ file: string; fingerprint: string }> {
  const passphrase =
    passphraseFile === undefined ? undefined : await readSecretFile(passphraseFile);
  const { privateKey, fingerprint } = await generateSigningKey({ name, email, passphrase });
  await mkdir(dirname(out), { recursive: true, mode: 0o700 });
  try {
    await writeFile(out, privateKey, { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (systemCode(error) === "EEXIST")
      throw new UsageError(
        `${out} is there already; a key is never overwritten, choose another --out`,
      );
    throw error;
  }
  return { file: out, fingerprint };
}
