import { messageOf, Refused } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import type { PublicKey } from "../openpgp/keys.ts";
import type { VerifiedSignature } from "../openpgp/verify.ts";
import {
  checkKeyLines,
  firstKeySet,
  type KeySet,
  type KeyStep,
  maxSteps,
  nextKeySet,
  stepsAhead,
} from "./key-set.ts";
import { collectKeys } from "./key-sources.ts";
import { KeyStore } from "./key-store.ts";
import {
  startTrust,
  type TrustContext,
  type TrustOptions,
  type TrustKnown,
} from "./trust-start.ts";
import { signersOf, verifyBytes } from "./verify.ts";
import { parseVersionFile, type VersionFile } from "./version-file.ts";
import type { UnverifiedVersion, WebFolder } from "./web-folder.ts";

export type { TrustOptions } from "./trust-start.ts";
export { checkGiven } from "./key-sources.ts";

/**
 * The keys by which releases are judged: the pinned ones, and those to which they handed over. What is learnt is
 * saved when it is learnt, whatever becomes of the release: a revocation, and each new set of keys.
 */
export class Trust {
  readonly #context: TrustContext;
  readonly #store: KeyStore;
  readonly #known: TrustKnown;
  readonly #note: (line: string) => void;
  #isAsked = false;
  /** A web folder that could not be asked for its KEY.asc. */
  #failure: unknown;
  /** Several web folders are judged one after the other. */
  readonly #turns = new Mutex();

  private constructor(
    context: TrustContext,
    store: KeyStore,
    known: TrustKnown,
    note: TrustOptions["note"],
  ) {
    this.#context = context;
    this.#store = store;
    this.#known = known;
    this.#note = note;
  }

  /**
   * Find the pins and their keys.
   * @throws {Refused} when there is no pin, or no key that has it.
   * @throws {UsageError} when the command line contradicts the pin.
   */
  static async open(context: TrustContext, options: TrustOptions): Promise<Trust> {
    const store = new KeyStore(context.store);
    const known = await startTrust(context, store, options);
    const trust = new Trust(context, store, known, options.note);
    if (trust.foundSigners().length === 0) await trust.learn();
    return trust;
  }

  /** The pinned keys' full fingerprints. */
  get pins(): readonly string[] {
    return this.#known.pins;
  }

  /** Short ids that were written, with what they stand for. */
  get written(): TrustKnown["written"] {
    return this.#known.written;
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
      `no key with the fingerprint ${this.#known.set.keys.join(" or ")} was found (asked: the gpg ring, KEY.asc in ${asked}); give it with --key-file`,
    );
  }

  private foundSigners(): PublicKey[] {
    const { keys, revoked } = this.#known.set;
    return this.known(keys.filter((key) => !revoked.includes(key)));
  }

  private known(fingerprints: Iterable<string>): PublicKey[] {
    return [...fingerprints].flatMap((fingerprint) => this.#known.keys.get(fingerprint) ?? []);
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
        if (this.#known.set.serial === 0) return undefined;
        throw new Refused(
          `${name}: VERSION.sig is missing; it was there before, so it is required`,
        );
      }
      await this.follow(folder, file);
      const sigName = folder.name("VERSION.sig");
      const verified = await verifyBytes(signature, data, this.signers, sigName);
      checkKeyLines(this.#known.set, file, name);
      return verified;
    });
  }

  /** A release was accepted: what a first use has found counts from now on. */
  async accept(): Promise<void> {
    this.#known.mayKeep = true;
    await this.keep();
  }

  private async keep(): Promise<void> {
    if (!this.#known.mayKeep) return;
    // first the keys: the set must not name any that are not there
    await this.#store.keepKeys([...this.#known.keys.values()]);
    await this.#store.keepSet({ pins: this.pins, set: this.#known.set, etags: this.#known.etags });
  }

  /** Look at each web folder's KEY.asc once, if it changed, for what it tells of the keys that are known. */
  private async learn(): Promise<void> {
    if (this.#isAsked) return;
    this.#isAsked = true;
    const { folders } = this.#context;
    await Promise.all(
      folders.map((folder) => this.readOffered(folder, this.#known.etags[folder.url])),
    );
    await this.collect([...this.pins, ...this.#known.set.keys, ...this.#known.set.roots]);
    await this.keep();
  }

  private async readOffered(folder: WebFolder, etag?: string): Promise<void> {
    try {
      const got = await folder.keys(etag);
      if (!got) return;
      this.#known.offered.push(...got.keys);
      const { [folder.url]: _, ...others } = this.#known.etags;
      this.#known.etags = got.etag === undefined ? others : { ...others, [folder.url]: got.etag };
    } catch (error) {
      this.#failure = error;
      this.#note(`${messageOf(error)}; going on without it`);
    }
  }

  /** Go from the trusted set to VERSION's, one step at a time, each saved before the next. */
  private async follow(folder: WebFolder, file: VersionFile): Promise<void> {
    const { app = file.app } = this.#context;
    const serial = file.keys?.serial ?? 0;
    const steps = new Map<number, ReadStep>();
    const read = async (n: number) => {
      const step = steps.get(n) ?? (await readStep(folder, n));
      steps.set(n, step);
      return step;
    };
    const context = (n: number) => ({ app, name: folder.name(`keys/${n}`) });
    if (this.#known.set.serial === 0)
      for (let n = serial; n > 0 && n > serial - maxSteps && this.#known.set.serial === 0; n--) {
        const step = await signedBy(await read(n), this.known(this.pins));
        const first = firstKeySet(this.pins, n, step, context(n));
        if (first) await this.goTo(first);
      }
    for (let left = stepsAhead(this.#known.set, file, folder.name("VERSION")); left > 0; left--) {
      const n = this.#known.set.serial + 1;
      const step = await read(n);
      const signed = await signedBy(step, await this.judges(folder, step));
      await this.goTo(nextKeySet(this.#known.set, signed, context(n)));
    }
  }

  private async goTo(set: KeySet): Promise<void> {
    this.#known.set = set;
    const { serial, keys, roots } = set;
    await this.collect([...keys, ...roots]);
    await this.keep();
    const root = roots.length > 0 ? `, and ROOT ${roots.join(", ")}` : "";
    this.#note(`KEYS ${serial}: releases must be signed by ${keys.join(" or ")}${root}`);
  }

  /** Take what was shown of these keys, and of those that are known. */
  private async collect(wanted: readonly string[]): Promise<void> {
    const copies = [...this.#known.keys.values(), ...this.#known.offered];
    this.#known.keys = await collectKeys([...this.#known.keys.keys(), ...wanted], copies);
  }

  /** The keys that may have signed a step: those that are trusted, and those that it names. */
  private async judges(folder: WebFolder, { file }: ReadStep): Promise<PublicKey[]> {
    const named = [...(file.keys?.keys ?? []), ...(file.keys?.roots ?? [])];
    const wanted = [...this.#known.set.keys, ...this.#known.set.roots, ...named];
    const find = () => collectKeys(wanted, [...this.#known.keys.values(), ...this.#known.offered]);
    let found = await find();
    // KEY.asc may be as it was when only other keys of it were of interest
    if (wanted.some((each) => !found.has(each)) && this.#known.etags[folder.url] !== undefined) {
      await this.readOffered(folder);
      found = await find();
    }
    return [...found.values()];
  }
}

/** A step by which keys changed, as a web folder has it: `keys/N` and `keys/N.sig`. */
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

/** Which of these keys have signed it. */
async function signedBy(
  { file, data, signature, name }: ReadStep,
  keys: readonly PublicKey[],
): Promise<KeyStep> {
  return { file, signedBy: await signersOf(signature, data, keys, name) };
}
