import { createHash, type Hash } from "node:crypto";
import { read } from "node:fs";
import { Refused } from "../core/errors.ts";
import type { SignaturePacket } from "./keys.ts";

/**
 * The digests that OpenPGP signatures are over, made by node:crypto: the same bytes go in as the package would
 * hash, at twice the speed. A known answer is pinned in the tests.
 */

/** The hashes that are accepted, by their OpenPGP number (RFC 9580, 9.5), in node:crypto's words. */
export const hashNames: Record<number, string> = {
  8: "sha256",
  9: "sha384",
  10: "sha512",
  12: "sha3-256",
  14: "sha3-512",
};

/** Hashes of the signed bytes, made while they pass by. */
export class Digests {
  /** By algorithm and salt. */
  readonly #hashes = new Map<string, Hash>();
  /** Those of them that `update` goes on with. */
  readonly #begun: Hash[] = [];

  /** @param sha256 of all the data, when somebody made it already: the signatures that need no other want no data. */
  constructor(packets: readonly SignaturePacket[], sha256?: Hash) {
    for (const packet of packets) {
      const name = hashNames[packet.hashAlgorithm ?? 0];
      if (!name || this.#hashes.has(keyOf(packet))) continue;
      // version 6 hashes a salt before the data
      const { salt } = packet as { salt?: Uint8Array | null };
      const made = name === "sha256" && !salt ? sha256 : undefined;
      const hash = made ?? createHash(name);
      if (salt) hash.update(salt);
      this.#hashes.set(keyOf(packet), hash);
      if (!made) this.#begun.push(hash);
    }
  }

  /** Whether a signature needs another digest than the one that was made already. */
  get wantData(): boolean {
    return this.#begun.length > 0;
  }

  update(chunk: Uint8Array): this {
    for (const hash of this.#begun) hash.update(chunk);
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

/**
 * Hash a file through its descriptor, from its start; the next piece is read while one is hashed.
 * @returns the bytes that were hashed.
 */
export async function digestFile(fd: number, digests: Digests): Promise<number> {
  const [one, other] = [Buffer.allocUnsafe(pieceSize), Buffer.allocUnsafe(pieceSize)];
  let position = 0;
  let buffers: [Buffer, Buffer] = [one, other];
  let coming = readAt(fd, buffers[0], 0);
  for (;;) {
    const count = await coming;
    if (count === 0) return position;
    position += count;
    const [full, free] = buffers;
    coming = readAt(fd, free, position);
    digests.update(full.subarray(0, count));
    buffers = [free, full];
  }
}

const pieceSize = 1024 * 1024;

function readAt(fd: number, buffer: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) =>
    read(fd, buffer, 0, buffer.length, position, (error, count) =>
      error ? reject(error) : resolve(count),
    ),
  );
}
