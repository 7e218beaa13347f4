import type { Hash } from "node:crypto";
import { messageOf, Refused } from "../core/errors.ts";
import {
  type Config,
  fingerprintOf,
  type Key,
  loadOpenpgp,
  type OpenpgpLibrary,
  type PublicKey,
  type SignaturePacket,
  type Subkey,
} from "./keys.ts";
import { Digests, hashNames } from "./digest.ts";

/**
 * Detached OpenPGP signatures, judged against one pinned key.
 *
 * gpg's exit status is no verdict: it is 0 for expired and revoked keys, SHA-1, signatures from the
 * future. What is accepted here is narrower, and docs/signatures.md lists it case by case.
 */

/** How far a signer's clock may run ahead of ours, in milliseconds. */
export const clockTolerance = 5 * 60_000;

const weakHashes: Record<number, string> = { 1: "MD5", 2: "SHA-1", 3: "RIPEMD-160", 11: "SHA-224" };

/** A signature that was accepted: by which key, and when it says it was made. */
export interface Verdict {
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

/** The signatures in a file, ready to be checked against data that is still to come. */
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
      if (signatures.length > 0) return new Signatures(library, signatures);
    } catch (error) {
      throw new Refused(`${name} is no OpenPGP signature (${messageOf(error)})`);
    }
    throw new Refused(`${name} holds no OpenPGP signature`);
  }

  /**
   * Start hashing the signed bytes, once for each way in which these signatures need them.
   * @param sha256 of all of them, when it was made already.
   */
  digests(sha256?: Hash): Digests {
    return new Digests(this.packets, sha256);
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
