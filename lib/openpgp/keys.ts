import { ReadableStream } from "node:stream/web";
import type { AnyPacket, Key, PublicKey, SignaturePacket } from "openpgp";
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

/** A fingerprint as people write it (blanks, `0x`, lower case) in our form; undefined: it is not one, or a short id. */
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
  return await (await ownParts(one)).update(await ownParts(other));
}

/** Signatures of one key that are looked at. */
const maxOwnSignatures = 500;

/**
 * The key with what its owner has signed, nothing else. The package adds what another copy holds unseen, and prefers
 * the newer of two bindings of a subkey: whoever serves the copy could spoil the key for ever, or fill the disk.
 * @throws {Refused} when it holds more than any key does.
 */
export async function ownParts(key: PublicKey): Promise<PublicKey> {
  const { PacketList, SignaturePacket, PublicKey, enums } = await loadOpenpgp();
  const { keyPacket } = key;
  type Part = { head: AnyPacket; own: SignaturePacket[]; types: number[]; data: object };
  const parts: Part[] = [];
  let signatures = 0;
  for (const packet of key.toPacketList()) {
    const part = parts.at(-1);
    if (!(packet instanceof SignaturePacket) || !part) {
      parts.push({ head: packet, own: [], ...signedPart(packet, keyPacket, enums) });
      continue;
    }
    if (!part.types.includes(packet.signatureType ?? -1)) continue;
    if (!packet.issuerKeyID.equals(keyPacket.getKeyID())) continue;
    if (++signatures > maxOwnSignatures)
      throw new Refused(`the key ${fingerprintOf(key)} has more than ${maxOwnSignatures} signatures`);
    // no date: an older signature still says what was so then
    const isGood = await packet
      .verify(keyPacket, packet.signatureType as never, part.data, null as never)
      .then(() => true)
      .catch(() => false);
    if (isGood) part.own.push(packet);
  }
  const list = new PacketList<AnyPacket>();
  for (const { head, own } of parts) if (head === keyPacket || own.length > 0) list.push(head, ...own);
  return new PublicKey(list);
}

/** What signatures after a packet are over, and of which types they are. */
function signedPart(packet: AnyPacket, key: object, { signature }: OpenpgpLibrary["enums"]) {
  if (packet === key) return { data: { key }, types: [signature.keyRevocation, signature.key] };
  if ("userID" in packet || "attributes" in packet) {
    const { certGeneric, certPersona, certCasual, certPositive, certRevocation } = signature;
    const user = "userID" in packet ? { userID: packet } : { userAttribute: packet };
    return {
      data: { ...user, key },
      types: [certGeneric, certPersona, certCasual, certPositive, certRevocation],
    };
  }
  const types = [signature.subkeyBinding, signature.subkeyRevocation];
  return { data: { key, bind: packet }, types };
}

/** Public keys in armored text, one block. */
export async function armor(...keys: PublicKey[]): Promise<string> {
  const [only, ...others] = keys;
  if (only && others.length === 0) return only.armor();
  const { armor: armored, enums, PacketList } = await loadOpenpgp();
  const all = new PacketList<AnyPacket>();
  for (const key of keys) all.push(...key.toPublic().toPacketList());
  return armored(enums.armor.publicKey, all.write());
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
