import { closeSync, openSync } from "node:fs";
import { rm } from "node:fs/promises";
import { Refused } from "./errors.ts";
import type { PublicKey } from "./openpgp.ts";
import { digestFile } from "./openpgp-digest.ts";
import { Signatures, type Verdict } from "./openpgp-verify.ts";
import type { CurrentLine } from "./version-file.ts";

/** Checking what a web folder gives: nothing in it is believed before the pinned key's signature was accepted. */

/** An archive that was verified; unpack it from the descriptor, whose bytes are those that were hashed. */
export interface VerifiedArchive {
  fd: number;
  path: string;
  sha256: string;
  size: number;
  verdict: Verdict;
  /** Close it and remove the file. */
  discard(): Promise<void>;
}

/** The notation in an archive's signature that names the archive, so that it cannot be passed off as another. */
export const fileNotation = "file@boatyard";

/** Check a detached signature over bytes in memory. */
export async function verifyBytes(
  signature: Uint8Array,
  data: Uint8Array,
  keys: readonly PublicKey[],
  name: string,
): Promise<Verdict> {
  const signatures = await Signatures.read(signature, name);
  return await verifyWithAny(signatures, signatures.digests().update(data), keys, name);
}

async function verifyWithAny(
  signatures: Signatures,
  digests: ReturnType<Signatures["digests"]>,
  keys: readonly PublicKey[],
  name: string,
): Promise<Verdict> {
  let refusal: unknown = new Refused(`${name} cannot be checked: no key is pinned`);
  for (const key of keys) {
    try {
      return await signatures.verify(key, digests, name);
    } catch (error) {
      refusal = error;
    }
  }
  throw refusal;
}

/** Open an archive and check its signature over the bytes of one descriptor, which is then unpacked. */
export async function openVerified({
  path,
  sha256,
  line,
  signatures,
  keys,
  name,
}: {
  path: string;
  /** As of the download, which holds it against VERSION's. */
  sha256: string;
  line: CurrentLine;
  signatures: Signatures;
  keys: readonly PublicKey[];
  name: string;
}): Promise<VerifiedArchive> {
  const fd = openSync(path, "r");
  let discarded = false;
  try {
    const digests = signatures.digests();
    const size = await digestFile(fd, digests);
    const verdict = await verifyWithAny(signatures, digests, keys, `${name}.sig`);
    const signedName = verdict.notations[fileNotation];
    if (signedName !== undefined && signedName !== line.file)
      throw new Refused(
        `${name} was signed as ${signedName}, it is another archive (mix-and-match)`,
      );
    return {
      fd,
      path,
      sha256,
      size,
      verdict,
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
