import { messageOf, Refused } from "../core/errors.ts";
import { fingerprintOf, normalFingerprint, ownParts, type PublicKey } from "../openpgp/keys.ts";
import type { VerifiedSignature } from "../openpgp/verify.ts";
import { firstUse, type TrustOptions } from "./first-use.ts";
import {
  checkKeyLines,
  firstKeySet,
  type KeySet,
  type KeyStep,
  maxSteps,
  nextKeySet,
  pinnedSet,
  stepsAhead,
} from "./key-set.ts";
import { collectKeys, fullFingerprint, keysInRing, readKeyFile } from "./key-sources.ts";
import { KeyStore } from "./key-store.ts";
import { choosePins } from "./pins.ts";
import { signersOf, verifyBytes } from "./verify.ts";
import { parseVersionFile, type VersionFile } from "./version-file.ts";
import type { UnverifiedVersion, WebFolder } from "./web-folder.ts";

export { publishedPin, type TrustOptions } from "./first-use.ts";

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

/**
 * The keys by which releases are judged: the pinned ones, and those to which they handed over. What is learnt is
 * saved when it is learnt, whatever becomes of the release: a revocation, and each new set of keys.
 */
export class Trust {
  /** Full fingerprints. */
  readonly pins: readonly string[];
  /** Short ids that were written, with what they stand for. */
  readonly written: Readonly<Record<string, string>>;
  readonly #context: TrustContext;
  readonly #store: KeyStore;
  readonly #note: (line: string) => void;
  #set: KeySet;
  /** KEY.asc's ETag by web folder. */
  #etags: Record<string, string>;
  /** Keys that are, were or may become trusted, by fingerprint. */
  #keys: Map<string, PublicKey>;
  /** What else was shown: the key file's, and KEY.asc's of the web folders. */
  #offered: PublicKey[];
  #isAsked = false;
  /** A web folder that could not be asked for its KEY.asc. */
  #failure: unknown;
  /** Whether what is learnt may be saved: at a first use only once a release was accepted. */
  #mayKeep: boolean;
  /** Several web folders are judged one after the other. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    context: TrustContext,
    { note }: TrustOptions,
    start: {
      pins: readonly string[];
      written: Record<string, string>;
      set: KeySet;
      etags: Record<string, string>;
      keys: Map<string, PublicKey>;
      offered: readonly PublicKey[];
      mayKeep: boolean;
    },
  ) {
    this.pins = start.pins;
    this.written = start.written;
    this.#context = context;
    this.#store = new KeyStore(context.store);
    this.#note = note;
    this.#set = start.set;
    this.#etags = start.etags;
    this.#keys = start.keys;
    this.#offered = [...start.offered];
    this.#mayKeep = start.mayKeep;
  }

  /**
   * Find the pins and their keys.
   * @throws {Refused} when there is no pin, or no key that has it.
   * @throws {UsageError} when the command line contradicts the pin.
   */
  static async open(context: TrustContext, options: TrustOptions): Promise<Trust> {
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
    const keptSet = await store.set();
    const kept = keptSet && isSameSet(keptSet.pins, pinned) ? keptSet : undefined;
    const fromFile = keyFile === undefined ? [] : await readKeyFile(keyFile);
    const pins = choosePins({
      pinned,
      key: key === undefined ? undefined : await full(key),
      keyFile:
        keyFile === undefined
          ? undefined
          : { path: keyFile, fingerprints: fromFile.map(fingerprintOf) },
      followed: kept ? [...kept.set.keys, ...kept.set.roots] : [],
    });
    const mayKeep = pins.length > 0;
    const first = mayKeep ? undefined : await firstUse(context.folders, options);
    if (first) pins.push(first.pin);
    const saved = await store.keys();
    const offered = [...(context.given ?? []), ...fromFile, ...(first?.keys ?? [])];
    const set = kept?.set ?? pinnedSet(pins);
    const wanted = [...pins, ...set.keys, ...set.roots, ...saved.map(fingerprintOf)];
    const keys = await collectKeys(wanted, [...offered, ...saved]);
    for (const pin of pins)
      if (!keys.has(pin))
        for (const [found, ring] of await collectKeys([pin], await keysInRing(pin)))
          keys.set(found, ring);
    const etags = kept?.etags ?? {};
    const trust = new Trust(context, options, {
      pins,
      written,
      set,
      etags,
      keys,
      offered,
      mayKeep,
    });
    if (!trust.#signers().length) await trust.#learn();
    return trust;
  }

  /**
   * The keys that may sign VERSION and archives now.
   * @throws {Refused} when none of them was found.
   */
  get signers(): PublicKey[] {
    const found = this.#signers();
    if (found.length > 0) return found;
    // a server that is down has not refused anything
    if (this.#failure !== undefined && !(this.#failure instanceof Refused)) throw this.#failure;
    const asked = this.#context.folders.map((folder) => folder.name("")).join(", ");
    throw new Refused(
      `no key with the fingerprint ${this.#set.keys.join(" or ")} was found (asked: the gpg ring, KEY.asc in ${asked}); give it with --key-file`,
    );
  }

  #signers(): PublicKey[] {
    const { keys, revoked } = this.#set;
    return this.#known(keys.filter((key) => !revoked.includes(key)));
  }

  #known(fingerprints: Iterable<string>): PublicKey[] {
    return [...fingerprints].flatMap((fingerprint) => this.#keys.get(fingerprint) ?? []);
  }

  /**
   * Judge who signed a VERSION: follow the sets of keys that it is ahead, then check its signature.
   * @returns undefined when it is not signed at all, as a folder may be that never was.
   * @throws {Refused} with the reason.
   */
  async verifyVersion(
    folder: WebFolder,
    { file, data, signature }: UnverifiedVersion,
  ): Promise<VerifiedSignature | undefined> {
    const verify = async () => {
      await this.#learn();
      const name = folder.name("VERSION");
      if (!signature) {
        if (this.#set.serial === 0) return undefined;
        throw new Refused(
          `${name}: VERSION.sig is missing; it was there before, so it is required`,
        );
      }
      await this.#follow(folder, file);
      const sigName = folder.name("VERSION.sig");
      const verified = await verifyBytes(signature, data, this.signers, sigName);
      checkKeyLines(this.#set, file, name);
      return verified;
    };
    const turn = this.#turn.then(verify);
    this.#turn = turn.catch(() => undefined);
    return await turn;
  }

  /** A release was accepted: what a first use has found counts from now on. */
  async accept(): Promise<void> {
    this.#mayKeep = true;
    await this.#keep();
  }

  async #keep(): Promise<void> {
    if (!this.#mayKeep) return;
    // first the keys: the set must not name any that are not there
    await this.#store.keepKeys([...this.#keys.values()]);
    await this.#store.keepSet({ pins: this.pins, set: this.#set, etags: this.#etags });
  }

  /** Look at each web folder's KEY.asc once, if it changed, for what it tells of the keys that are known. */
  async #learn(): Promise<void> {
    if (this.#isAsked) return;
    this.#isAsked = true;
    const { folders } = this.#context;
    await Promise.all(folders.map((folder) => this.#readOffered(folder, this.#etags[folder.url])));
    const wanted = [...this.#keys.keys(), ...this.#set.keys, ...this.#set.roots];
    this.#keys = await collectKeys(wanted, [...this.#keys.values(), ...this.#offered]);
    await this.#keep();
  }

  async #readOffered(folder: WebFolder, etag?: string): Promise<void> {
    try {
      const got = await folder.keys(etag);
      if (got === "unchanged") return;
      for (const key of got.keys) this.#offered.push(await ownParts(key));
      const { [folder.url]: _, ...others } = this.#etags;
      this.#etags = got.etag === undefined ? others : { ...others, [folder.url]: got.etag };
    } catch (error) {
      this.#failure = error;
      this.#note(`${messageOf(error)}; going on without it`);
    }
  }

  /** Go from the trusted set to VERSION's, one step at a time, each saved before the next. */
  async #follow(folder: WebFolder, file: VersionFile): Promise<void> {
    const { app = file.app } = this.#context;
    const serial = file.keys?.serial ?? 0;
    const steps = new Map<number, ReadStep>();
    const read = async (n: number) => {
      const step = steps.get(n) ?? (await readStep(folder, n));
      steps.set(n, step);
      return await this.#signedBy(folder, step);
    };
    const context = (n: number) => ({ app, name: folder.name(`keys/${n}`) });
    if (this.#set.serial === 0)
      for (let n = serial; n > 0 && n > serial - maxSteps && this.#set.serial === 0; n--) {
        const first = firstKeySet(this.pins, n, await read(n), context(n));
        if (first) await this.#goTo(first);
      }
    for (let left = stepsAhead(this.#set, file, folder.name("VERSION")); left > 0; left--) {
      const n = this.#set.serial + 1;
      await this.#goTo(nextKeySet(this.#set, await read(n), context(n)));
    }
  }

  async #goTo(set: KeySet): Promise<void> {
    this.#set = set;
    await this.#keep();
    const { serial, keys, roots } = set;
    const root = roots.length > 0 ? `, and ROOT ${roots.join(", ")}` : "";
    this.#note(`KEYS ${serial}: releases must be signed by ${keys.join(" or ")}${root}`);
  }

  /** Who signed a step, of those who are trusted and those whom it names. */
  async #signedBy(folder: WebFolder, { file, data, signature, name }: ReadStep): Promise<KeyStep> {
    const { keys, roots } = this.#set;
    const named = [...(file.keys?.keys ?? []), ...(file.keys?.roots ?? [])];
    const wanted = new Set([...this.pins, ...keys, ...roots, ...named]);
    const isMissing = () => [...wanted].some((fingerprint) => !this.#keys.has(fingerprint));
    const look = async () => {
      const copies = [...this.#keys.values(), ...this.#offered];
      this.#keys = await collectKeys([...this.#keys.keys(), ...wanted], copies);
    };
    if (isMissing()) await look();
    // KEY.asc may be as it was when only other keys of it were of interest
    if (isMissing() && this.#etags[folder.url] !== undefined) {
      await this.#readOffered(folder);
      await look();
    }
    return { file, signedBy: await signersOf(signature, data, this.#known(wanted), name) };
  }
}

interface ReadStep {
  file: VersionFile;
  data: Buffer;
  signature: Buffer;
  /** The signature's, for messages. */
  name: string;
}

/** @throws {Refused} when it is not there, not signed, or not understood. */
async function readStep(folder: WebFolder, serial: number): Promise<ReadStep> {
  const name = folder.name(`keys/${serial}`);
  const { data, signature } = await folder.keyStep(serial);
  if (!data || !signature)
    throw new Refused(
      `${name}${data ? ".sig" : ""} is missing, by which keys changed (gap in the keys)`,
    );
  const file = parseVersionFile(data.toString("utf8"), name);
  return { file, data, signature, name: `${name}.sig` };
}

function isSameSet(one: readonly string[], other: readonly string[]): boolean {
  return [...one].sort().join() === [...other].sort().join();
}
