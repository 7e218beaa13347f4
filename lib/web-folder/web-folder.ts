import { closeSync, openSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, messageOf, Refused, systemCode, UsageError } from "../core/errors.ts";
import { createFetcher, FetchFailed, type Fetcher, reasonOf } from "../fetch/fetch.ts";
import { exists, readPieces, temporaryBeside } from "../files/files.ts";
import { type PublicKey, readPublicKeys, type SignedData } from "../openpgp/keys.ts";
import { SignatureRefused, Signatures, type VerifiedSignature } from "../openpgp/verify.ts";
import { assembleArchive, keepArchive } from "./archive-before.ts";
import { indexHash, maxIndex } from "./archive-index.ts";
import { type CurrentLine, maxVersionFile, parseVersionFile, type VersionFile } from "./version-file.ts";

/**
 * A web folder with releases, as a client sees it: VERSION, archives, signatures, the public key.
 * Nothing read here is believed before the pinned key's signature over it was accepted.
 */
export interface WebFolderOptions {
  /** A folder of ours for what is being fetched; broken downloads stay in it and are continued. */
  temporary: string;
  /** A folder with the archive that was kept last, by which only what differs is fetched. */
  before?: string | undefined;
  /** Milliseconds for VERSION or a signature; in as many at least 64 KB of an archive must come. */
  timeout: number;
  /** Bytes of the largest archive that is taken. */
  maxSize: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number | undefined) => void) | undefined;
  note?: ((line: string) => void) | undefined;
}

/** A VERSION as it came. */
export interface UnverifiedVersion {
  file: VersionFile;
  data: Buffer;
  /** Undefined: there is no VERSION.sig. */
  signature?: Buffer | undefined;
}

/** A VERSION by which keys changed, as it came: `keys/N`. */
export type UnverifiedStep = UnverifiedVersion & { signature: Buffer };

/** A VERSION file and how it was signed. */
export interface SignedVersion {
  file: VersionFile;
  /** Undefined: there is no VERSION.sig. */
  signature?: VerifiedSignature | undefined;
  etag?: string | undefined;
}

/** An archive that was verified; unpack it from the descriptor, whose bytes are those that were hashed. */
export interface VerifiedArchive {
  fd: number;
  sha256: string;
  size: number;
  /** When its signature was made, ISO 8601. */
  signed: string;
  /** The fingerprint of the key that signed it. */
  key: string;
  /** Close it and remove the file. */
  discard(): Promise<void>;
  /** The same, but where it has an index, keep the file for the next one. */
  keep(): Promise<void>;
}

/** An archive that came, not verified yet. */
type Downloaded = Omit<VerifiedArchive, "signed" | "key">;

/** The notation in an archive's signature that names the archive, so that it cannot be passed off as another. */
export const fileNotation = "file@boatyard";

/** Check a detached signature over bytes: it must be by one of these keys. */
export async function verifyBytes(
  signature: Uint8Array,
  data: SignedData,
  keys: readonly PublicKey[],
  name: string,
): Promise<VerifiedSignature> {
  const signatures = await Signatures.read(signature, name);
  let refusal: unknown = new Refused(`${name} cannot be checked: no key is pinned`);
  for (const key of keys) {
    try {
      return await signatures.verify(key, data, name);
    } catch (error) {
      // of several keys the one that signed it, if over other bytes, has the reason
      if (!(refusal instanceof SignatureRefused && refusal.reason === "bytes")) refusal = error;
    }
  }
  throw refusal;
}

/** Bytes of a signature file, of KEY.asc, and those that must come in each time-out, else the retrieval is too slow. */
const [maxSignature, maxKeyFile, minBytes] = [64 * 1024, 1024 * 1024, 64 * 1024];

/** The address of a web folder as people give it: with or without `/` or `/VERSION` at its end. */
export function folderUrl(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new UsageError(`"${text}" is not the address of a web folder; write https://HOST/PATH/`);
  }
  if (!["https:", "http:", "file:"].includes(url.protocol))
    throw new UsageError(`"${text}": only https, http and file are understood`);
  url.hash = "";
  url.pathname = url.pathname.replace(/\/(?:VERSION)?$/, "").concat("/");
  return url.href;
}

export class WebFolder {
  readonly url: string;
  readonly #options: WebFolderOptions;
  readonly #fetcher: Fetcher;

  constructor(url: string, options: WebFolderOptions) {
    this.url = folderUrl(url);
    this.#options = options;
    this.#fetcher = createFetcher({ retries: 3, stall: options.timeout });
  }

  close(): void {
    this.#fetcher.close();
  }

  /** How a file of the folder is called in messages: without a login that the address may hold. */
  name(file: string): string {
    const url = new URL(file, this.url);
    url.username = "";
    url.password = "";
    return url.href;
  }

  /**
   * VERSION, and who signed it, as `verify` says. A pair that does not match is fetched again, since it may be
   * in the middle of a publish, and refused at the third time. Undefined: nothing new since `etag`.
   * @throws {Refused} when the signature is not accepted, or the file is not understood.
   */
  async version(
    verify: (version: UnverifiedVersion) => Promise<VerifiedSignature | undefined>,
    etag?: string,
  ): Promise<SignedVersion | undefined> {
    for (let attempt = 1; ; attempt++) {
      const got = await this.small("VERSION", maxVersionFile, attempt === 1 ? etag : undefined);
      if (got.isUnchanged) return undefined;
      const { data } = got;
      if (!data) throw new Failure(`${this.name("VERSION")}: there is no such file`);
      const { data: signed } = await this.small("VERSION.sig", maxSignature);
      try {
        const file = parseVersionFile(data.toString("utf8"), this.name("VERSION"));
        const signature = await verify({ file, data, signature: signed });
        return { file, signature, etag: got.etag };
      } catch (error) {
        if (!(error instanceof Refused) || attempt === 3) throw error;
        const { signal } = this.#options;
        await sleep(150 * attempt, undefined, signal && { signal });
      }
    }
  }

  /** The keys in the folder's KEY.asc, none without such a file; undefined: it is as it was when it had this ETag. */
  async keys(etag?: string): Promise<{ keys: PublicKey[]; etag?: string | undefined } | undefined> {
    const got = await this.small("KEY.asc", maxKeyFile, etag);
    if (got.isUnchanged) return undefined;
    return { keys: got.data ? await readPublicKeys(got.data, this.name("KEY.asc")) : [], etag: got.etag };
  }

  /** @throws {Refused} when it is not there, not signed, or not understood. */
  async keyStep(serial: number): Promise<UnverifiedStep> {
    const name = this.name(`keys/${serial}`);
    const { data } = await this.small(`keys/${serial}`, maxVersionFile);
    const { data: signature } = await this.small(`keys/${serial}.sig`, maxSignature);
    if (!data || !signature)
      throw new Refused(`${name}${data ? ".sig" : ""} is missing, by which keys changed (gap in the keys)`);
    return { file: parseVersionFile(data.toString("utf8"), name), data, signature };
  }

  /**
   * Fetch an archive and its signature, and check both, and SHA256 and SIZE where VERSION has them.
   * Bytes that are not the right ones are fetched afresh once.
   * @throws {Refused} when they are still not.
   */
  async archive(line: CurrentLine, keys: readonly PublicKey[]): Promise<VerifiedArchive> {
    const name = this.name(line.file);
    if (line.size !== undefined && line.size > this.#options.maxSize)
      throw new Refused(`${name} is said to have ${line.size} bytes; updates.max_size allows ${this.#options.maxSize}`);
    for (let attempt = 1; ; attempt++) {
      const { data: signature } = await this.small(`${line.file}.sig`, maxSignature);
      if (!signature) throw new Refused(`${name} has no signature (${line.file}.sig)`);
      // what is no signature at all is not worth the archive
      await Signatures.read(signature, `${name}.sig`);
      const index = await this.index(line);
      const archive =
        (attempt === 1 ? await this.assembled(line, index) : undefined) ?? (await this.whole(line, index));
      try {
        if (line.size !== undefined && archive.size !== line.size)
          throw new Refused(`${name} has ${archive.size} bytes, VERSION says ${line.size}`);
        const pieces = () => readPieces(archive.fd);
        const { fingerprint, created, notations } = await verifyBytes(signature, pieces, keys, `${name}.sig`);
        const signedName = notations[fileNotation];
        if (signedName !== undefined && signedName !== line.file)
          throw new Refused(`${name} was signed as ${signedName}, it is another archive (mix-and-match)`);
        return { ...archive, signed: created.toISOString(), key: fingerprint };
      } catch (error) {
        await archive.discard();
        if (!(error instanceof Refused) || attempt === 2) throw error;
        this.#options.note?.(`${messageOf(error)}; fetching it afresh`);
      }
    }
  }

  /** The archive's index; undefined where it is of no use. */
  private async index(line: CurrentLine): Promise<Buffer | undefined> {
    const { before } = this.#options;
    if (before === undefined || line.index === undefined || line.sha256 === undefined) return undefined;
    const { data } = await this.small(`${line.file}.index`, maxIndex);
    return data && indexHash(data) === line.index ? data : undefined;
  }

  /** The archive, put together from the one before and what differs; undefined: it has to be fetched as a whole. */
  private async assembled(line: CurrentLine, index: Buffer | undefined): Promise<Downloaded | undefined> {
    const { before, temporary, timeout, signal, onProgress, note } = this.#options;
    const { file, size, sha256 } = line;
    const isBegun = await exists(join(temporary, `${file}.json`));
    if (!index || !before || !size || !sha256 || isBegun || this.url.startsWith("file:")) return undefined;
    const to = temporaryBeside(join(temporary, file));
    let done = 0;
    const fetch = async (at: number, size: number) => {
      const inTime = AbortSignal.timeout(timeout);
      const either = signal ? AbortSignal.any([signal, inTime]) : inTime;
      const bytes = await this.#fetcher.part(new URL(file, this.url).href, at, size, either);
      onProgress?.((done += size), undefined);
      return bytes;
    };
    try {
      const isThere = await assembleArchive(before, { to, size, sha256, index, fetch });
      return isThere ? this.downloaded(openSync(to, "r"), to, { size, sha256 }, index) : undefined;
    } catch (error) {
      await rm(to, { force: true });
      signal?.throwIfAborted();
      note?.(`${this.name(file)}: ${messageOf(error)}; all of it is fetched`);
      return undefined;
    }
  }

  private async whole(line: CurrentLine, index: Buffer | undefined): Promise<Downloaded> {
    const { temporary, maxSize, timeout, signal, onProgress } = this.#options;
    const name = this.name(line.file);
    const to = join(temporary, line.file);
    const slow = new AbortController();
    let bytes = 0;
    let before = 0;
    const watch = setInterval(() => {
      if (bytes - before < minBytes) slow.abort();
      before = bytes;
    }, timeout);
    try {
      const { fd, sha256, size } = await this.#fetcher.toFile({
        url: new URL(line.file, this.url).href,
        to,
        maxSize: Math.min(line.size ?? maxSize, maxSize),
        // what is unpacked from it is brought to the disk, not the archive
        flush: false,
        handOver: true,
        ...(line.sha256 === undefined ? {} : { sha256: line.sha256 }),
        signal: signal ? AbortSignal.any([signal, slow.signal]) : slow.signal,
        onProgress(done, total) {
          bytes = Math.max(done, bytes);
          onProgress?.(done, total ?? line.size);
        },
      });
      if (fd === undefined) throw new Error("the archive was not handed over");
      return this.downloaded(fd, to, { size, sha256 }, index);
    } catch (error) {
      signal?.throwIfAborted();
      if (slow.signal.aborted)
        throw new Refused(`${name} comes slower than ${minBytes} bytes in ${timeout / 1000} s (slow retrieval)`);
      const reason = refusalOf(error, name);
      // what was refused is not continued
      if (reason instanceof Refused) for (const path of [to, `${to}.json`]) await rm(path, { force: true });
      throw reason;
    } finally {
      clearInterval(watch);
    }
  }

  private downloaded(
    fd: number,
    path: string,
    about: { size: number; sha256: string },
    index: Buffer | undefined,
  ): Downloaded {
    const { before } = this.#options;
    let isOpen = true;
    const end = async (then: () => Promise<void>) => {
      if (!isOpen) return;
      isOpen = false;
      closeSync(fd);
      await then();
    };
    const remove = () => rm(path, { force: true });
    const keep = before === undefined || !index ? remove : () => keepArchive(before, path, index).catch(remove);
    return { fd, ...about, discard: () => end(remove), keep: () => end(keep) };
  }

  /** A small file: without data it is not there, or it is as it was when it had this ETag. */
  private async small(file: string, maxSize: number, etag?: string) {
    const { temporary, timeout, signal } = this.#options;
    const to = temporaryBeside(join(temporary, file.replace("/", "-")));
    const deadline = AbortSignal.timeout(timeout);
    try {
      const fetched = await this.#fetcher.toFile({
        url: new URL(file, this.url).href,
        to,
        name: file,
        maxSize,
        flush: false,
        ...(etag === undefined ? {} : { unless: { etag } }),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      });
      const data = fetched.changed ? await readFile(to) : undefined;
      return { data, etag: fetched.etag, isUnchanged: !fetched.changed };
    } catch (error) {
      signal?.throwIfAborted();
      if (deadline.aborted)
        throw new Refused(`${this.name(file)} did not come within ${timeout / 1000} s (slow retrieval)`);
      if (this.isMissing(error)) return { isUnchanged: false };
      throw refusalOf(error, this.name(file));
    } finally {
      await rm(to, { force: true });
      await rm(`${to}.json`, { force: true });
    }
  }

  /** The server says that there is no such file, or a local folder has none. */
  private isMissing(error: unknown): boolean {
    if (error instanceof FetchFailed) return [403, 404, 410].includes(error.status ?? 0);
    return this.url.startsWith("file:") && ["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "");
  }
}

/** Too many bytes and wrong ones are an attack as much as an accident; the rest is a failure of the network. */
function refusalOf(error: unknown, name: string): unknown {
  if (!(error instanceof FetchFailed))
    // what the network or the disk said; anything else is a bug
    return systemCode(error) === undefined ? error : new Failure(`${name}: ${reasonOf(error)}`);
  if (error.reason === "too large")
    return new Refused(`${name} has more bytes than VERSION or updates.max_size allow (endless data)`);
  if (error.reason === "wrong content")
    return new Refused(`${name}: the content is not the one that VERSION names by its SHA256`);
  return new Failure(`${name}: ${error.message}`);
}
