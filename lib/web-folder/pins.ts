import { UsageError } from "../core/errors.ts";
import type { KeyLines } from "./version-file.ts";

/** Which keys are pinned. Pure: what was written, given and offered in; pins, or what contradicts, out. */

export interface PinSources {
  /** By launchify.yml, else by what was accepted before. */
  pinned: readonly string[];
  /** --key */
  key: string | undefined;
  /** --key-file, and the fingerprints in it. */
  keyFile: { path: string; fingerprints: readonly string[] } | undefined;
  /** The keys that the pinned ones have handed over to. */
  followed?: readonly string[];
}

/**
 * The pins, as full fingerprints. None: nothing is pinned, and nobody said what should be.
 * @throws {UsageError} when the command line contradicts the pin.
 */
export function choosePins({ pinned, key, keyFile, followed = [] }: PinSources): string[] {
  const known = [...pinned, ...followed];
  if (pinned.length === 0) {
    if (key === undefined) return [...(keyFile?.fingerprints ?? [])];
    if (keyFile && !keyFile.fingerprints.includes(key))
      throw new UsageError(
        `${keyFile.path} holds ${keyFile.fingerprints.join(", ")}, not the pinned key ${key}`,
      );
    return [key];
  }
  if (key !== undefined && !known.includes(key))
    throw new UsageError(
      `--key ${key} is not the key pinned here, ${pinned.join(", ")}; to change it, edit updates.gpg.key in launchify.yml`,
    );
  if (keyFile && !keyFile.fingerprints.some((fingerprint) => known.includes(fingerprint)))
    throw new UsageError(
      `${keyFile.path} holds ${keyFile.fingerprints.join(", ")}, not the pinned key ${pinned.join(", ")}`,
    );
  return [...pinned];
}

/**
 * The key of a web folder's KEY.asc that a first install may pin: the only one, else the first that VERSION names, its ROOT
 * before its KEYs. Undefined: several stand there, and VERSION does not tell them apart.
 */
export function offeredPin(
  offered: readonly string[],
  lines: KeyLines | undefined,
): string | undefined {
  if (offered.length === 1) return offered[0];
  return [...(lines?.roots ?? []), ...(lines?.keys ?? [])].find((key) => offered.includes(key));
}
