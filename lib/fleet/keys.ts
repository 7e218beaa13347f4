import { Buffer } from "node:buffer";
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { link, rm } from "node:fs/promises";
import { keyFromSeed, keyOfSeed, newSeed, nkeyOf } from "../bus/nkey.ts";
import { readSecretFile } from "../config/secrets.ts";
import { Failure, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { exists, temporaryBeside, writeAtomic } from "../files/files.ts";

/** Ed25519 keys: private ones as PEM files (PKCS #8), public ones as a word, `ed25519:` and 43 letters of base64url. */

/**
 * Make a key pair: `path` (mode 600) and `path.pub`.
 * @throws {Failure} when there is something at `path` already
 */
export async function writeKey(path: string): Promise<{ publicKey: string; id: string }> {
  const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  // read anew: Node 20 may stop for ever where the very object that it generated is exported as JWK
  const privateKey = createPrivateKey(pem);
  const publicKey = formatPublicKey(privateKey);
  await writeOnce(path, pem);
  await writeAtomic(`${path}.pub`, `${publicKey}\n`, { mode: 0o644 }).catch(async (error: unknown) => {
    await rm(path);
    throw notWritten(`${path}.pub`, error);
  });
  return { publicKey, id: keyId(privateKey) };
}

/**
 * Make a key for a bus: its seed in `path` (mode 600).
 * @returns how the bus knows it
 * @throws {Failure} when there is something at `path` already
 */
export async function writeSeed(path: string): Promise<string> {
  const seed = newSeed();
  await writeOnce(path, `${seed}\n`);
  const key = keyOfSeed(seed);
  if (!key) throw new Error("a seed that was just made cannot be read");
  return nkeyOf(key);
}

/** Write a file where there is none, in one step. */
async function writeOnce(path: string, text: string): Promise<void> {
  const whole = temporaryBeside(path);
  try {
    await writeAtomic(whole, text, { mode: 0o600 });
    await link(whole, path);
  } catch (error) {
    throw notWritten(path, error);
  } finally {
    await rm(whole, { force: true }).catch(() => {});
  }
}

function notWritten(path: string, error: unknown): Failure {
  const code = systemCode(error);
  if (code === "EEXIST") return new Failure(`${path} is there already, and is left alone; name another by --out`);
  const why = code === "ENOENT" ? "its folder is not there; make it first" : (code ?? messageOf(error));
  return new Failure(`${path} cannot be written: ${why}`);
}

/**
 * A private key from a file, such as `server-update keygen` or `openssl genpkey -algorithm ed25519` makes.
 * @param where `file:line:col` of the place that names it
 * @throws {UsageError} when it cannot be read, others can read it, or it is another kind of key
 */
export async function readPrivateKey(path: string, where = ""): Promise<KeyObject> {
  const prefix = where === "" ? "" : `${where}: `;
  if (!(await exists(path)))
    throw new UsageError(`${prefix}there is no ${path}; make the key with: server-update keygen --out ${path}`);
  const text = await readSecretFile(path, where);
  let key: KeyObject | undefined;
  try {
    key = createPrivateKey(text);
  } catch {
    // the error might quote the key
  }
  if (key?.asymmetricKeyType === "ed25519") return key;
  throw new UsageError(`${prefix}${path} is not an Ed25519 private key in PEM; make one with: server-update keygen`);
}

/**
 * A public key from its word.
 * @throws {UsageError}
 */
export function parsePublicKey(text: string): KeyObject {
  const x = /^ed25519:([A-Za-z0-9_-]{43})$/.exec(text)?.[1];
  // the last character has bits that count for nothing
  if (x !== undefined && Buffer.from(x, "base64url").toString("base64url") === x)
    return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  throw new UsageError(
    `${JSON.stringify(text.slice(0, 80))} is not a public key; write ed25519: ` +
      "and the 43 characters that server-update keygen prints",
  );
}

/** The word for the public half of a key. */
export function formatPublicKey(key: KeyObject): string {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return `ed25519:${publicKey.export({ format: "jwk" }).x}`;
}

/** A short name for a public key, for files and logs. */
export function keyId(key: KeyObject): string {
  return createHash("sha256").update(formatPublicKey(key)).digest("hex").slice(0, 16);
}

/**
 * The key that a shared secret is: both sides make the same one, its hash is the seed.
 * @param where the place that names the secret
 * @throws {UsageError} for one that can be guessed by whoever sees a letter
 */
export function keyOfSecret(secret: string, where: string): KeyObject {
  if (secret.length < 32)
    throw new UsageError(`${where}: a secret is shorter than 32 characters; make one with: openssl rand -hex 32`);
  return keyFromSeed(createHash("sha256").update(`boatyard-fleet\n${secret}`).digest());
}
