import { Refused, UsageError } from "../core/errors.ts";
import { fingerprintOf, type PublicKey } from "../openpgp/keys.ts";
import type { GivenKeys } from "./key-sources.ts";
import type { WebFolder } from "./web-folder.ts";

/**
 * Which key must have signed everything. The pin comes from the command line, launchify.yml or the first install,
 * never from what is being installed; the key itself may come from anywhere, if it has the pinned fingerprint.
 */
export interface TrustOptions extends GivenKeys {
  /** Take the web folder's key at the first install without being asked. */
  insecure?: boolean | undefined;
  /** Ask a person at the first install; undefined when there is nobody to ask. */
  confirm?: ((fingerprint: string, names: string[], folder: string) => Promise<boolean>) | undefined;
  note: (line: string) => void;
}

interface PinSources {
  /** By launchify.yml, else by what was accepted before. */
  pinned: readonly string[];
  /** --key */
  key: string | undefined;
  /** --key-file, and the fingerprints in it. */
  keyFile: { path: string; fingerprints: readonly string[] } | undefined;
  /** The keys that the pinned ones have handed over to. */
  followed: readonly string[];
}

/**
 * Which keys are pinned, as full fingerprints. Pure. None: nothing is pinned, and nobody said what should be.
 * @throws {UsageError} when the command line contradicts the pin.
 */
export function choosePins({ pinned, key, keyFile, followed }: PinSources): string[] {
  const isFirst = pinned.length === 0;
  const known = isFirst ? [key ?? keyFile?.fingerprints ?? []].flat() : [...pinned, ...followed];
  if (key !== undefined && !known.includes(key))
    throw new UsageError(
      `--key ${key} is not the key pinned here, ${pinned.join(", ")}; ` +
        "to change it, edit updates.gpg.key in launchify.yml",
    );
  const pins = isFirst ? known : [...pinned];
  if (keyFile && !keyFile.fingerprints.some((fingerprint) => known.includes(fingerprint)))
    throw new UsageError(
      `${keyFile.path} holds ${keyFile.fingerprints.join(", ")}, not the pinned key ${pins.join(", ")}`,
    );
  return pins;
}

/**
 * Trust on first use: somebody must say yes to a web folder's key, on the terminal or by --insecure.
 * @throws {Refused} when nobody does.
 */
export async function firstUse(
  folders: readonly WebFolder[],
  { insecure, confirm, note }: TrustOptions,
): Promise<{ pin: string; keys: PublicKey[] }> {
  for (const folder of folders) {
    const { keys = [] } = (await folder.keys()) ?? {};
    if (keys.length === 0) continue;
    const pin = await publishedPin(folder, keys);
    if (pin === undefined)
      throw new Refused(`${folder.name("KEY.asc")} holds several keys; say with --key FINGERPRINT which one is right`);
    const names = keys.find((key) => fingerprintOf(key) === pin)?.getUserIDs() ?? [];
    const answer = `give --key ${pin} if that is the publisher's, or --insecure to believe it`;
    if (insecure) note(`pinned the key ${pin} of ${folder.name("KEY.asc")}, unchecked (--insecure)`);
    else if (!confirm) throw new Refused(`no key is pinned, and there is nobody to ask; ${answer}`);
    else if (!(await confirm(pin, names, folder.name(""))))
      throw new Refused(`the key ${pin} was not confirmed; nothing was installed`);
    return { pin, keys };
  }
  throw new Refused(
    `no key is pinned, and ${folders.map((folder) => folder.name("KEY.asc")).join(", ")} is not there; ` +
      "give --key-file FILE, or --key FINGERPRINT of a key in the gpg ring",
  );
}

/**
 * The key of KEY.asc that a first install may pin: the only one, else the first that VERSION names, its ROOT before its
 * KEYs. Undefined: several stand there, and VERSION does not tell them apart.
 */
async function publishedPin(folder: WebFolder, keys: readonly PublicKey[]): Promise<string | undefined> {
  const offered = keys.map(fingerprintOf);
  if (offered.length === 1) return offered[0];
  const lines = (await folder.version(async () => undefined))?.file.keys;
  return [...(lines?.roots ?? []), ...(lines?.keys ?? [])].find((key) => offered.includes(key));
}
