import { closeSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, messageOf, Refused, UsageError } from "../core/errors.ts";
import { createFetcher, type Fetcher } from "../fetch/fetch.ts";
import { type PublicKey, readPublicKeys } from "../openpgp/keys.ts";
import { Signatures, type VerifiedSignature } from "../openpgp/verify.ts";
import { isMissing, minBytes, MinimumRate, toRefused } from "./retrieval.ts";
import {
  type CurrentLine,
  maxVersionFile,
  parseVersionFile,
  type VersionFile,
} from "./version-file.ts";
import { type FetchedArchive, type VerifiedArchive, verifyFetched } from "./verify.ts";

export { fileNotation, type VerifiedArchive, verifyBytes } from "./verify.ts";

/**
 * A web folder with releases, as a client sees it: VERSION, archives, signatures, the public key.
 * Nothing read here is believed before the pinned key's signature over it was accepted.
 */
export interface WebFolderOptions {
  /** A folder of ours for what is being fetched; broken downloads stay in it and are continued. */
  temporary: string;
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

/** A VERSION file and how it was signed. */
export interface SignedVersion {
  file: VersionFile;
  /** Undefined: there is no VERSION.sig. */
  signature?: VerifiedSignature | undefined;
  etag?: string | undefined;
}

const smallFile = 64 * 1024;
type SmallFile = { data: Buffer; etag: string | undefined };

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

/** Several folders may share one temporary folder. */
let count = 0;

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
      const got = await this.changed("VERSION", maxVersionFile, attempt === 1 ? etag : undefined);
      if (got === "unchanged") return undefined;
      if (!got) throw new Failure(`${this.name("VERSION")}: there is no such file`);
      const sig = await this.small("VERSION.sig", smallFile);
      try {
        const { data } = got;
        const file = parseVersionFile(data.toString("utf8"), this.name("VERSION"));
        const signature = await verify({ file, data, signature: sig?.data });
        return { file, signature, etag: got.etag };
      } catch (error) {
        if (!(error instanceof Refused) || attempt === 3) throw error;
        const { signal } = this.#options;
        await sleep(150 * attempt, undefined, signal && { signal });
      }
    }
  }

  /** The keys in the folder's KEY.asc, none when there is no such file; undefined: it is as it was when it had this ETag. */
  async keys(etag?: string): Promise<{ keys: PublicKey[]; etag?: string | undefined } | undefined> {
    const got = await this.changed("KEY.asc", 1024 * 1024, etag);
    if (got === "unchanged") return undefined;
    const keys = got ? await readPublicKeys(got.data, this.name("KEY.asc")) : [];
    return { keys, etag: got?.etag };
  }

  /** The VERSION that made a set of keys, and its signature; undefined what is not there. */
  async keyStep(serial: number): Promise<{ data?: Buffer; signature?: Buffer }> {
    const step = await this.small(`keys/${serial}`, maxVersionFile);
    const signature = await this.small(`keys/${serial}.sig`, smallFile);
    return { ...step, ...(signature && { signature: signature.data }) };
  }

  /**
   * Fetch an archive and its signature, and check both, and SHA256 and SIZE where VERSION has them.
   * Bytes that are not the right ones are fetched afresh once.
   * @throws {Refused} when they are still not.
   */
  async archive(line: CurrentLine, keys: readonly PublicKey[]): Promise<VerifiedArchive> {
    const name = this.name(line.file);
    if (line.size !== undefined && line.size > this.#options.maxSize)
      throw new Refused(
        `${name} is said to have ${line.size} bytes; updates.max_size allows ${this.#options.maxSize}`,
      );
    for (let attempt = 1; ; attempt++) {
      const signature = await this.small(`${line.file}.sig`, smallFile);
      if (!signature) throw new Refused(`${name} has no signature (${line.file}.sig)`);
      const signatures = await Signatures.read(signature.data, this.name(`${line.file}.sig`));
      const { path, fetched } = await this.download(line);
      try {
        return await verifyFetched({ path, fetched, line, signatures, keys, name });
      } catch (error) {
        await rm(path, { force: true });
        if (!(error instanceof Refused) || attempt === 2) throw error;
        this.#options.note?.(`${messageOf(error)}; fetching it afresh`);
      }
    }
  }

  private async download(line: CurrentLine): Promise<{ path: string; fetched: FetchedArchive }> {
    const { temporary, maxSize, timeout, signal, onProgress } = this.#options;
    const name = this.name(line.file);
    const to = join(temporary, line.file);
    const rate = new MinimumRate(timeout, signal);
    try {
      const fetched = await this.#fetcher.toFile({
        url: new URL(line.file, this.url).href,
        to,
        maxSize: Math.min(line.size ?? maxSize, maxSize),
        // what is unpacked from it is brought to the disk, not the archive
        flush: false,
        handOver: true,
        ...(line.sha256 === undefined ? {} : { sha256: line.sha256 }),
        signal: rate.signal,
        onProgress: (done, total) => {
          rate.progress(done);
          onProgress?.(done, total ?? line.size);
        },
      });
      const { fd, size } = fetched;
      if (fd === undefined) throw new Error("the archive was not handed over");
      if (line.size !== undefined && size !== line.size) {
        closeSync(fd);
        throw new Refused(`${name} has ${size} bytes, VERSION says ${line.size}`);
      }
      return { path: to, fetched: { ...fetched, fd } };
    } catch (error) {
      signal?.throwIfAborted();
      if (rate.signal.aborted)
        throw new Refused(
          `${name} comes slower than ${minBytes} bytes in ${timeout / 1000} s (slow retrieval)`,
        );
      const reason = toRefused(error, name);
      // what was refused is not continued
      if (reason instanceof Refused)
        for (const path of [to, `${to}.json`]) await rm(path, { force: true });
      throw reason;
    } finally {
      rate.stop();
    }
  }

  private async small(file: string, limit: number): Promise<SmallFile | undefined> {
    const got = await this.changed(file, limit);
    return got === "unchanged" ? undefined : got;
  }

  /** A small file, unless it is as it was when it had this ETag; undefined when it is not there. */
  private async changed(
    file: string,
    limit: number,
    etag?: string,
  ): Promise<SmallFile | "unchanged" | undefined> {
    const { temporary, timeout, signal } = this.#options;
    const to = join(temporary, `.${file.replace("/", "-")}.${process.pid}.${++count}`);
    const deadline = AbortSignal.timeout(timeout);
    try {
      const fetched = await this.#fetcher.toFile({
        url: new URL(file, this.url).href,
        to,
        name: file,
        maxSize: limit,
        flush: false,
        ...(etag === undefined ? {} : { unless: { etag } }),
        signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
      });
      if (!fetched.changed) return "unchanged";
      return { data: await readFile(to), etag: fetched.etag };
    } catch (error) {
      signal?.throwIfAborted();
      if (deadline.aborted)
        throw new Refused(
          `${this.name(file)} did not come within ${timeout / 1000} s (slow retrieval)`,
        );
      if (isMissing(error, this.url)) return undefined;
      throw toRefused(error, this.name(file));
    } finally {
      await rm(to, { force: true });
      await rm(`${to}.json`, { force: true });
    }
  }
}
