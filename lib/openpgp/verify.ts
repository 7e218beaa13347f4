import { messageOf, Refused, systemCode } from "../core/errors.ts";
import {
  type Config,
  fingerprintOf,
  type Key,
  loadOpenpgp,
  type Message,
  type OpenpgpLibrary,
  type PublicKey,
  type SignaturePacket,
  type SignedData,
  signedMessage,
  type Subkey,
} from "./keys.ts";

/**
 * Detached OpenPGP signatures, checked against one pinned key.
 *
 * gpg's exit status is not enough: it is 0 for expired and revoked keys, SHA-1, signatures from the
 * future. What is accepted here is narrower, and docs/signatures.md lists it case by case.
 */

/** How far a signer's clock may run ahead of ours, in milliseconds. */
export const clockTolerance = 5 * 60_000;

const weakHashes: Record<number, string> = { 1: "MD5", 2: "SHA-1", 3: "RIPEMD-160", 11: "SHA-224" };

/** In one file. The data is read once for each that is by the pinned key. */
export const maxSignatures = 16;

/** No signature in a file is accepted. */
export class SignatureRefused extends Refused {
  /** `bytes`: one is by the pinned key, but over other bytes. */
  readonly reason: "bytes" | "other";
  constructor(message: string, reason: "bytes" | "other") {
    super(message);
    this.reason = reason;
  }
}

/** A signature that was accepted: by which key, and when it says it was made. */
export interface VerifiedSignature {
  /** The pinned key's full fingerprint, upper-case hex. */
  fingerprint: string;
  created: Date;
  /** Notations that the signer put into the signature: `name@domain` → value. */
  notations: Record<string, string>;
}

function strict({ config, enums }: OpenpgpLibrary): Config {
  return {
    ...config,
    minRSABits: 2048,
    rejectHashAlgorithms: new Set([enums.hash.md5, enums.hash.ripemd]),
  };
}

/** The signatures in a file, which may be read before the data is there. */
export class Signatures {
  readonly packets: readonly SignaturePacket[];
  readonly #library: OpenpgpLibrary;
  private constructor(library: OpenpgpLibrary, packets: readonly SignaturePacket[]) {
    this.#library = library;
    this.packets = packets;
  }

  /**
   * Reads a detached signature file, armored or binary.
   * @throws {Refused} when there is no signature in it.
   */
  static async read(data: Uint8Array, name: string): Promise<Signatures> {
    const library = await loadOpenpgp();
    try {
      const text = Buffer.from(data).toString("latin1");
      const { packets } = text.trimStart().startsWith("-----BEGIN PGP")
        ? await library.readSignature({ armoredSignature: text })
        : await library.readSignature({ binarySignature: new Uint8Array(data) });
      const signatures = [...packets].filter((packet) => packet instanceof library.SignaturePacket);
      if (signatures.length > maxSignatures)
        throw new Error(`it holds ${signatures.length} signatures, more than ${maxSignatures}`);
      if (signatures.length > 0) return new Signatures(library, signatures);
    } catch (error) {
      throw new Refused(`${name} is not an OpenPGP signature (${messageOf(error)})`);
    }
    throw new Refused(`${name} holds no OpenPGP signature`);
  }

  /**
   * Accept the data when one of the signatures is good and made by the pinned key.
   * @param key the pinned key, and no other.
   * @throws {SignatureRefused} with the reason.
   * @throws what reading the data throws.
   */
  async verify(key: PublicKey, data: SignedData, name: string, now = new Date()): Promise<VerifiedSignature> {
    const reasons: Refused[] = [];
    for (const packet of this.packets) {
      try {
        return await this.check(packet, key, data, now);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        reasons.push(error);
      }
    }
    const words = new Set(reasons.map(({ message }) => message));
    const isBytes = (error: Refused) => error instanceof SignatureRefused && error.reason === "bytes";
    throw new SignatureRefused(
      `the signature ${name} is not accepted: ${[...words].join("; ")}`,
      reasons.some(isBytes) ? "bytes" : "other",
    );
  }

  private async check(
    packet: SignaturePacket,
    key: PublicKey,
    data: SignedData,
    now: Date,
  ): Promise<VerifiedSignature> {
    const { enums } = this.#library;
    const id = packet.issuerKeyID;
    const named = packet.issuerFingerprint
      ? Buffer.from(packet.issuerFingerprint).toString("hex").toUpperCase()
      : undefined;
    const owner = key.getKeys(id).find((each) => !named || fingerprintOf(each as Key) === named);
    if (!owner) throw new Refused(`it is by ${named ?? id.toHex().toUpperCase()}, not by ${fingerprintOf(key)}`);
    if (packet.signatureType !== enums.signature.binary)
      throw new Refused("it is not a signature over the file's bytes (text mode or another type)");
    const hash = packet.hashAlgorithm ?? enums.hash.md5;
    if (weakHashes[hash]) throw new Refused(`it is weak: made with ${weakHashes[hash]}`);
    if (!Object.values(enums.hash).includes(hash)) throw new Refused("its hash is not known here");
    const created = packet.created ?? new Date(Number.NaN);
    if (!(created.getTime() <= now.getTime() + clockTolerance))
      throw new Refused(`it is from the future (${created.toISOString()}); look at both clocks`);
    // within the tolerance a signature and a key made just now are checked at the signature's time
    const date = new Date(Math.max(now.getTime(), created.getTime()));
    await this.checkKey(key, owner, packet, date, "is not valid now");
    await this.checkKey(key, owner, packet, created, "was not valid when it was made");

    const message = await signedMessage(data);
    const checked = packet.verify(owner.keyPacket, enums.signature.binary, message.packets[0] as object, date, true);
    try {
      await readToEnd(message, checked);
      await checked;
    } catch (error) {
      if (systemCode(error) !== undefined) throw error;
      if (/digest|verification failed/i.test(messageOf(error)))
        throw new SignatureRefused("the bytes are not those that were signed", "bytes");
      throw new Refused(messageOf(error));
    }
    return { fingerprint: fingerprintOf(key), created, notations: notationsOf(packet) };
  }

  /** Expiry, revocation, strength and purpose of the key that signed, at one moment. */
  private async checkKey(
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
      const why = messageOf(error).replace(/^Could not find valid signing key packet in key \w+: /, "");
      throw new Refused(`the key ${fingerprintOf(key)} ${what}: ${why}`);
    }
  }
}

/** The package hashes a clone of the message's stream, which gets its bytes as the stream itself is read. */
async function readToEnd(message: Message, checked: Promise<void>): Promise<void> {
  const reader = (message.getLiteralData() as ReadableStream).getReader();
  checked.catch(() => reader.cancel().catch(() => undefined));
  while (!(await reader.read()).done);
}

function firstBinding(key: Key | Subkey): number {
  const bindings = "users" in key ? key.users.flatMap((user) => user.selfCertifications) : key.bindingSignatures;
  const times = bindings.map(({ created }) => created?.getTime() ?? 0);
  return times.length > 0 ? Math.min(...times) : 0;
}

function notationsOf(packet: SignaturePacket): Record<string, string> {
  return Object.fromEntries(packet.rawNotations.map(({ name, value }) => [name, Buffer.from(value).toString("utf8")]));
}
