import { Buffer } from "node:buffer";
import { createPrivateKey, createPublicKey, type KeyObject, randomBytes, sign } from "node:crypto";

/** NATS' nkeys: Ed25519 keys in base32. By node:crypto, as the package's own take 50 ms for a signature. */

/** Prefixes, which make the first letters: `U` of a user's public key, and `SU` of its seed. */
const user = 20 << 3;
const userSeed = [(18 << 3) | (user >> 5), (user & 31) << 3];
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/** An Ed25519 key in PKCS #8 (RFC 8410) is this and its 32 bytes. */
const pkcs8 = Buffer.from("302e020100300506032b657004220420", "hex");

/** The public half of an Ed25519 key as nats.conf names a user: `U` and 55 letters and digits. */
export function nkeyOf(key: KeyObject): string {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return encode([user], Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url"));
}

/** Whether a text is the public key of a user. */
export function isNkey(text: string): boolean {
  return /^U[A-Z2-7]{55}$/.test(text) && decode(text) !== undefined;
}

/** A new key's seed: `SU` and 56 letters and digits, as `nk` and `nsc` of NATS make it. */
export function newSeed(): string {
  return encode(userSeed, randomBytes(32));
}

/** The private key of a user's seed; undefined: it is none. */
export function keyOfSeed(text: string): KeyObject | undefined {
  const bytes = /^SU[A-Z2-7]{56}$/.test(text) ? decode(text) : undefined;
  if (bytes === undefined || !bytes.subarray(0, 2).equals(Buffer.from(userSeed))) return undefined;
  return keyFromSeed(bytes.subarray(2));
}

/** The private key that 32 bytes are. */
export function keyFromSeed(seed: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([pkcs8, seed]), format: "der", type: "pkcs8" });
}

/**
 * What a server sends to be signed: a short word, never a text of ours.
 * @throws {Error} for anything else: a server that is not honest must not get an order signed
 */
export function signNonce(nonce: string, key: KeyObject): string {
  if (!/^[A-Za-z0-9_-]{8,64}$/.test(nonce)) throw new Error("the bus sent an odd nonce");
  return sign(null, Buffer.from(nonce), key).toString("base64url");
}

/** Prefix, bytes and their sum in base32 (RFC 4648, without padding). */
function encode(prefix: readonly number[], raw: Uint8Array): string {
  const body = Buffer.concat([Buffer.from(prefix), raw]);
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc16(body));
  const bytes = Buffer.concat([body, sum]);
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups.map((group) => alphabet[Number.parseInt(group.padEnd(5, "0"), 2)]).join("");
}

/** Prefix and bytes; undefined when the sum is wrong. */
function decode(text: string): Buffer | undefined {
  const bits = [...text].map((char) => alphabet.indexOf(char).toString(2).padStart(5, "0")).join("");
  const bytes = Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
  const body = bytes.subarray(0, -2);
  return crc16(body) === bytes.readUInt16LE(body.length) ? body : undefined;
}

/** CRC-16/XMODEM. */
function crc16(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) sum = ((sum & 0x8000) === 0 ? sum << 1 : (sum << 1) ^ 0x1021) & 0xffff;
  }
  return sum;
}
