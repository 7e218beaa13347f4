import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { existsSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { atEnd } from "../core/at-exit.ts";
import { exitCodeOf, systemCode } from "../core/errors.ts";
import {
  createFetcher,
  type Fetched,
  FetchFailed,
  type FetchRequest,
  reasonOf,
} from "../fetch/fetch.ts";
import { type Entry, shownUrl } from "./manifest.ts";
import { type Folders, isFileAt, partialFolder, removeEmptyFolders } from "./paths.ts";
import { hashFile, moveToOld, placeFile } from "./place.ts";
import type { Step } from "./plan.ts";
import { addSaved, Journal, type Record, recordableTag, type Saved } from "./record.ts";
import type { Report } from "./report.ts";
import { Slots } from "./slots.ts";

/** What a plan asks for, done: files recognised, checked, fetched and put in their places, or moved to `old/`. */

export interface WorkOptions {
  /** Files at once; undefined: as many as suits their size. */
  jobs?: number | undefined;
  perHost?: number | undefined;
  /** Bytes of one file. */
  maxSize: number;
  /** Milliseconds. */
  stall: number;
  retries: number;
  signal: AbortSignal;
}

/** What came of one step. */
interface Obtained {
  saved: Saved;
  result: "fetched" | "kept";
  old?: string;
  reason?: string;
  /** false: a new file that the disk may not have yet. */
  synced?: boolean;
}

type Limits = Pick<FetchRequest, "maxSize" | "signal" | "onProgress" | "onRetry">;

export class Work {
  readonly #folders: Folders;
  readonly #record: Record;
  readonly #options: WorkOptions;
  readonly #report: Report;
  readonly #fetcher: ReturnType<typeof createFetcher>;
  readonly #slots: Slots;
  readonly #journal: Journal;
  /** Partial files that a later run can continue. */
  readonly #resumable = new Set<string>();
  #diskFull = false;

  /** @param record is kept up to date. */
  constructor(folders: Folders, record: Record, options: WorkOptions, report: Report) {
    this.#folders = folders;
    this.#record = record;
    this.#options = options;
    this.#report = report;
    this.#fetcher = createFetcher(options);
    this.#slots = new Slots(options);
    this.#journal = new Journal(folders.root);
  }

  /** Carry out all steps; what failed is in the report. */
  async obtainAll(steps: readonly Step[]): Promise<void> {
    const { signal } = this.#options;
    // each request listens to it, and there are many at once
    setMaxListeners(0, signal);
    const pending = steps.filter(({ action }) => action !== "keep");
    for (const { entry, action } of steps)
      if (action === "keep") this.#report.add({ path: entry.path, result: "kept" });
    this.#report.begin(pending.length);
    const jobs = pending.map((step) => {
      const { host } = new URL(step.entry.url);
      return { host, run: () => this.obtainOne(step, host) };
    });
    const working = this.#slots.runAll(jobs).finally(() => {
      this.#fetcher.close();
      this.#journal.close();
      this.tidy();
    });
    // a signal ends the requests; the files that they leave must be tidied before the script ends
    const forget = atEnd(() => working);
    try {
      await working;
    } finally {
      forget();
    }
    signal.throwIfAborted();
  }

  /** What the manifest no longer lists goes to `old/`. */
  async moveUnlisted(paths: readonly string[]): Promise<void> {
    const { root } = this.#folders;
    for (const path of paths) {
      if (isFileAt(root, path)) {
        const old = await moveToOld(this.#folders, path, this.#record.saved.get(path));
        removeEmptyFolders(root, path);
        this.#report.add({ path, result: "moved", old });
      }
      this.#record.saved.delete(path);
    }
  }

  /** @returns the bytes that came. Never throws: one failed line does not stop the others. */
  private async obtainOne(step: Step, host: string): Promise<number> {
    const { signal, maxSize } = this.#options;
    if (signal.aborted) return 0;
    const { path, where, version } = step.entry;
    const running = this.#report.start(path);
    try {
      if (this.#diskFull) throw new FetchFailed("not tried: no space left on the disk");
      const before = this.#record.saved.get(path);
      const { saved, result, old, reason, synced } = await this.obtain(step, before, {
        maxSize,
        signal,
        onProgress: (done, total) => this.#report.advance(running, done, total),
        onRetry: (error, wait) => {
          if (error instanceof FetchFailed && (error.status === 429 || error.status === 503))
            this.#slots.slower(host);
          this.#report.note(`${path}: ${reasonOf(error)}; again in ${(wait / 1000).toFixed(1)} s`);
        },
      });
      if (saved !== before) this.#journal.add(saved);
      addSaved(this.#record, saved, { synced: synced !== false });
      const { size } = saved;
      this.#report.finish(running, { path, where, version, result, old, reason, size });
      return result === "fetched" ? size : 0;
    } catch (error) {
      this.#resumable.add(partialName(path));
      if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) this.#diskFull = true;
      // an expected error says it in words; a bug shows where it is
      const expected = systemCode(error) !== undefined || exitCodeOf(error) !== undefined;
      const reason = expected ? reasonOf(error) : String((error as Error)?.stack ?? error);
      if (!signal.aborted)
        this.#report.finish(running, { path, where, version, result: "failed", reason });
      return 0;
    }
  }

  private async obtain(
    { entry, action, isThere }: Step,
    before: Saved | undefined,
    limits: Limits,
  ): Promise<Obtained> {
    const adopted = action === "adopt" ? await this.adopt(entry, before) : undefined;
    if (adopted) return adopted;
    if (action === "check" && before) return await this.check(entry, before, limits);
    // what replaces a file must be on the disk first; a new one can be fetched again
    return await this.fetchAndPlace(entry, before, { ...limits, flush: isThere });
  }

  /** Recognise a file without a record: by its pin, else by size and time as the server tells them. */
  private async adopt(entry: Entry, before: Saved | undefined): Promise<Obtained | undefined> {
    const target = join(this.#folders.root, entry.path);
    const info = lstatSync(target);
    const keep = (sha256: string, about: Pick<Fetched, "etag" | "modified">): Obtained => ({
      saved: savedOf(entry, { ...about, sha256, size: info.size }),
      result: "kept",
      reason: "recorded anew",
    });
    if (entry.sha256 !== undefined)
      return (await hashFile(target)) === entry.sha256 ? keep(entry.sha256, {}) : undefined;
    // the record knows another size: this file is not what was saved, whatever the server says
    if (before !== undefined || !/^https?:/.test(entry.url)) return undefined;
    try {
      const { size, ...about } = await this.#fetcher.head(entry.url, this.#options.signal);
      const known = size === info.size && seconds(about.modified) === seconds(info.mtimeMs);
      return known ? keep(await hashFile(target), about) : undefined;
    } catch {
      // whatever is wrong, the fetch will say it better
      return undefined;
    }
  }

  /** Hash the file again and ask the server whether it has another. */
  private async check(entry: Entry, before: Saved, limits: Limits): Promise<Obtained> {
    if ((await hashFile(join(this.#folders.root, entry.path))) !== before.sha256) {
      const fetched = await this.fetchAndPlace(entry, before, limits);
      return { ...fetched, reason: "its bytes had changed here" };
    }
    // pinned content cannot have a newer one
    if (entry.sha256 !== undefined) return { saved: before, result: "kept" };
    const { tag } = before;
    const unless = tag?.startsWith("lm:")
      ? { modified: Number(tag.slice(3)) * 1000 }
      : { etag: tag };
    return await this.fetchAndPlace(entry, before, { ...limits, unless });
  }

  private async fetchAndPlace(
    entry: Entry,
    before: Saved | undefined,
    request: Limits & Pick<FetchRequest, "unless" | "flush">,
  ): Promise<Obtained> {
    const { url, path, sha256 } = entry;
    const to = this.#folders.fileAt(join(partialFolder, partialName(path)));
    const fetched = await this.#fetcher.toFile({ ...request, url, to, name: path, sha256 });
    if (!fetched.changed && before) return { saved: before, result: "kept" };
    const { same, old } = await placeFile(this.#folders, entry, to, fetched.sha256, before);
    return {
      saved: savedOf(entry, fetched),
      result: same ? "kept" : "fetched",
      ...(old === undefined ? {} : { old }),
      synced: request.flush !== false,
    };
  }

  /** Remove the partial files that no run will continue. */
  private tidy(): void {
    const folder = join(this.#folders.root, partialFolder);
    if (!existsSync(folder)) return;
    const names = readdirSync(folder);
    for (const name of names) {
      const key = name.replace(/\.json$/, "");
      const isResumable = this.#resumable.has(key) || this.#options.signal.aborted;
      if (!isResumable || !names.includes(`${key}.json`))
        rmSync(join(folder, name), { force: true });
    }
    if (readdirSync(folder).length === 0) rmSync(folder, { recursive: true });
  }
}

/** The name of a path's partial file: the same in every run. */
function partialName(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 32);
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.floor(ms / 1000);
}

function savedOf(
  { path, url, version }: Entry,
  { sha256, size, etag, modified }: Omit<Fetched, "changed">,
): Saved {
  const time = `${new Date().toISOString().slice(0, 19)}Z`;
  const saved: Saved = { path, sha256, size, time, url: shownUrl(url) };
  const tag = recordableTag(etag, modified);
  if (version !== undefined) saved.version = version;
  if (tag !== undefined) saved.tag = tag;
  return saved;
}
