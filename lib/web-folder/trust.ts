import { messageOf, Refused } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { fingerprintOf, normalFingerprint, type PublicKey } from "../openpgp/keys.ts";
import { Signatures, type VerifiedSignature } from "../openpgp/verify.ts";
import {
  checkKeyLines,
  firstKeySet,
  isSameSet,
  type KeySet,
  type KeyStep,
  maxSteps,
  nextKeySet,
  pinnedSet,
  stepsAhead,
} from "./key-set.ts";
import { collectKeys, fullFingerprint, keysInRing, readKeyFile } from "./key-sources.ts";
import { KeyStore } from "./key-store.ts";
import { choosePins, firstUse, type TrustOptions } from "./pinning.ts";
import type { VersionFile } from "./version-file.ts";
import {
  type SignedVersion,
  type UnverifiedStep,
  type UnverifiedVersion,
  verifyBytes,
  type WebFolder,
} from "./web-folder.ts";

export type { TrustOptions } from "./pinning.ts";
export { checkGiven } from "./key-sources.ts";

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
  /** The pinned keys' full fingerprints. */
  pins: readonly string[] = [];
  /** Short ids that were written, with what they stand for. */
  readonly written: Record<string, string> = {};
  readonly #context: TrustContext;
  readonly #store: KeyStore | undefined;
  readonly #note: (line: string) => void;
  /** The keys that are trusted now. */
  #set = pinnedSet([]);
  /** KEY.asc's ETag by web folder. */
  #etags: Record<string, string> = {};
  /** Keys that are, were or may become trusted, by fingerprint. */
  #keys = new Map<string, PublicKey>();
  /** What else was shown: the key file's, and KEY.asc's of the web folders. */
  #offered: PublicKey[];
  /** Whether what is learnt may be saved: at a first use only once a release was accepted. */
  #mayKeep = false;
  #isAsked = false;
  /** A web folder that could not be asked for its KEY.asc. */
  #failure: unknown;
  /** Several web folders are judged one after the other. */
  readonly #turns = new Mutex();

  private constructor(context: TrustContext, note: TrustOptions["note"]) {
    this.#context = context;
    this.#store = context.store === undefined ? undefined : new KeyStore(context.store);
    this.#note = note;
    this.#offered = [...(context.given ?? [])];
  }

  /**
   * Find the pins and their keys.
   * @throws {Refused} when there is no pin, or no key that has it.
   * @throws {UsageError} when the command line contradicts the pin.
   */
  static async open(context: TrustContext, options: TrustOptions): Promise<Trust> {
    const trust = new Trust(context, options.note);
    await trust.start(options);
    if (trust.foundSigners().length === 0) await trust.learn();
    return trust;
  }

  private async start(options: TrustOptions): Promise<void> {
    const { key, keyFile } = options;
    const pinned: string[] = [];
    for (const text of this.#context.pinned) pinned.push(await this.full(text));
    const lastKept = await this.#store?.set.read();
    // where others were pinned by hand, what the former ones handed over to counts no more
    const keptFor = (pins: readonly string[]) => (lastKept && isSameSet(lastKept.pins, pins) ? lastKept : undefined);
    const followed = keptFor(pinned)?.set;
    const inFile = keyFile === undefined ? [] : await readKeyFile(keyFile);
    const pins = choosePins({
      pinned,
      key: key === undefined ? undefined : await this.full(key),
      keyFile: keyFile === undefined ? undefined : { path: keyFile, fingerprints: inFile.map(fingerprintOf) },
      followed: followed ? [...followed.keys, ...followed.roots] : [],
    });
    this.#mayKeep = pins.length > 0;
    this.#offered.push(...inFile);
    if (!this.#mayKeep) {
      const { pin, keys } = await firstUse(this.#context.folders, options);
      pins.push(pin);
      this.#offered.push(...keys);
    }
    this.pins = pins;
    const { set = pinnedSet(pins), etags = {} } = keptFor(pins) ?? {};
    this.#set = set;
    this.#etags = etags;
    for (const saved of (await this.#store?.keys()) ?? []) this.#keys.set(fingerprintOf(saved), saved);
    await this.collect();
    const missing = pins.filter((pin) => !this.#keys.has(pin));
    for (const pin of missing) this.#offered.push(...(await keysInRing(pin)));
    if (missing.length > 0) await this.collect();
  }

  private async full(text: string): Promise<string> {
    const fingerprint = await fullFingerprint(text, this.#note);
    if (!normalFingerprint(text)) this.written[text] = fingerprint;
    return fingerprint;
  }

  /**
   * The keys that may sign VERSION and archives now.
   * @throws {Refused} when none of them was found.
   */
  get signers(): PublicKey[] {
    const found = this.foundSigners();
    if (found.length > 0) return found;
    // a server that is down has not refused anything
    if (this.#failure !== undefined && !(this.#failure instanceof Refused)) throw this.#failure;
    const asked = this.#context.folders.map((folder) => folder.name("")).join(", ");
    throw new Refused(
      `no key with the fingerprint ${this.#set.keys.join(" or ")} was found (asked: ` +
        `the gpg ring, KEY.asc in ${asked}); give it with --key-file`,
    );
  }

  private foundSigners(): PublicKey[] {
    const { keys, revoked } = this.#set;
    return this.found(keys.filter((key) => !revoked.includes(key)));
  }

  private found(fingerprints: readonly string[]): PublicKey[] {
    return fingerprints.flatMap((fingerprint) => this.#keys.get(fingerprint) ?? []);
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
    return await this.#turns.run(async () => {
      await this.learn();
      const name = folder.name("VERSION");
      if (!signature) {
        if (this.#set.serial === 0) return undefined;
        throw new Refused(`${name}: VERSION.sig is missing; it was there before, so it is required`);
      }
      await this.follow(folder, file);
      const verified = await verifyBytes(signature, data, this.signers, folder.name("VERSION.sig"));
      checkKeyLines(this.#set, file, name);
      return verified;
    });
  }

  /**
   * Judge a verified VERSION by the keys of now: another web folder may have shown since that they changed.
   * @throws {Refused} with the reason.
   */
  checkSigner(folder: WebFolder, { file, signature }: Pick<SignedVersion, "file" | "signature">): void {
    const name = folder.name("VERSION");
    const { serial } = this.#set;
    if (signature && !this.signers.some((key) => fingerprintOf(key) === signature.fingerprint))
      throw new Refused(`${name} is signed by ${signature.fingerprint}, which signs no more since KEYS ${serial}`);
    if (!signature && serial > 0) throw new Refused(`${name}: VERSION.sig is missing; KEYS ${serial} requires it`);
    if (signature) checkKeyLines(this.#set, file, name);
  }

  /** A release was accepted: what a first use has found counts from now on. */
  async accept(): Promise<void> {
    this.#mayKeep = true;
    await this.keep();
  }

  private async keep(): Promise<void> {
    if (!this.#mayKeep) return;
    await this.#store?.keep(this.#keys.values(), { pins: [...this.pins], set: this.#set, etags: this.#etags });
  }

  /** Look at each web folder's KEY.asc once, if it changed, for what it tells of the keys that are known. */
  private async learn(): Promise<void> {
    if (this.#isAsked) return;
    this.#isAsked = true;
    await Promise.all(this.#context.folders.map((folder) => this.readOffered(folder, this.#etags[folder.url])));
    await this.collect();
    await this.keep();
  }

  private async readOffered(folder: WebFolder, etag?: string): Promise<void> {
    try {
      const got = await folder.keys(etag);
      if (!got) return;
      this.#offered.push(...got.keys);
      const { [folder.url]: _, ...others } = this.#etags;
      this.#etags = got.etag === undefined ? others : { ...others, [folder.url]: got.etag };
    } catch (error) {
      this.#failure = error;
      // what is down says so when it is asked for its VERSION
      if (error instanceof Refused) this.#note(`${messageOf(error)}; going on without it`);
    }
  }

  /** Go from the trusted set to VERSION's, one step at a time, each saved before the next. */
  private async follow(folder: WebFolder, file: VersionFile): Promise<void> {
    const { app = file.app } = this.#context;
    const serial = file.keys?.serial ?? 0;
    const steps = new Map<number, UnverifiedStep>();
    const read = async (n: number) => {
      const step = steps.get(n) ?? (await folder.keyStep(n));
      steps.set(n, step);
      return { step, context: { app, name: folder.name(`keys/${n}`) } };
    };
    if (this.#set.serial === 0)
      for (let n = serial; n > 0 && n > serial - maxSteps && this.#set.serial === 0; n--) {
        const { step, context } = await read(n);
        const signed = await signedBy(step, this.found(this.pins), `${context.name}.sig`);
        const first = firstKeySet(this.pins, n, signed, context);
        if (first) await this.goTo(first);
      }
    for (let left = stepsAhead(this.#set, file, folder.name("VERSION")); left > 0; left--) {
      const { step, context } = await read(this.#set.serial + 1);
      const signed = await signedBy(step, await this.judges(folder, step), `${context.name}.sig`);
      await this.goTo(nextKeySet(this.#set, signed, context));
    }
  }

  private async goTo(set: KeySet): Promise<void> {
    this.#set = set;
    const { serial, keys, roots } = set;
    await this.collect();
    await this.keep();
    const root = roots.length > 0 ? `, and ROOT ${roots.join(", ")}` : "";
    this.#note(`KEYS ${serial}: releases must be signed by ${keys.join(" or ")}${root}`);
  }

  /** Take what was shown of the keys that are trusted, and of those that are known. */
  private async collect(): Promise<void> {
    const wanted = [...this.#keys.keys(), ...this.pins, ...this.#set.keys, ...this.#set.roots];
    this.#keys = await this.copiesOf(wanted);
  }

  private copiesOf(wanted: readonly string[]): Promise<Map<string, PublicKey>> {
    return collectKeys(wanted, [...this.#keys.values(), ...this.#offered]);
  }

  /** The keys that may have signed a step: those that are trusted, and those that it names. */
  private async judges(folder: WebFolder, { file }: UnverifiedStep): Promise<PublicKey[]> {
    const named = [...(file.keys?.keys ?? []), ...(file.keys?.roots ?? [])];
    const wanted = [...this.#set.keys, ...this.#set.roots, ...named];
    let found = await this.copiesOf(wanted);
    // KEY.asc may be as it was when only other keys of it were of interest
    if (wanted.some((each) => !found.has(each)) && this.#etags[folder.url] !== undefined) {
      await this.readOffered(folder);
      found = await this.copiesOf(wanted);
    }
    return [...found.values()];
  }
}

/** Which of these keys have signed a step. */
async function signedBy(step: UnverifiedStep, keys: readonly PublicKey[], name: string): Promise<KeyStep> {
  const { file, data, signature } = step;
  const signatures = await Signatures.read(signature, name);
  const signers = new Set<string>();
  for (const key of keys) {
    try {
      signers.add((await signatures.verify(key, data, name)).fingerprint);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
  return { file, signedBy: signers };
}
