import { Refused, UsageError } from "../core/errors.ts";
import { fingerprintOf, normalFingerprint, type PublicKey } from "../openpgp/keys.ts";
import {
  collectKeys,
  fullFingerprint,
  type GivenKeys,
  keysInRing,
  readKeyFile,
} from "./key-sources.ts";
import { type KeySet, pinnedSet } from "./key-set.ts";
import type { KeyStore } from "./key-store.ts";
import type { KeyLines } from "./version-file.ts";
import type { WebFolder } from "./web-folder.ts";

/** What a Trust begins with: the pins, by what was written, given, offered and kept; and the keys that are at hand. */

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

export interface TrustContext {
  /** Where a KeyStore keeps what is learnt; undefined: nowhere. */
  store: string | undefined;
  /** By launchify.yml, else by what was accepted before. */
  pinned: readonly string[];
  folders: readonly WebFolder[];
  /** Public keys that are at hand already. */
  given?: readonly PublicKey[];
  /** The app's name, where it is known. */
  app: string | undefined;
}

/** What a Trust knows: at its start, and as it learns more. */
export interface TrustKnown {
  /** Full fingerprints. */
  readonly pins: readonly string[];
  /** Short ids that were written, with what they stand for. */
  readonly written: Readonly<Record<string, string>>;
  /** The keys that are trusted now. */
  set: KeySet;
  /** KEY.asc's ETag by web folder. */
  etags: Record<string, string>;
  /** Keys that are, were or may become trusted, by fingerprint. */
  keys: Map<string, PublicKey>;
  /** What else was shown: the key file's, and KEY.asc's of the web folders. */
  readonly offered: PublicKey[];
  /** Whether what is learnt may be saved: at a first use only once a release was accepted. */
  mayKeep: boolean;
}

/**
 * Find the pins and the keys that are at hand.
 * @throws {Refused} when there is no pin.
 * @throws {UsageError} when the command line contradicts the pin.
 */
export async function startTrust(
  context: TrustContext,
  store: KeyStore,
  options: TrustOptions,
): Promise<TrustKnown> {
  const { note, key, keyFile } = options;
  const written: Record<string, string> = {};
  const full = async (text: string) => {
    const fingerprint = await fullFingerprint(text, note);
    if (!normalFingerprint(text)) written[text] = fingerprint;
    return fingerprint;
  };
  const pinned: string[] = [];
  for (const text of context.pinned) pinned.push(await full(text));
  const lastKept = await store.set();
  // where others were pinned by hand, what the former ones handed over to counts no more
  const keptFor = (pins: readonly string[]) =>
    lastKept && isSameSet(lastKept.pins, pins) ? lastKept : undefined;
  const followed = keptFor(pinned)?.set;
  const fromFile = keyFile === undefined ? [] : await readKeyFile(keyFile);
  const pins = choosePins({
    pinned,
    key: key === undefined ? undefined : await full(key),
    keyFile:
      keyFile === undefined
        ? undefined
        : { path: keyFile, fingerprints: fromFile.map(fingerprintOf) },
    followed: followed ? [...followed.keys, ...followed.roots] : [],
  });
  const mayKeep = pins.length > 0;
  const first = mayKeep ? undefined : await firstUse(context.folders, options);
  if (first) pins.push(first.pin);
  const kept = keptFor(pins);
  const saved = await store.keys();
  const offered = [...(context.given ?? []), ...fromFile, ...(first?.keys ?? [])];
  const trusted = kept ? [...kept.set.keys, ...kept.set.roots] : [];
  const wanted = [...pins, ...trusted, ...saved.map(fingerprintOf)];
  const keys = await collectKeys(wanted, [...offered, ...saved]);
  for (const pin of pins.filter((each) => !keys.has(each))) {
    const ring = (await collectKeys([pin], await keysInRing(pin))).get(pin);
    if (ring) keys.set(pin, ring);
  }
  const { set = pinnedSet(pins), etags = {} } = kept ?? {};
  return { pins, written, set, etags, keys, offered, mayKeep };
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return [...one].sort().join() === [...other].sort().join();
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
function choosePins({ pinned, key, keyFile, followed }: PinSources): string[] {
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
function offeredPin(offered: readonly string[], lines: KeyLines | undefined): string | undefined {
  if (offered.length === 1) return offered[0];
  return [...(lines?.roots ?? []), ...(lines?.keys ?? [])].find((key) => offered.includes(key));
}

/** Trust on first use: somebody must say yes, on the terminal or by --insecure. */
async function firstUse(
  folders: readonly WebFolder[],
  options: TrustOptions,
): Promise<{ pin: string; keys: PublicKey[] }> {
  for (const folder of folders) {
    const { keys = [] } = (await folder.keys()) ?? {};
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

/** The key of KEY.asc that a first use may pin; undefined when VERSION does not say which of several. */
async function publishedPin(
  folder: WebFolder,
  keys: readonly PublicKey[],
): Promise<string | undefined> {
  const version = keys.length > 1 ? await folder.version(async () => undefined) : undefined;
  return offeredPin(keys.map(fingerprintOf), version?.file.keys);
}
