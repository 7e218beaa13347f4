import { readFile } from "node:fs/promises";
import { messageOf } from "../core/errors.ts";
import { createMask, type Mask } from "../config/secrets.ts";
import type { HookConfig } from "./config.ts";
import type { Entry, Source } from "./entry.ts";
import { Executor } from "./executor.ts";
import type { Metrics } from "./metrics.ts";
import type { Change } from "./payload.ts";
import { Queue } from "./queue.ts";
import { Records, recordOf, type RunRecord } from "./records.ts";
import type { ServerLog } from "./server-log.ts";
import { Spool } from "./spool.ts";

interface Parts {
  config: HookConfig;
  log: ServerLog;
  metrics: Metrics;
  /** Told of every run that ended well: its commit is what the repo stands at. */
  onGood?: (record: RunRecord) => Promise<void>;
}

/**
 * What is accepted, waits and runs. The spool knows what was accepted, the queue whose turn it is, the
 * executor takes runs to their end, their folders tell what became of them; this ties them together so that a kill between any two steps loses nothing:
 * an entry leaves the spool only after its record has its end.
 */
export class Yard {
  config: HookConfig;
  mask: Mask;
  readonly queue = new Queue<Entry>();
  readonly records: Records;
  readonly spool: Spool;
  readonly #log: ServerLog;
  readonly #metrics: Metrics;
  readonly #executor: Executor;
  readonly onGood: (record: RunRecord) => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #idle: (() => void)[] = [];

  private constructor(parts: Parts, records: Records, spool: Spool) {
    this.config = parts.config;
    this.mask = createMask(parts.config.secrets);
    this.#log = parts.log;
    this.#metrics = parts.metrics;
    this.onGood = parts.onGood ?? (async () => {});
    this.records = records;
    this.spool = spool;
    this.#executor = new Executor(this, parts);
  }

  /** Open a state folder and go on where its last server stopped. The caller holds the folder's lock. */
  static async open(parts: Parts): Promise<Yard> {
    const warn = (text: string) => parts.log.warn(text);
    const records = new Records(parts.config.state);
    const [, { spool, waiting }] = await Promise.all([
      records.load(warn),
      Spool.open(parts.config.state, { warn }),
    ]);
    const yard = new Yard(parts, records, spool);
    for (const entry of waiting) if (await yard.#executor.recover(entry)) yard.#enqueue(entry);
    return yard;
  }

  get draining(): boolean {
    return this.#draining;
  }

  useConfig(config: HookConfig): void {
    this.config = config;
    this.mask = createMask(config.secrets);
    this.schedule();
  }

  /**
   * Take changes in; when this resolves they are on disk.
   * @throws what the file system threw: then nothing was taken.
   */
  accept(source: Source, changes: readonly Change[], payload: Uint8Array): Promise<Entry[]> {
    return this.spool.accept(source, changes, payload, (entry) => {
      this.#enqueue(entry);
      // while its repo has a run under way, nothing new can begin
      if (!this.queue.runningOf(entry.repo)) this.schedule();
      // one long run must not keep a flood of superseded pushes on the disk
      if (this.spool.crowded) void this.tidy("");
    });
  }

  #enqueue(entry: Entry): void {
    const result = this.queue.add(entry);
    if (result) this.#supersede(result.superseded, result.by);
    const under = this.queue.runningOf(entry.repo);
    if (
      under &&
      entry.kind === "push" &&
      under.kind === "push" &&
      under.ref === entry.ref &&
      this.config.repos.get(entry.repo)?.cancel
    ) {
      this.#executor.stop(under.id, {
        why: "a newer push came, and the repo says cancel: true",
        state: "cancelled",
        by: entry.id,
      });
    }
  }

  #supersede(old: Entry, by: Entry): void {
    this.#metrics.run("superseded", 0);
    this.spool.supersede(old, by);
    const record = this.records.get(old.id);
    if (!record) return;
    // it had begun once (busy, or interrupted) and has a folder
    record.state = "superseded";
    record.by = by.id;
    record.ended = new Date().toISOString();
    void this.#executor.ends.save(record);
  }

  /** Begin whatever may run now. */
  schedule(): void {
    if (this.#draining) return;
    for (;;) {
      const entry = this.queue.next(this.config.concurrency, Date.now(), (repo) =>
        this.config.repos.has(repo),
      );
      const repo = entry && this.config.repos.get(entry.repo);
      if (!repo) break;
      this.#executor.begin(entry, repo);
    }
    clearTimeout(this.#timer);
    const next = this.queue.nextTime();
    if (next !== undefined)
      this.#timer = setTimeout(() => this.schedule(), Math.max(10, next - Date.now()));
  }

  /** A run that began waits again, until `notBefore` at least. */
  putBack(entry: Entry, notBefore: number): void {
    const result = this.queue.finish(entry, { notBefore });
    if (result) this.#supersede(result.superseded, result.by);
    this.schedule();
    this.#wakeIdle();
  }

  /** A run has come to its end. */
  async finish(entry: Entry): Promise<void> {
    this.queue.finish(entry);
    this.schedule();
    this.#wakeIdle();
    await this.tidy(entry.repo);
  }

  /** Let go of what is settled, and remove old runs. */
  async tidy(repo?: string): Promise<void> {
    try {
      await this.spool.tidy();
      const old = this.records.old(repo, { keep: this.config.keep, maxAge: this.config.keepFor });
      if (old.length === 0) return;
      // a run whose folder is gone must not look like one that never began
      await this.spool.flush();
      await this.records.remove(old);
    } catch (error) {
      this.#log.warn(`tidying up failed: ${messageOf(error)}; tried again later`);
    }
  }

  /** Cancel a run that waits or is under way; false when it has ended or is not known. */
  async cancel(id: string): Promise<boolean> {
    if (this.#executor.stop(id, { why: "cancelled by hand", state: "cancelled" })) return true;
    const entry = [...this.queue.entries()].find((each) => each.id === id);
    if (!entry) return false;
    const record = this.records.get(id) ?? recordOf(entry);
    const owner = this.config.repos.get(entry.repo)?.user;
    await this.records.create(record, await this.spool.payload(entry), owner);
    // its turn may have come meanwhile
    await this.spool.begin(entry);
    if (!this.queue.remove(entry)) return await this.cancel(id);
    await this.#executor.ends.end(entry, record, "cancelled", { reason: "cancelled by hand" });
    return true;
  }

  /** Run an ended run once more, as a new run; undefined when its payload is not kept. */
  async rerun(id: string): Promise<string | undefined> {
    const record = this.records.get(id);
    if (!record) return undefined;
    const payload = await readFile(this.records.path(id, "payload.json")).catch(() => undefined);
    if (!payload) return undefined;
    const { repo, forge, event, kind, ref, sha, release } = record;
    const [entry] = await this.accept(
      { repo, forge, event },
      [{ kind, ref, sha, ...(release ? { release } : {}) }],
      payload,
    );
    return entry?.id;
  }

  /** No new runs; resolves when those under way have ended, or were ended after `patience` ms. */
  async drain(patience: number): Promise<void> {
    this.#draining = true;
    clearTimeout(this.#timer);
    const timer = setTimeout(() => this.endRuns(), patience);
    await this.#whenIdle();
    clearTimeout(timer);
    await this.spool.close();
  }

  /** End what is under way; it runs again at the next start. */
  endRuns(): void {
    this.#draining = true;
    this.#executor.endAll();
  }

  #whenIdle(): Promise<void> {
    if (this.#executor.count === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #wakeIdle(): void {
    if (this.#executor.count > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
