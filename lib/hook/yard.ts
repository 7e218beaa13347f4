import { readFile } from "node:fs/promises";
import { messageOf } from "../errors.ts";
import { createMask, type Mask } from "../mask.ts";
import { newCookie } from "../process-tree.ts";
import type { HookConfig, RepoConfig } from "./config.ts";
import { maskFile } from "./mask-file.ts";
import type { Metrics } from "./metrics.ts";
import type { Change } from "./payload.ts";
import { Queue } from "./queue.ts";
import { hasEnded, Records, recordOf, type RunRecord, type RunState } from "./records.ts";
import { type Outcome, Runner, type Running } from "./runner.ts";
import type { ServerLog } from "./server-log.ts";
import { type Entry, type Source, Spool } from "./spool.ts";

/** Exit code of `build` and `release` when another process holds the checkout's lock. */
const busyCode = 3;
const longestPause = 60_000;
const afterTrouble = 5000;

interface Parts {
  config: HookConfig;
  log: ServerLog;
  metrics: Metrics;
  /** Told of every run that ended well: its commit is what the repo stands at. */
  onGood?: (record: RunRecord) => Promise<void>;
}

/**
 * What is accepted, waits and runs. The spool knows what was accepted, the queue whose turn it is, the run
 * folders what became of it; this ties them together so that a kill between any two steps loses nothing:
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
  readonly #runner: Runner;
  readonly #active = new Map<
    string,
    { running?: Running; stop?: { why: string; state: RunState; by?: string } }
  >();
  readonly #busy = new Map<string, number>();
  readonly #onGood: (record: RunRecord) => Promise<void>;
  #timer: NodeJS.Timeout | undefined;
  #draining = false;
  #ending = false;
  #idle: (() => void)[] = [];

  private constructor(parts: Parts, records: Records, spool: Spool) {
    this.config = parts.config;
    this.mask = createMask(parts.config.secrets);
    this.#log = parts.log;
    this.#metrics = parts.metrics;
    this.#onGood = parts.onGood ?? (async () => {});
    this.records = records;
    this.spool = spool;
    this.#runner = new Runner({ records, maxLog: () => this.config.maxLog });
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
    for (const entry of waiting) await yard.#recover(entry);
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
  async accept(source: Source, changes: readonly Change[], payload: Uint8Array): Promise<Entry[]> {
    const entries = await this.spool.accept(source, changes, payload);
    for (const entry of entries) this.#enqueue(entry);
    this.schedule();
    // one long run must not keep a flood of superseded pushes on the disk
    if (this.spool.crowded) void this.tidy("");
    return entries;
  }

  #enqueue(entry: Entry): void {
    const result = this.queue.add(entry);
    if (result) void this.#supersede(result.superseded, result.by);
    const under = this.queue.runningOf(entry.repo);
    if (
      under &&
      entry.kind === "push" &&
      under.kind === "push" &&
      under.ref === entry.ref &&
      this.config.repos.get(entry.repo)?.cancel
    ) {
      this.#stop(under.id, {
        why: "a newer push came, and the repo says cancel: true",
        state: "cancelled",
        by: entry.id,
      });
    }
  }

  async #supersede(old: Entry, by: Entry): Promise<void> {
    this.#metrics.run("superseded", 0);
    const record = this.records.get(old.id);
    this.spool.supersede(old, by);
    if (!record) return;
    // it had begun once (busy, or interrupted) and has a folder
    record.state = "superseded";
    record.by = by.id;
    record.ended = new Date().toISOString();
    await this.#save(record);
  }

  /** Begin whatever may run now. */
  schedule(): void {
    if (this.#draining) return;
    for (;;) {
      const entry = this.queue.next(this.config.concurrency, Date.now(), (repo) =>
        this.config.repos.has(repo),
      );
      if (!entry) break;
      this.#guard(entry, this.#run(entry));
    }
    clearTimeout(this.#timer);
    const next = this.queue.nextTime();
    if (next !== undefined)
      this.#timer = setTimeout(() => this.schedule(), Math.max(10, next - Date.now()));
  }

  /** A bug in the handling of one run must end that run, not the server. */
  #guard(entry: Entry, work: Promise<void>): void {
    work.catch(async (error: unknown) => {
      this.#log.warn(`bug: ${(error as Error)?.stack ?? messageOf(error)}`);
      await this.#end(entry, this.records.get(entry.id) ?? recordOf(entry), "failed", {
        reason: "an error of hook-server; see its log",
      }).catch((again: unknown) => this.#log.warn(`bug: ${messageOf(again)}`));
    });
  }

  async #run(entry: Entry): Promise<void> {
    const repo = this.config.repos.get(entry.repo);
    if (!repo) return void this.queue.finish(entry, { notBefore: 0 });
    const record = this.records.get(entry.id) ?? recordOf(entry);
    this.#active.set(entry.id, {});
    let running: Running;
    try {
      await this.#prepare(entry, record, repo);
      running = await this.#runner.begin(record, repo, async () => {
        record.state = "running";
        await this.records.save(record, { durable: false });
      });
    } catch (error) {
      await this.#couldNotBegin(entry, record, error);
      return;
    }
    await this.#follow(entry, record, repo, running);
  }

  async #prepare(entry: Entry, record: RunRecord, repo: RepoConfig): Promise<void> {
    record.attempt += 1;
    record.state = "starting";
    record.started = new Date().toISOString();
    record.cookie = newCookie();
    for (const key of ["pid", "pidStart", "ended", "reason", "exit", "seconds"] as const)
      delete record[key];
    // what this run supersedes must be known as superseded, whatever happens from here on
    await this.spool.begin(entry);
    await this.records.create(record, await this.spool.payload(entry), repo.user);
    await this.records.save(record, { durable: false });
  }

  async #couldNotBegin(entry: Entry, record: RunRecord, error: unknown): Promise<void> {
    const code = (error as { code?: unknown }).code;
    if (
      typeof code === "string" &&
      /^E(?:NOSPC|DQUOT|IO|MFILE|NFILE|AGAIN|NOMEM|ROFS)$/.test(code)
    ) {
      this.#log.warn(
        `run ${entry.id} of ${entry.repo} cannot begin: ${messageOf(error)}; it waits`,
      );
      record.state = "waiting";
      record.reason = messageOf(error);
      this.#active.delete(entry.id);
      this.#putBack(entry, Date.now() + afterTrouble);
      return;
    }
    this.#runner.note(record, messageOf(error));
    await this.#end(entry, record, "failed", { reason: messageOf(error) });
  }

  #putBack(entry: Entry, notBefore: number): void {
    const result = this.queue.finish(entry, { notBefore });
    if (result) void this.#supersede(result.superseded, result.by);
    this.schedule();
    this.#wakeIdle();
  }

  /** Wait for the end of a run's processes, then for its `then` commands, and write down how it ended. */
  async #follow(entry: Entry, record: RunRecord, repo: RepoConfig, first: Running): Promise<void> {
    this.#log.info(
      `run ${record.id} of ${record.repo} begins: ${record.kind} ${record.ref} ${record.sha ?? ""}`.trimEnd(),
    );
    const outcome = await this.#outcomeOf(entry, first);
    try {
      await this.#conclude(entry, record, repo, outcome);
    } catch (error) {
      await this.#end(entry, record, "failed", { reason: messageOf(error) });
    }
  }

  async #outcomeOf(entry: Entry, running: Running): Promise<Outcome> {
    const active = this.#active.get(entry.id) ?? {};
    active.running = running;
    this.#active.set(entry.id, active);
    if (active.stop) running.stop(active.stop.why);
    else if (this.#ending) running.stop("the server ends");
    return await running.outcome;
  }

  async #conclude(
    entry: Entry,
    record: RunRecord,
    repo: RepoConfig,
    outcome: Outcome,
  ): Promise<void> {
    const stop = this.#active.get(entry.id)?.stop;
    if (outcome.how === "exit") record.exit = outcome.code;
    if (outcome.how === "stopped" && stop) {
      return await this.#end(entry, record, stop.state, { reason: stop.why, by: stop.by });
    }
    if (outcome.how === "stopped" || outcome.how === "lost")
      return await this.#interrupted(entry, record);
    if (outcome.how === "exit" && outcome.code === busyCode && record.phase === "run")
      return await this.#tryLater(entry, record);
    const good = outcome.how === "exit" && outcome.code === 0;
    if (!good) {
      const why = this.#runner.explain(outcome, repo);
      const where = record.phase === "then" ? "a then command: " : "";
      return await this.#end(entry, record, "failed", { reason: `${where}${why ?? "failed"}` });
    }
    await this.#afterwards(entry, record, repo);
  }

  async #afterwards(entry: Entry, record: RunRecord, repo: RepoConfig): Promise<void> {
    if (record.kind === "push" && record.phase === "run") {
      for (const command of repo.afterwards) {
        const running = await this.#runner.beginAfterwards(record, repo, command, () =>
          this.records.save(record, { durable: false }),
        );
        const outcome = await this.#outcomeOf(entry, running);
        if (outcome.how !== "exit" || outcome.code !== 0)
          return await this.#conclude(entry, record, repo, outcome);
      }
      if (record.phase !== "run") record.exit = 0;
    }
    await this.#onGood(record);
    await this.#end(entry, record, "succeeded", {});
  }

  async #tryLater(entry: Entry, record: RunRecord): Promise<void> {
    const tries = (this.#busy.get(entry.id) ?? 0) + 1;
    this.#busy.set(entry.id, tries);
    record.state = "waiting";
    record.reason = "the checkout is busy: another build holds its lock";
    await this.#save(record);
    this.#active.delete(entry.id);
    this.#log.info(`run ${record.id} of ${record.repo} waits: the checkout is busy`);
    this.#putBack(entry, Date.now() + Math.min(longestPause, 500 * 2 ** Math.min(tries, 10)));
  }

  async #interrupted(entry: Entry, record: RunRecord): Promise<void> {
    this.#markInterrupted(record);
    await this.#save(record);
    this.#active.delete(entry.id);
    this.#putBack(entry, 0);
  }

  #markInterrupted(record: RunRecord): void {
    record.state = "waiting";
    record.reason = "interrupted: the server ended while it ran; it runs again";
    record.interrupted = [...(record.interrupted ?? []), new Date().toISOString()];
    this.#runner.note(record, "interrupted by the end of the server; it runs again");
    this.#metrics.run("interrupted", 0);
    this.#log.warn(`run ${record.id} of ${record.repo} was interrupted; it runs again`);
  }

  async #end(
    entry: Entry,
    record: RunRecord,
    state: RunState,
    { reason, by }: { reason?: string | undefined; by?: string | undefined },
  ): Promise<void> {
    const now = new Date();
    const begun = Date.parse(record.started ?? record.accepted);
    const seconds = Math.max(0, now.getTime() - begun) / 1000;
    // a new object: nobody sees the end before it is on disk
    const ended = { ...record, state, reason, by, ended: now.toISOString(), seconds };
    this.#metrics.run(state, seconds);
    const what = `${state}${reason ? `: ${reason}` : ""} (${seconds.toFixed(1)} s)`;
    this.#runner.note(record, what);
    this.#log.info(`run ${record.id} of ${record.repo} ${what}`);
    await maskFile(this.records.path(record.id, "log"), this.mask).catch((error: unknown) =>
      this.#log.warn(
        `the log of ${record.id} was not looked through for secrets: ${messageOf(error)}`,
      ),
    );
    await this.#save(ended);
    this.spool.settle(entry, state, by);
    this.#busy.delete(entry.id);
    this.#active.delete(entry.id);
    this.queue.finish(entry);
    this.schedule();
    this.#wakeIdle();
    await this.tidy(entry.repo);
  }

  /** Keep a record; a full disk is waited for, since its end must be known before its delivery is let go. */
  async #save(record: RunRecord): Promise<void> {
    for (;;) {
      try {
        return await this.records.save(record);
      } catch (error) {
        this.#log.warn(
          `the record of run ${record.id} cannot be written: ${messageOf(error)}; tried again`,
        );
        if (this.#ending) return;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
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

  /** What a former server left: waiting, under way, ended unseen, or interrupted. */
  async #recover(entry: Entry): Promise<void> {
    const record = this.records.get(entry.id);
    const repo = this.config.repos.get(entry.repo);
    if (!record || record.state === "waiting") return this.#enqueue(entry);
    if (hasEnded(record.state)) return this.spool.settle(entry, record.state, record.by);
    if (repo && (await this.#runner.outlived(record))) {
      this.#log.info(`run ${record.id} of ${record.repo} outlived the former server; it goes on`);
      // the former server may have been killed before it could note that the run had begun
      if (record.state === "starting") {
        record.state = "running";
        await this.#save(record);
      }
      this.#active.set(entry.id, {});
      this.queue.adopt(entry);
      this.#guard(entry, this.#follow(entry, record, repo, this.#runner.adopt(record, repo)));
      return;
    }
    const outcome = await this.#runner.leftBehind(record);
    if (repo && outcome.how === "exit" && record.phase === "run") {
      // it ended while no server was there: go on from its exit code
      this.#active.set(entry.id, {});
      this.queue.adopt(entry);
      this.#guard(entry, this.#conclude(entry, record, repo, outcome));
      return;
    }
    await this.#runner.clear(record);
    this.#markInterrupted(record);
    await this.#save(record);
    this.#enqueue(entry);
  }

  /** Cancel a run that waits or is under way; false when it has ended or is not known. */
  async cancel(id: string): Promise<boolean> {
    if (this.#stop(id, { why: "cancelled by hand", state: "cancelled" })) return true;
    const entry = [...this.queue.entries()].find((each) => each.id === id);
    if (!entry) return false;
    const record = this.records.get(id) ?? recordOf(entry);
    const owner = this.config.repos.get(entry.repo)?.user;
    await this.records.create(record, await this.spool.payload(entry), owner);
    // its turn may have come meanwhile
    await this.spool.begin(entry);
    if (!this.queue.remove(entry)) return await this.cancel(id);
    await this.#end(entry, record, "cancelled", { reason: "cancelled by hand" });
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

  #stop(id: string, stop: { why: string; state: RunState; by?: string }): boolean {
    const active = this.#active.get(id);
    if (!active) return false;
    active.stop ??= stop;
    active.running?.stop(stop.why);
    return true;
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
    this.#ending = true;
    for (const { running } of this.#active.values()) running?.stop("the server ends");
  }

  #whenIdle(): Promise<void> {
    if (this.#active.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #wakeIdle(): void {
    if (this.#active.size > 0) return;
    for (const resolve of this.#idle.splice(0)) resolve();
  }
}
