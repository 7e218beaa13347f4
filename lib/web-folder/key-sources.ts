import { readFile } from "node:fs/promises";
import process from "node:process";
import { messageOf, Refused, systemCode, UsageError } from "../core/errors.ts";
import { $, cleanEnvironment } from "../exec/exec.ts";
import {
  fingerprintOf,
  mergeKeys,
  normalFingerprint,
  ownParts,
  type PublicKey,
  readPublicKeys,
} from "../openpgp/keys.ts";

/** Where public keys come from besides the web folder: a file, the user's gpg ring. And what several copies make. */

/** What a command line names. */
export interface GivenKeys {
  /** --key: a fingerprint, or a short id that one key in the local ring has. */
  key?: string | undefined;
  /** --key-file */
  keyFile?: string | undefined;
}

/** Of all copies the keys with these fingerprints, each as one. */
export async function collectKeys(
  wanted: Iterable<string>,
  copies: readonly PublicKey[],
): Promise<Map<string, PublicKey>> {
  const found = new Map<string, PublicKey>();
  for (const fingerprint of new Set(wanted)) {
    // a copy may tell of a revocation, a new subkey or a later end; only the key's owner can sign those
    for (const copy of copies.filter((key) => fingerprintOf(key) === fingerprint)) {
      const known = found.get(fingerprint);
      try {
        found.set(fingerprint, known ? await mergeKeys(known, copy) : await ownParts(copy));
      } catch (error) {
        // a copy that somebody stuffed hides no other one
        if (!(error instanceof Refused)) throw error;
      }
    }
  }
  return found;
}

/** @throws {UsageError} when there is no key in it. */
export async function readKeyFile(path: string): Promise<PublicKey[]> {
  try {
    return await readPublicKeys(await readFile(path), path);
  } catch (error) {
    const why = systemCode(error) === "ENOENT" ? `${path}: there is no such file` : messageOf(error);
    throw new UsageError(`--key-file: ${why}; export it with gpg --export --armor FINGERPRINT`);
  }
}

/**
 * Check what a command line names, as far as that goes without a web folder.
 * @throws {UsageError} when it is no key.
 */
export async function checkGiven({ key, keyFile }: GivenKeys): Promise<void> {
  if (key !== undefined && normalFingerprint(key) === undefined) shortId(key);
  if (keyFile !== undefined) await readKeyFile(keyFile);
}

/** The user's gpg, where there is one. */
function gpg() {
  const env = cleanEnvironment({ GNUPGHOME: process.env["GNUPGHOME"] });
  return $({ env, nothrow: true });
}

/** The key from the user's gpg ring; none when there is no gpg, or no such key. */
export async function keysInRing(fingerprint: string): Promise<PublicKey[]> {
  const { stdout } = await gpg()`gpg --batch --no-tty --armor --export ${fingerprint}`;
  try {
    return stdout.trim() === "" ? [] : await readPublicKeys(Buffer.from(stdout), "gpg --export");
  } catch {
    return [];
  }
}

/** @throws {UsageError} when it is not one. */
function shortId(text: string): string {
  const id = text.replace(/[\s:]/g, "").replace(/^0x/i, "").toUpperCase();
  if (/^[0-9A-F]{8}(?:[0-9A-F]{8})?$/.test(id)) return id;
  throw new UsageError(`"${text}" is not a fingerprint; give all 40 hex digits (gpg --fingerprint shows them)`);
}

/**
 * A fingerprint as it was written, in full. A short id is looked up in the gpg ring.
 * @throws {UsageError} when it is neither.
 * @throws {Refused} unless one key there bears the short id.
 */
export async function fullFingerprint(text: string, note: (line: string) => void): Promise<string> {
  const whole = normalFingerprint(text);
  if (whole !== undefined) return whole;
  const id = shortId(text);
  const { stdout } = await gpg()`gpg --batch --no-tty --with-colons --list-keys ${`0x${id}`}`;
  const found: string[] = [];
  let primary = false;
  for (const line of stdout.split("\n")) {
    const fields = line.split(":");
    if (fields[0] === "pub") primary = true;
    else if (fields[0] === "fpr" && primary) {
      found.push(fields[9] ?? "");
      primary = false;
    }
  }
  const [fingerprint] = found;
  if (found.length !== 1 || !fingerprint)
    throw new Refused(
      `the short id ${id} names ${found.length === 0 ? "no key" : `${found.length} keys`} in the gpg ring; ` +
        "give the whole fingerprint",
    );
  note(`short ids can be forged: ${id} is taken for ${fingerprint}; write that one into launchify.yml`);
  return fingerprint;
}
