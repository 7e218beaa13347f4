import { fingerprintOf, normalFingerprint, type PublicKey } from "../openpgp/keys.ts";
import { firstUse, type TrustOptions } from "./first-use.ts";
import { collectKeys, fullFingerprint, keysInRing, readKeyFile } from "./key-sources.ts";
import { type KeptSet, KeyStore } from "./key-store.ts";
import { choosePins } from "./pins.ts";
import type { WebFolder } from "./web-folder.ts";

/** What a Trust begins with: the pins, by what was written, given, offered and kept; and the keys that are at hand. */

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

export interface TrustStart {
  /** Full fingerprints. */
  pins: readonly string[];
  /** Short ids that were written, with what they stand for. */
  written: Readonly<Record<string, string>>;
  store: KeyStore;
  kept: KeptSet | undefined;
  /** By fingerprint. */
  keys: Map<string, PublicKey>;
  /** What else was shown: the key file's, and KEY.asc's of the web folders. */
  offered: readonly PublicKey[];
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
  options: TrustOptions,
): Promise<TrustStart> {
  const { note, key, keyFile } = options;
  const written: Record<string, string> = {};
  const full = async (text: string) => {
    const fingerprint = await fullFingerprint(text, note);
    if (!normalFingerprint(text)) written[text] = fingerprint;
    return fingerprint;
  };
  const pinned: string[] = [];
  for (const text of context.pinned) pinned.push(await full(text));
  const store = new KeyStore(context.store);
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
  return { pins, written, store, kept, keys, offered, mayKeep };
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return [...one].sort().join() === [...other].sort().join();
}
