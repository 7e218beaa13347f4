import { Buffer } from "node:buffer";
import { createPublicKey, type KeyObject, sign } from "node:crypto";

/** NATS' nkeys: Ed25519 keys in base32. By node:crypto, as the package's own take 50 ms for a signature. */

/** The prefix byte of a user's public key: it makes the first letter a U. */
const user = 20 << 3;
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The public half of an Ed25519 key as nats.conf names a user: `U` and 55 letters and digits. */
export function nkeyOf(key: KeyObject): string {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  const body = Buffer.concat([Buffer.from([user]), raw]);
  const sum = Buffer.alloc(2);
  sum.writeUInt16LE(crc16(body));
  return base32(Buffer.concat([body, sum]));
}

/**
 * What a server sends to be signed: a short word, never a text of ours.
 * @throws {Error} for anything else: a server that is not honest must not get an order signed
 */
export function signNonce(nonce: string, key: KeyObject): string {
  if (!/^[A-Za-z0-9_-]{8,64}$/.test(nonce)) throw new Error("the bus sent an odd nonce");
  return sign(null, Buffer.from(nonce), key).toString("base64url");
}

/** CRC-16/XMODEM. */
function crc16(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte << 8;
    for (let bit = 0; bit < 8; bit++)
      sum = ((sum & 0x8000) === 0 ? sum << 1 : (sum << 1) ^ 0x1021) & 0xffff;
  }
  return sum;
}

/** RFC 4648, without padding. */
function base32(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups.map((group) => alphabet[Number.parseInt(group.padEnd(5, "0"), 2)]).join("");
}
