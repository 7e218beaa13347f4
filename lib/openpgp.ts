import { createHash, type Hash } from "node:crypto";
import type {
  Config,
  Key,
  PrivateKey,
  PublicKey,
  RawNotation,
  SignaturePacket,
  Subkey,
} from "openpgp";
import { messageOf, Refused, UsageError } from "./errors.ts";

/**
 * OpenPGP keys and detached signatures (RFC 9580, RFC 4880). The owner of the openpgp package.
 *
 * gpg's exit status is no verdict: it is 0 for expired and revoked keys, SHA-1, signatures from the
 * future. What is accepted here is narrower, and docs/signatures.md lists it case by case.
 */

export type { PrivateKey, PublicKey };

/** How far a signer's clock may run ahead of ours, in milliseconds. */
export const clockTolerance = 5 * 60_000;

const hashNames: Record<number, string> = {
  8: "sha256",
  9: "sha384",
  10: "sha512",
  12: "sha3-256",
  14: "sha3-512",
};
const weakHashes: Record<number, string> = { 1: "MD5", 2: "SHA-1", 3: "RIPEMD-160", 11: "SHA-224" };

/** A signature that was accepted: by which key, and when it says it was made. */
export interface Verdict {
  /** The pinned key's full fingerprint, upper-case hex. */
  fingerprint: string;
  created: Date;
  /** Notations that the signer put into the signature: `name@domain` → value. */
  notations: Record<string, string>;
}

function load() {
  return import("openpgp");
}

type Library = Awaited<ReturnType<typeof load>>;

function strict({ config, enums }: Library): Config {
  return {
    ...config,
    minRSABits: 2048,
    rejectHashAlgorithms: new Set([enums.hash.md5, enums.hash.ripemd]),
  };
}

/** A key's full fingerprint, upper-case hex without blanks. */
export function fingerprintOf(key: Key): string {
  return key.getFingerprint().toUpperCase();
}

/** A fingerprint as people write it (blanks, `0x`, lower case) in our form; undefined when it is none, or a short id. */
export function normalFingerprint(text: string): string | undefined {
  const hex = text.replace(/[\s:]/g, "").replace(/^0x/i, "").toUpperCase();
  return /^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(hex) ? hex : undefined;
}

/**
 * The public keys in a file, armored or binary; several may stand in it. A private key gives its public half.
 * @throws {Refused} when there is no key in it.
 */
export async function readPublicKeys(data: Uint8Array, name: string): Promise<PublicKey[]> {
  const { readKeys } = await load();
  try {
    const text = Buffer.from(data).toString("latin1");
    const keys = text.trimStart().startsWith("-----BEGIN PGP")
      ? await readKeys({ armoredKeys: text })
      : await readKeys({ binaryKeys: new Uint8Array(data) });
    if (keys.length > 0) return keys.map((key) => key.toPublic());
  } catch (error) {
    throw new Refused(`${name} is no OpenPGP key (${messageOf(error)})`);
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

/** The signatures in a file, ready to be checked against data that is still to come. */
export class Signatures {
  readonly packets: readonly SignaturePacket[];
  readonly #library: Library;
  private constructor(library: Library, packets: readonly SignaturePacket[]) {
    this.#library = library;
    this.packets = packets;
  }

  /**
   * Reads a detached signature file, armored or binary.
   * @throws {Refused} when there is no signature in it.
   */
  static async read(data: Uint8Array, name: string): Promise<Signatures> {
    const library = await load();
    try {
      const text = Buffer.from(data).toString("latin1");
      const { packets } = text.trimStart().startsWith("-----BEGIN PGP")
        ? await library.readSignature({ armoredSignature: text })
        : await library.readSignature({ binarySignature: new Uint8Array(data) });
      const signatures = [...packets].filter((packet) => packet instanceof library.SignaturePacket);
      if (signatures.length > 0) return new Signatures(library, signatures);
    } catch (error) {
      throw new Refused(`${name} is no OpenPGP signature (${messageOf(error)})`);
    }
    throw new Refused(`${name} holds no OpenPGP signature`);
  }

  /** Start hashing the signed bytes, once for each way in which these signatures need them. */
  digests(): Digests {
    return new Digests(this.packets);
  }

  /**
   * Accept the data when one of the signatures is good and made by the pinned key.
   * @param key the pinned key, and no other.
   * @throws {Refused} with the reason.
   */
  async verify(key: PublicKey, digests: Digests, name: string, now = new Date()): Promise<Verdict> {
    const reasons: string[] = [];
    for (const packet of this.packets) {
      try {
        return await this.#judge(packet, key, digests, now);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        reasons.push(error.message);
      }
    }
    throw new Refused(`the signature ${name} is not accepted: ${[...new Set(reasons)].join("; ")}`);
  }

  async #judge(
    packet: SignaturePacket,
    key: PublicKey,
    digests: Digests,
    now: Date,
  ): Promise<Verdict> {
    const { enums, SignaturePacket } = this.#library;
    const id = packet.issuerKeyID;
    const named = packet.issuerFingerprint
      ? Buffer.from(packet.issuerFingerprint).toString("hex").toUpperCase()
      : undefined;
    const owner = key.getKeys(id).find((each) => !named || fingerprintOf(each as Key) === named);
    if (!owner)
      throw new Refused(
        `it is by ${named ?? id.toHex().toUpperCase()}, not by ${fingerprintOf(key)}`,
      );
    if (packet.signatureType !== enums.signature.binary)
      throw new Refused("it is not a signature over the file's bytes (text mode or another type)");
    const hash = hashNames[packet.hashAlgorithm ?? 0];
    if (!hash) {
      const weak = weakHashes[packet.hashAlgorithm ?? 0];
      throw new Refused(weak ? `it is weak: made with ${weak}` : "its hash is not known here");
    }
    const created = packet.created ?? new Date(Number.NaN);
    if (!(created.getTime() <= now.getTime() + clockTolerance))
      throw new Refused(`it is from the future (${created.toISOString()}); look at both clocks`);
    // within the tolerance a signature and a key made just now are judged at the signature's time
    const judged = new Date(Math.max(now.getTime(), created.getTime()));
    await this.#checkKey(key, owner, packet, judged, "is not valid now");
    await this.#checkKey(key, owner, packet, created, "was not valid when it was made");

    // verify() takes the digest from this field; streaming the data through the package costs half as much again
    const own = Object.assign(new SignaturePacket(), packet, { hashed: digests.of(packet) });
    try {
      await own.verify(owner.keyPacket, enums.signature.binary, new Uint8Array(), judged, true);
    } catch (error) {
      throw new Refused(
        /digest|verification failed/i.test(messageOf(error))
          ? "the bytes are not those that were signed"
          : messageOf(error),
      );
    }
    return { fingerprint: fingerprintOf(key), created, notations: notationsOf(packet) };
  }

  /** Expiry, revocation, strength and purpose of the key that signed, at one moment. */
  async #checkKey(
    key: PublicKey,
    owner: Key | Subkey,
    packet: SignaturePacket,
    date: Date,
    what: string,
  ): Promise<void> {
    // a key whose expiry was moved may come with its newest self-signature only: it speaks for the time before, too
    const bound = Math.max(firstBinding(key), owner === key ? 0 : firstBinding(owner as Subkey));
    const made = Math.max(key.getCreationTime().getTime(), owner.getCreationTime().getTime());
    const at = date.getTime() < made ? date : new Date(Math.max(date.getTime(), bound));
    try {
      await key.getSigningKey(packet.issuerKeyID, at, undefined, strict(this.#library));
    } catch (error) {
      const why = messageOf(error).replace(
        /^Could not find valid signing key packet in key \w+: /,
        "",
      );
      throw new Refused(`the key ${fingerprintOf(key)} ${what}: ${why}`);
    }
  }
}

function firstBinding(key: Key | Subkey): number {
  const bindings =
    "users" in key ? key.users.flatMap((user) => user.selfCertifications) : key.bindingSignatures;
  const times = bindings.map(({ created }) => created?.getTime() ?? 0);
  return times.length > 0 ? Math.min(...times) : 0;
}

function notationsOf(packet: SignaturePacket): Record<string, string> {
  return Object.fromEntries(
    packet.rawNotations.map(({ name, value }) => [name, Buffer.from(value).toString("utf8")]),
  );
}

/** Hashes of the signed bytes, made while they pass by. */
export class Digests {
  readonly #hashes = new Map<string, Hash>();

  constructor(packets: readonly SignaturePacket[]) {
    for (const packet of packets) {
      const name = hashNames[packet.hashAlgorithm ?? 0];
      if (!name || this.#hashes.has(keyOf(packet))) continue;
      const hash = createHash(name);
      // version 6 hashes a salt before the data
      const { salt } = packet as { salt?: Uint8Array | null };
      if (salt) hash.update(salt);
      this.#hashes.set(keyOf(packet), hash);
    }
  }

  update(chunk: Uint8Array): this {
    for (const hash of this.#hashes.values()) hash.update(chunk);
    return this;
  }

  /** The digest that the packet's signature is over: the data, the signed part of the packet, a trailer (RFC 9580, 5.2.4). */
  of(packet: SignaturePacket): Uint8Array {
    const hash = this.#hashes.get(keyOf(packet))?.copy();
    const signed = packet.signatureData;
    if (!hash || !signed || (packet.version !== 4 && packet.version !== 6))
      throw new Refused(`signatures of version ${packet.version} are not known here`);
    const trailer = Buffer.from([packet.version, 0xff, 0, 0, 0, 0]);
    trailer.writeUInt32BE(signed.length, 2);
    return new Uint8Array(hash.update(signed).update(trailer).digest());
  }
}

function keyOf(packet: SignaturePacket): string {
  const { salt } = packet as { salt?: Uint8Array | null };
  return `${packet.hashAlgorithm}:${salt ? Buffer.from(salt).toString("hex") : ""}`;
}

/** Make a signing key (ed25519). The result is armored; `expires` in milliseconds, default never. */
export async function generateSigningKey({
  name,
  email,
  passphrase,
}: {
  name: string;
  email?: string | undefined;
  passphrase?: string | undefined;
}): Promise<{ privateKey: string; fingerprint: string }> {
  const { generateKey, readPrivateKey, enums } = await load();
  const { privateKey } = await generateKey({
    // the older ed25519 form: gpg 2.2 reads it
    type: "ecc",
    curve: "ed25519Legacy",
    userIDs: [{ name, ...(email === undefined ? {} : { email }) }],
    subkeys: [],
    format: "armored",
    ...(passphrase === undefined ? {} : { passphrase }),
    config: { preferredHashAlgorithm: enums.hash.sha256 },
  });
  const key = await readPrivateKey({ armoredKey: privateKey });
  return { privateKey, fingerprint: fingerprintOf(key) };
}

/**
 * Read a private key and open it.
 * @param passphrase asked for only when the key has one.
 * @throws {UsageError} when it is no private key, or the passphrase is wrong.
 */
export async function openPrivateKey(
  data: Uint8Array,
  name: string,
  passphrase: () => Promise<string>,
): Promise<PrivateKey> {
  const { readPrivateKey, decryptKey } = await load();
  let key: PrivateKey;
  try {
    const text = Buffer.from(data).toString("latin1");
    key = text.trimStart().startsWith("-----BEGIN PGP")
      ? await readPrivateKey({ armoredKey: text })
      : await readPrivateKey({ binaryKey: new Uint8Array(data) });
  } catch (error) {
    throw new UsageError(`${name} is no OpenPGP private key (${messageOf(error)})`);
  }
  if (key.isDecrypted()) return key;
  try {
    return await decryptKey({ privateKey: key, passphrase: await passphrase() });
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`the passphrase for ${name} is wrong`);
  }
}

/**
 * A detached binary signature. Its hash is SHA-256 where the key's kind allows it (ed25519 asks for SHA-512).
 * @param notations put into the signature, `name@domain` → value.
 */
export async function signDetached(
  key: PrivateKey,
  data: Uint8Array | AsyncIterable<Uint8Array>,
  notations: Record<string, string> = {},
  date = new Date(),
): Promise<Uint8Array> {
  const library = await load();
  const { createMessage, sign, enums } = library;
  const signatureNotations = Object.entries(notations).map(([name, value]) => ({
    name,
    value: new Uint8Array(Buffer.from(value)),
    humanReadable: true,
    critical: false,
  }));
  const withSha256 = await signWithSha256(library, key, data, signatureNotations, date);
  if (withSha256) return withSha256;
  const binary = data instanceof Uint8Array ? new Uint8Array(data) : webStream(data);
  const signature: unknown = await sign({
    message: await createMessage({ binary }),
    signingKeys: key,
    detached: true,
    format: "binary",
    date,
    signatureNotations,
    config: { preferredHashAlgorithm: enums.hash.sha256 },
  });
  if (signature instanceof Uint8Array) return signature;
  const chunks: Uint8Array[] = [];
  const reader = (signature as ReadableStream<Uint8Array>).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(Buffer.concat(chunks));
    chunks.push(value);
  }
}

/**
 * ed25519 with SHA-256, which RFC 9580 (5.2.3.3) allows and gpg takes. The package's own `sign` would choose SHA-512,
 * which takes every client twice as long; and the digest is made by node:crypto, as for `verify`.
 * Undefined: a key of another kind.
 */
async function signWithSha256(
  { config, enums, PacketList, Signature, SignaturePacket }: Library,
  key: PrivateKey,
  data: Uint8Array | AsyncIterable<Uint8Array>,
  notations: RawNotation[],
  date: Date,
): Promise<Uint8Array | undefined> {
  const { keyPacket } = await key.getSigningKey(undefined, date);
  if (keyPacket.algorithm !== enums.publicKey.eddsaLegacy || keyPacket.version !== 4)
    return undefined;
  const packet = Object.assign(new SignaturePacket(), {
    signatureType: enums.signature.binary,
    publicKeyAlgorithm: keyPacket.algorithm,
    hashAlgorithm: enums.hash.sha256,
    rawNotations: notations,
  });
  const digests = new Digests([packet]);
  if (data instanceof Uint8Array) digests.update(data);
  else for await (const chunk of data) digests.update(chunk);
  // by then the packet's own part is made, which is signed after the data
  Object.assign(packet, { hash: async () => digests.of(packet) });
  const { packets: empty } = await (await load()).createMessage({ binary: new Uint8Array() });
  // its types lack the last operand
  const sign = packet.sign.bind(packet) as (...operands: unknown[]) => Promise<void>;
  await sign(keyPacket, (empty as unknown as object[])[0], date, true, config);
  const packets = new PacketList<SignaturePacket>();
  packets.push(packet);
  return new Signature(packets).write() as Uint8Array;
}

function webStream(data: AsyncIterable<Uint8Array>): ReadableStream<Uint8Array> {
  const iterator = data[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value));
    },
  });
}
