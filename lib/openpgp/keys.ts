import type { Key, PublicKey } from "openpgp";
import { messageOf, Refused } from "../core/errors.ts";

/**
 * OpenPGP keys (RFC 9580, RFC 4880), and the bytes that are signed. The owner of the openpgp package; signatures are
 * checked in verify.ts and made in sign.ts.
 */

export type {
  Config,
  Key,
  PrivateKey,
  PublicKey,
  SignaturePacket,
  Subkey,
} from "openpgp";

/** The package, loaded where it is used. */
export function loadOpenpgp() {
  return import("openpgp");
}

export type OpenpgpLibrary = Awaited<ReturnType<typeof loadOpenpgp>>;

/** A key's full fingerprint, upper-case hex without blanks. */
export function fingerprintOf(key: Key): string {
  return key.getFingerprint().toUpperCase();
}

/** A fingerprint as people write it (blanks, `0x`, lower case) in our form; undefined when it is not one, or a short id. */
export function normalFingerprint(text: string): string | undefined {
  const hex = text.replace(/[\s:]/g, "").replace(/^0x/i, "").toUpperCase();
  return /^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(hex) ? hex : undefined;
}

/**
 * The public keys in a file, armored or binary; several may stand in it. A private key gives its public half.
 * @throws {Refused} when there is no key in it.
 */
export async function readPublicKeys(data: Uint8Array, name: string): Promise<PublicKey[]> {
  const { readKeys } = await loadOpenpgp();
  try {
    const text = Buffer.from(data).toString("latin1");
    const keys = text.trimStart().startsWith("-----BEGIN PGP")
      ? await readKeys({ armoredKeys: text })
      : await readKeys({ binaryKeys: new Uint8Array(data) });
    if (keys.length > 0) return keys.map((key) => key.toPublic());
  } catch (error) {
    throw new Refused(`${name} is not an OpenPGP key (${messageOf(error)})`);
  }
  throw new Refused(`${name} holds no OpenPGP key`);
}

/** The same key from two sources as one: the union of its subkeys, expiry dates and revocations. */
export async function mergeKeys(one: PublicKey, other: PublicKey): Promise<PublicKey> {
  return await one.update(other);
}

/** A public key in armored text. */
export function armor(key: PublicKey): string {
  return key.toPublic().armor();
}

/** What is signed: bytes, or a function that reads them from the start. */
export type SignedData = Uint8Array | (() => AsyncIterable<Uint8Array>);

export type Message = Awaited<ReturnType<typeof signedMessage>>;

/** The same as a message of the package's, whose data is a stream. */
export async function signedMessage(data: SignedData) {
  const { createMessage } = await loadOpenpgp();
  const binary = ReadableStream.from(data instanceof Uint8Array ? [data] : data());
  return await createMessage({ binary });
}
