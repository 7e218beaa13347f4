import { setMaxListeners } from "node:events";
import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../core/id.ts";
import { atEnd } from "../core/at-exit.ts";
import { exitCodeOf, Failure, systemCode } from "../core/errors.ts";
import { createFetcher, FetchFailed, type Fetcher, reasonOf } from "../fetch/fetch.ts";
import { removeStaleTemporaries } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { busyMeter } from "./busy.ts";
import { hashFile } from "./hash.ts";
import type { Entry } from "./manifest.ts";
import { obtain, partialName } from "./obtain.ts";
import {
  Folders,
  lockName,
  lookAt,
  lookAtAll,
  partialFolder,
  removeEmptyFolders,
} from "./paths.ts";
import { moveToOld } from "./place.ts";
import type { Wanted } from "./read.ts";
import type { Report } from "./report.ts";
import { type DownloadsOptions, makePlan, type Plan, type Step } from "./plan.ts";
import { Slots } from "./slots.ts";
import { doubtful, Journal, type Record, readStore, writeStore } from "./store.ts";

/**
 * The part of a run that changes something: under the lock, with the network.
 * @returns whether all is well.
 */
export async function work(
  root: string,
  entries: Entry[],
  options: DownloadsOptions,
  report: Report,
): Promise<boolean> {
  try {
    return await workLocked(root, entries, options, report);
  } catch (error) {
    if (systemCode(error) === undefined || options.signal.aborted) throw error;
    // not a file's own failure: the folder itself cannot be written, or the record cannot
    const { path = root } = error as { path?: string };
    throw new Failure(
      `${path}: ${reasonOf(error)}; make room or mend its permissions, and run again`,
    );
  }
}

async function workLocked(
  root: string,
  entries: Entry[],
  options: DownloadsOptions,
  report: Report,
): Promise<boolean> {
  const { wait, signal } = options;
  // each request listens to it, and there are many at once
  setMaxListeners(0, signal);
  const fetcher = createFetcher(options);
  const lock = await acquireLock(join(root, lockName), { what: "downloads", wait, signal });
  const working = new Work(root, options, report, fetcher).carryOut(entries);
  // a signal ends the requests; the files that they leave must be tidied before the script goes
  const forget = atEnd(() => working.then(() => {}).catch(() => {}));
  try {
    return await working;
  } finally {
    forget();
    fetcher.close();
    lock.release();
  }
}

class Work {
  readonly #root: string;
  readonly #options: DownloadsOptions;
  readonly #report: Report;
  readonly #fetcher: Fetcher;
  readonly #slots: Slots;
  readonly #folders: Folders;
  readonly #journal: Journal;
  readonly #touched = new Set<string>();
  /** Partial files that a later run can go on with. */
  readonly #left = new Set<string>();
  #record: Record = { saved: new Map(), wrong: [], journal: new Map() };
  #diskFull = false;

  constructor(root: string, options: DownloadsOptions, report: Report, fetcher: Fetcher) {
    this.#root = root;
    this.#options = options;
    this.#report = report;
    this.#fetcher = fetcher;
    this.#slots = new Slots({ ...options, isBusy: busyMeter() });
    this.#folders = new Folders(root);
    this.#journal = new Journal(root);
  }

  async carryOut(entries: Entry[]): Promise<boolean> {
    const { signal, prune } = this.#options;
    await removeStaleTemporaries(this.#root);
    this.#record = readStore(this.#root);
    const lost = await this.#lostInRestart();
    await this.#believeJournal();
    const plan = makePlan(this.#look(entries), this.#record, this.#options);
    for (const step of plan.steps) if (lost.has(step.entry.path)) step.action = "fetch";
    if (this.#record.wrong.length > 0)
      this.#report.note(
        `saved.txt: damaged in line ${this.#record.wrong.slice(0, 9).join(", ")}; those files are looked at anew`,
      );
    mkdirSync(join(this.#root, partialFolder), { recursive: true });
    try {
      await this.#obtainAll(plan.steps);
      signal.throwIfAborted();
      if (prune) await this.#prune(plan);
    } finally {
      this.#journal.close();
      this.#tidy();
    }
    await writeStore(this.#root, this.#record, this.#touched);
    this.#report.end();
    return this.#report.outcomes.every(({ result }) => result !== "failed");
  }

  /** What is there now: whoever held the lock until now may have changed it. */
  #look(entries: Entry[]): Wanted {
    const sizes = new Map<string, number>();
    const paths = entries.map(({ path }) => path);
    for (const [path, found] of lookAtAll(this.#root, paths))
      if (typeof found === "number") sizes.set(path, found);
    return { entries, sizes };
  }

  /** What a killed run had noted is taken over where the bytes on the disk bear it out. */
  async #believeJournal(): Promise<void> {
    for (const saved of this.#record.journal.values()) {
      if (lookAt(this.#root, saved.path, new Map()) !== saved.size) continue;
      const hash = await hashFile(join(this.#root, saved.path));
      if (hash !== saved.sha256) continue;
      this.#record.saved.set(saved.path, saved);
      this.#record.unflushed ??= { boot: bootId(), since: saved.time };
    }
  }

  /** After a restart of the machine: files that had not reached the disk before it. */
  async #lostInRestart(): Promise<Set<string>> {
    const lost = new Set<string>();
    for (const { path, sha256 } of doubtful(this.#record)) {
      if (typeof lookAt(this.#root, path, new Map()) !== "number") continue;
      if ((await hashFile(join(this.#root, path))) !== sha256) lost.add(path);
    }
    if (this.#record.unflushed?.boot !== bootId()) delete this.#record.unflushed;
    return lost;
  }

  async #obtainAll(steps: Step[]): Promise<void> {
    const asked = steps.filter(({ action }) => action !== "keep");
    for (const { entry, action } of steps)
      if (action === "keep") this.#report.add({ path: entry.path, result: "kept" });
    this.#report.begin(asked.length);
    await this.#slots.runAll(
      asked.map((step) => {
        const host = new URL(step.entry.url).host;
        return { host, run: () => this.#obtainOne(step, host) };
      }),
    );
  }

  /** @returns the bytes that came. Never throws: one failed line does not stop the others. */
  async #obtainOne(step: Step, host: string): Promise<number> {
    const { signal, maxSize } = this.#options;
    if (signal.aborted) return 0;
    const { path, where, version } = step.entry;
    const running = this.#report.start(path);
    try {
      if (this.#diskFull) throw new FetchFailed("not tried: no space left on the disk");
      const { saved, result, old, reason, touched, unflushed } = await obtain(
        step,
        this.#record.saved.get(path),
        {
          folders: this.#folders,
          fetcher: this.#fetcher,
          request: {
            maxSize,
            signal,
            onProgress: (done, total) => this.#report.advance(running, done, total),
            onRetry: (error, wait) => {
              if (error instanceof FetchFailed && (error.status === 429 || error.status === 503))
                this.#slots.slower(host);
              this.#report.note(
                `${path}: ${reasonOf(error)}; again in ${(wait / 1000).toFixed(1)} s`,
              );
            },
          },
        },
      );
      if (this.#record.saved.get(path) !== saved) this.#journal.add(saved);
      if (unflushed) this.#record.unflushed ??= { boot: bootId(), since: saved.time };
      this.#record.saved.set(path, saved);
      for (const folder of touched) this.#touched.add(folder);
      const { size } = saved;
      this.#report.finish(running, { path, where, version, result, old, reason, size });
      return result === "fetched" ? size : 0;
    } catch (error) {
      this.#left.add(partialName(path));
      if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) this.#diskFull = true;
      // an expected error says it in words; a bug shows where it is
      const expected = systemCode(error) !== undefined || exitCodeOf(error) !== undefined;
      const reason = expected ? reasonOf(error) : String((error as Error)?.stack ?? error);
      if (!signal.aborted)
        this.#report.finish(running, { path, where, version, result: "failed", reason });
      return 0;
    }
  }

  /** What the manifest no longer lists goes to `old/`. */
  async #prune({ unlisted }: Plan): Promise<void> {
    for (const path of unlisted) {
      const before = this.#record.saved.get(path);
      if (typeof lookAt(this.#root, path, new Map()) === "number") {
        const { moved, touched } = await moveToOld(this.#folders, path, before);
        for (const folder of touched) this.#touched.add(folder);
        removeEmptyFolders(this.#root, path);
        this.#report.add({ path, result: "moved", ...(moved === undefined ? {} : { old: moved }) });
      }
      this.#record.saved.delete(path);
    }
  }

  /** Remove partial files that nobody will go on with. */
  #tidy(): void {
    const folder = join(this.#root, partialFolder);
    const names = readdirSync(folder);
    for (const name of names) {
      const key = name.replace(/\.json$/, "");
      const continued =
        names.includes(`${key}.json`) && (this.#left.has(key) || this.#options.signal.aborted);
      if (!continued) rmSync(join(folder, name), { force: true });
    }
    if (readdirSync(folder).length === 0) rmSync(folder, { recursive: true });
  }
}
