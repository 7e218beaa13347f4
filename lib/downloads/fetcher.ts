import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { existsSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { exitCodeOf, systemCode } from "../core/errors.ts";
import { createFetcher, type Fetched, FetchFailed, type FetchRequest, reasonOf } from "../fetch/fetch.ts";
import { type Entry, shownUrl } from "./manifest.ts";
import { type Folders, hashFile, partialFolder } from "./paths.ts";
import type { Step } from "./plan.ts";
import { type Record, recordableTag, type Saved } from "./record.ts";

/** The steps of a plan, done: files recognised, checked, fetched, put in their places and recorded. */

/** Bytes of one file, and milliseconds. */
type FetcherOptions = { maxSize: number; stall: number; retries: number; signal: AbortSignal };

/** What became of one file. */
export interface FileResult {
  path: string;
  /** fetched: new bytes came; kept: what was there is right; moved: no longer listed; failed. */
  result: "fetched" | "kept" | "moved" | "failed";
  /** Bytes of the file. */
  size?: number;
  version?: string | undefined;
  /** Where the one before is now, under `downloads/`. */
  old?: string | undefined;
  /** Why it failed, or what was found. */
  reason?: string | undefined;
  where?: string;
}

type Told = Pick<FetchRequest, "onProgress" | "onRetry"> & {
  /** An address did not give the file; the next one is tried. */
  onMirror?: (error: unknown, next: string) => void;
};
type Obtained = Pick<FileResult, "result" | "old" | "reason"> & {
  saved: Saved;
  /** false: a new file that the disk may not have yet. */
  synced?: boolean;
};

export class Fetcher {
  readonly #folders: Folders;
  readonly #record: Record;
  readonly #options: FetcherOptions;
  readonly #web: ReturnType<typeof createFetcher>;
  /** Partial files that a later run can continue. */
  readonly #resumable = new Set<string>();
  #diskFull = false;

  /** @param record is kept up to date. */
  constructor(folders: Folders, record: Record, options: FetcherOptions) {
    [this.#folders, this.#record, this.#options] = [folders, record, options];
    this.#web = createFetcher(options);
    // each request listens to it, and there are many at once
    setMaxListeners(0, options.signal);
  }

  /** Do one step. Throws nothing: a line that failed does not stop the others. */
  async obtain(step: Step, told: Told): Promise<FileResult> {
    const { path, where, version } = step.entry;
    try {
      if (this.#diskFull) throw new FetchFailed("not tried: no space left on the disk");
      const { saved, synced = true, result, old, reason } = await this.bring(step, told);
      if (saved !== step.before) this.#record.add(saved, { synced });
      return { path, where, version, result, old, reason, size: saved.size };
    } catch (error) {
      this.#resumable.add(partialName(path));
      if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) this.#diskFull = true;
      // an expected error says it in words; a bug shows where it is
      const expected = systemCode(error) !== undefined || exitCodeOf(error) !== undefined;
      const reason = expected ? reasonOf(error) : String((error as Error)?.stack ?? error);
      return { path, where, version, result: "failed", reason };
    }
  }

  private async bring({ entry, action, isThere, before }: Step, told: Told): Promise<Obtained> {
    // what replaces a file must be on the disk first; a new one can be fetched again
    const request = { ...told, flush: isThere };
    if (action === "adopt") return (await this.adopt(entry, before)) ?? (await this.fetch(entry, before, request));
    if (action !== "check" || !before) return await this.fetch(entry, before, request);
    if ((await hashFile(join(this.#folders.root, entry.path))) !== before.sha256)
      return { ...(await this.fetch(entry, before, request)), reason: "its bytes had changed here" };
    // pinned content cannot have a newer one
    if (entry.sha256 !== undefined) return { saved: before, result: "kept" };
    const { tag } = before;
    const unless = tag?.startsWith("lm:") ? { modified: Number(tag.slice(3)) * 1000 } : { etag: tag };
    return await this.fetch(entry, before, { ...request, unless });
  }

  /** Recognise a file without a record: by its pin, else by size and time as the server tells them. */
  private async adopt(entry: Entry, before: Saved | undefined): Promise<Obtained | undefined> {
    const target = join(this.#folders.root, entry.path);
    const { size, mtimeMs } = lstatSync(target);
    const keep = (sha256: string, about: Pick<Fetched, "etag" | "modified">): Obtained => ({
      saved: savedOf(entry, { ...about, sha256, size }),
      result: "kept",
      reason: "recorded anew",
    });
    if (entry.sha256 !== undefined)
      return (await hashFile(target)) === entry.sha256 ? keep(entry.sha256, {}) : undefined;
    // the record knows another size: this file is not what was saved, whatever the server says
    if (before !== undefined || !/^https?:/.test(entry.url)) return undefined;
    try {
      const about = await this.#web.head(entry.url, this.#options.signal);
      const isKnown = about.size === size && seconds(about.modified) === seconds(mtimeMs);
      return isKnown ? keep(await hashFile(target), about) : undefined;
    } catch {
      // whatever is wrong, the fetch will say it better
      return undefined;
    }
  }

  private async fetch(
    entry: Entry,
    before: Saved | undefined,
    request: Told & Pick<FetchRequest, "unless" | "flush">,
  ): Promise<Obtained> {
    const { path, sha256 } = entry;
    const { maxSize, signal } = this.#options;
    const to = this.#folders.fileAt(join(partialFolder, partialName(path)));
    const from = (url: string) => this.#web.toFile({ ...request, url, to, name: path, sha256, maxSize, signal });
    let fetching = from(entry.url);
    for (const mirror of entry.mirrors ?? [])
      fetching = fetching.catch((error: unknown) => {
        if (signal.aborted || ["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) throw error;
        request.onMirror?.(error, mirror);
        return from(mirror);
      });
    const fetched = await fetching;
    if (!fetched.changed && before) return { saved: before, result: "kept" };
    const { same, old } = await this.#folders.place(entry, to, fetched.sha256, before);
    const result = same ? "kept" : "fetched";
    return { saved: savedOf(entry, fetched), result, old, synced: request.flush !== false };
  }

  /** Close the connections, and remove the partial files that no run will continue. */
  close(): void {
    this.#web.close();
    const folder = join(this.#folders.root, partialFolder);
    if (!existsSync(folder)) return;
    const names = readdirSync(folder);
    for (const name of names) {
      const key = name.replace(/\.json$/, "");
      const isResumable = this.#resumable.has(key) || this.#options.signal.aborted;
      if (!isResumable || !names.includes(`${key}.json`)) rmSync(join(folder, name), { force: true });
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

function savedOf({ path, url, version }: Entry, { sha256, size, etag, modified }: Omit<Fetched, "changed">): Saved {
  const time = `${new Date().toISOString().slice(0, 19)}Z`;
  return { path, sha256, size, time, url: shownUrl(url), version, tag: recordableTag(etag, modified) };
}
