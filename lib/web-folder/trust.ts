import { messageOf, Refused } from "../core/errors.ts";
import type { PublicKey } from "../openpgp/keys.ts";
import type { VerifiedSignature } from "../openpgp/verify.ts";
import type { TrustOptions } from "./first-use.ts";
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
import { collectKeys } from "./key-sources.ts";
import type { KeyStore } from "./key-store.ts";
import { startTrust, type TrustContext, type TrustStart } from "./trust-start.ts";
import { signersOf, verifyBytes } from "./verify.ts";
import { parseVersionFile, type VersionFile } from "./version-file.ts";
import type { UnverifiedVersion, WebFolder } from "./web-folder.ts";

export { publishedPin, type TrustOptions } from "./first-use.ts";
export { checkGiven } from "./key-sources.ts";

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

  private constructor(context: TrustContext, note: TrustOptions["note"], start: TrustStart) {
    this.pins = start.pins;
    this.written = start.written;
    this.#context = context;
    this.#store = start.store;
    this.#note = note;
    this.#set = start.kept?.set ?? pinnedSet(start.pins);
    this.#etags = start.kept?.etags ?? {};
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
    const trust = new Trust(context, options.note, await startTrust(context, options));
    if (trust.foundSigners().length === 0) await trust.learn();
    return trust;
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
      `no key with the fingerprint ${this.#set.keys.join(" or ")} was found (asked: the gpg ring, KEY.asc in ${asked}); give it with --key-file`,
    );
  }

  private foundSigners(): PublicKey[] {
    const { keys, revoked } = this.#set;
    return this.known(keys.filter((key) => !revoked.includes(key)));
  }

  private known(fingerprints: Iterable<string>): PublicKey[] {
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
      await this.learn();
      const name = folder.name("VERSION");
      if (!signature) {
        if (this.#set.serial === 0) return undefined;
        throw new Refused(
          `${name}: VERSION.sig is missing; it was there before, so it is required`,
        );
      }
      await this.follow(folder, file);
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
    await this.keep();
  }

  private async keep(): Promise<void> {
    if (!this.#mayKeep) return;
    // first the keys: the set must not name any that are not there
    await this.#store.keepKeys([...this.#keys.values()]);
    await this.#store.keepSet({ pins: this.pins, set: this.#set, etags: this.#etags });
  }

  /** Look at each web folder's KEY.asc once, if it changed, for what it tells of the keys that are known. */
  private async learn(): Promise<void> {
    if (this.#isAsked) return;
    this.#isAsked = true;
    const { folders } = this.#context;
    await Promise.all(folders.map((folder) => this.readOffered(folder, this.#etags[folder.url])));
    await this.collect([...this.pins, ...this.#set.keys, ...this.#set.roots]);
    await this.keep();
  }

  private async readOffered(folder: WebFolder, etag?: string): Promise<void> {
    try {
      const got = await folder.keys(etag);
      if (got === "unchanged") return;
      this.#offered.push(...got.keys);
      const { [folder.url]: _, ...others } = this.#etags;
      this.#etags = got.etag === undefined ? others : { ...others, [folder.url]: got.etag };
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
    if (this.#set.serial === 0)
      for (let n = serial; n > 0 && n > serial - maxSteps && this.#set.serial === 0; n--) {
        const step = await signedBy(await read(n), this.known(this.pins));
        const first = firstKeySet(this.pins, n, step, context(n));
        if (first) await this.goTo(first);
      }
    for (let left = stepsAhead(this.#set, file, folder.name("VERSION")); left > 0; left--) {
      const n = this.#set.serial + 1;
      const step = await read(n);
      const signed = await signedBy(step, await this.judges(folder, step));
      await this.goTo(nextKeySet(this.#set, signed, context(n)));
    }
  }

  private async goTo(set: KeySet): Promise<void> {
    this.#set = set;
    const { serial, keys, roots } = set;
    await this.collect([...keys, ...roots]);
    await this.keep();
    const root = roots.length > 0 ? `, and ROOT ${roots.join(", ")}` : "";
    this.#note(`KEYS ${serial}: releases must be signed by ${keys.join(" or ")}${root}`);
  }

  /** Take what was shown of these keys, and of those that are known. */
  private async collect(wanted: readonly string[]): Promise<void> {
    const copies = [...this.#keys.values(), ...this.#offered];
    this.#keys = await collectKeys([...this.#keys.keys(), ...wanted], copies);
  }

  /** The keys that may have signed a step: those that are trusted, and those that it names. */
  private async judges(folder: WebFolder, { file }: ReadStep): Promise<PublicKey[]> {
    const named = [...(file.keys?.keys ?? []), ...(file.keys?.roots ?? [])];
    const wanted = [...this.#set.keys, ...this.#set.roots, ...named];
    const find = () => collectKeys(wanted, [...this.#keys.values(), ...this.#offered]);
    let found = await find();
    // KEY.asc may be as it was when only other keys of it were of interest
    if (wanted.some((each) => !found.has(each)) && this.#etags[folder.url] !== undefined) {
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
