import { Refused } from "../core/errors.ts";
import { fingerprintOf, type PublicKey } from "../openpgp/keys.ts";
import type { GivenKeys } from "./key-sources.ts";
import { offeredPin } from "./pins.ts";
import type { WebFolder } from "./web-folder.ts";

/**
 * Which key must have signed everything. The pin comes from the command line, launchify.yml or the first install,
 * never from what is being installed; the key itself may come from anywhere, if it has the pinned fingerprint.
 */
export interface TrustOptions extends GivenKeys {
  /** Take the web folder's key at the first install without being asked. */
  insecure?: boolean | undefined;
  /** Ask a person at the first install; undefined when there is nobody to ask. */
  confirm?:
    | ((fingerprint: string, names: string[], folder: string) => Promise<boolean>)
    | undefined;
  note: (line: string) => void;
}

/** Trust on first use: somebody must say yes, on the terminal or by --insecure. */
export async function firstUse(
  folders: readonly WebFolder[],
  options: TrustOptions,
): Promise<{ pin: string; keys: PublicKey[] }> {
  for (const folder of folders) {
    const keys = await publishedKeys(folder);
    if (keys.length === 0) continue;
    const pin = await publishedPin(folder, keys);
    if (pin === undefined)
      throw new Refused(
        `${folder.name("KEY.asc")} holds several keys; say with --key FINGERPRINT which one is right`,
      );
    const names = keys.find((key) => fingerprintOf(key) === pin)?.getUserIDs() ?? [];
    const answer = `give --key ${pin} if that is the publisher's, or --insecure to believe it`;
    if (options.insecure)
      options.note(`pinned the key ${pin} of ${folder.name("KEY.asc")}, unchecked (--insecure)`);
    else if (!options.confirm)
      throw new Refused(`no key is pinned, and there is nobody to ask; ${answer}`);
    else if (!(await options.confirm(pin, names, folder.name(""))))
      throw new Refused(`the key ${pin} was not confirmed; nothing was installed`);
    return { pin, keys };
  }
  throw new Refused(
    `no key is pinned, and ${folders.map((folder) => folder.name("KEY.asc")).join(", ")} is not there; give --key-file FILE, or --key FINGERPRINT of a key in the gpg ring`,
  );
}

async function publishedKeys(folder: WebFolder): Promise<PublicKey[]> {
  const got = await folder.keys();
  return got === "unchanged" ? [] : got.keys;
}

/** The key of KEY.asc that a first use may pin; undefined when VERSION does not say which of several. */
export async function publishedPin(
  folder: WebFolder,
  keys: readonly PublicKey[],
): Promise<string | undefined> {
  const version = keys.length > 1 ? await folder.version(async () => undefined) : undefined;
  return offeredPin(keys.map(fingerprintOf), version?.file.keys);
}
