import { closeSync } from "node:fs";
import { rm } from "node:fs/promises";
import { Refused } from "../core/errors.ts";
import type { Fetched } from "../fetch/fetch.ts";
import { readPieces } from "../files/files.ts";
import type { PublicKey, SignedData } from "../openpgp/keys.ts";
import { SignatureRefused, Signatures, type VerifiedSignature } from "../openpgp/verify.ts";
import type { CurrentLine } from "./version-file.ts";

/** Checking what a web folder gives: nothing in it is believed before the pinned key's signature was accepted. */

/** An archive that was verified; unpack it from the descriptor, whose bytes are those that were hashed. */
export interface VerifiedArchive {
  fd: number;
  path: string;
  sha256: string;
  size: number;
  signature: VerifiedSignature;
  /** Close it and remove the file. */
  discard(): Promise<void>;
}

/** An archive as it came, open. */
export type FetchedArchive = Fetched & Required<Pick<Fetched, "fd">>;

/** The notation in an archive's signature that names the archive, so that it cannot be passed off as another. */
export const fileNotation = "file@boatyard";

/** Check a detached signature over bytes in memory. */
export async function verifyBytes(
  signature: Uint8Array,
  data: Uint8Array,
  keys: readonly PublicKey[],
  name: string,
): Promise<VerifiedSignature> {
  const signatures = await Signatures.read(signature, name);
  return await verifyWithAny(signatures, data, keys, name);
}

/** The fingerprints of those keys whose signature over the data is good. */
export async function signersOf(
  signature: Uint8Array,
  data: Uint8Array,
  keys: readonly PublicKey[],
  name: string,
): Promise<Set<string>> {
  const signatures = await Signatures.read(signature, name);
  const signers = new Set<string>();
  for (const key of keys) {
    try {
      signers.add((await signatures.verify(key, data, name)).fingerprint);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
  return signers;
}

async function verifyWithAny(
  signatures: Signatures,
  data: SignedData,
  keys: readonly PublicKey[],
  name: string,
): Promise<VerifiedSignature> {
  let refusal: unknown = new Refused(`${name} cannot be checked: no key is pinned`);
  for (const key of keys) {
    try {
      return await signatures.verify(key, data, name);
    } catch (error) {
      // of several keys the one that signed it, if over other bytes, has the reason
      if (!(refusal instanceof SignatureRefused && refusal.reason === "bytes")) refusal = error;
    }
  }
  throw refusal;
}

/**
 * Check the signature of an archive that was just fetched. What is unpacked later comes from the descriptor through
 * which the verified bytes were read.
 */
export async function verifyFetched({
  path,
  fetched,
  line,
  signatures,
  keys,
  name,
}: {
  path: string;
  fetched: FetchedArchive;
  line: CurrentLine;
  signatures: Signatures;
  keys: readonly PublicKey[];
  name: string;
}): Promise<VerifiedArchive> {
  const { fd } = fetched;
  let discarded = false;
  try {
    const signature = await verifyWithAny(signatures, () => readPieces(fd), keys, `${name}.sig`);
    const signedName = signature.notations[fileNotation];
    if (signedName !== undefined && signedName !== line.file)
      throw new Refused(
        `${name} was signed as ${signedName}, it is another archive (mix-and-match)`,
      );
    return {
      fd,
      path,
      sha256: fetched.sha256,
      size: fetched.size,
      signature,
      async discard() {
        if (discarded) return;
        discarded = true;
        closeSync(fd);
        await rm(path, { force: true });
      },
    };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
