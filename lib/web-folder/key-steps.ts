import { Refused } from "../core/errors.ts";
import type { PublicKey } from "../openpgp/keys.ts";
import type { KeyStep } from "./key-set.ts";
import { signersOf } from "./verify.ts";
import { parseVersionFile, type VersionFile } from "./version-file.ts";
import type { WebFolder } from "./web-folder.ts";

/** A step by which keys changed, as a web folder has it: `keys/N` and `keys/N.sig`. */
export interface ReadStep {
  file: VersionFile;
  data: Buffer;
  signature: Buffer;
  /** The signature's, for messages. */
  name: string;
}

/** @throws {Refused} when it is not there, not signed, or not understood. */
export async function readStep(folder: WebFolder, serial: number): Promise<ReadStep> {
  const name = folder.name(`keys/${serial}`);
  const { data, signature } = await folder.keyStep(serial);
  if (!data || !signature)
    throw new Refused(
      `${name}${data ? ".sig" : ""} is missing, by which keys changed (gap in the keys)`,
    );
  const file = parseVersionFile(data.toString("utf8"), name);
  return { file, data, signature, name: `${name}.sig` };
}

/** Which of these keys have signed it. */
export async function signedBy(
  { file, data, signature, name }: ReadStep,
  keys: readonly PublicKey[],
): Promise<KeyStep> {
  return { file, signedBy: await signersOf(signature, data, keys, name) };
}
