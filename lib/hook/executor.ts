import { setTimeout as sleep } from "node:timers/promises";
import { exitCodeOf, messageOf, systemCode } from "../core/errors.ts";
import { newCookie } from "../exec/process-tree.ts";
import type { RepoConfig, Settings } from "./config.ts";
import { checkoutBranch } from "./checkout.ts";
import { hasEnded, recordOf, type Records, type RunRecord, type RunState } from "./records.ts";
import { maskFile, noteInLog } from "./run-log.ts";
import { type Outcome, Runner, type Running } from "./runner.ts";
import type { Entry } from "./entry.ts";
import type { Metrics, ServerLog } from "./telemetry.ts";

/** Exit code of `build` and `release` when another process holds the checkout's lock. */
const busyCode = 3;
/** Milliseconds after which a run is tried again that could not be started. */
const retryDelay = 5000;
const maxBusyDelay = 60_000;
/** What the system says when it lacks something for a while: a run that meets it waits. */
const shortages = new Set("ENOSPC EDQUOT EIO EMFILE ENFILE EAGAIN ENOMEM EROFS".split(" "));

/** What an attempt at a run came to. */
export type Result =
  /** The run has ended, and its record on disk says how. */
  | { readonly ended: RunRecord }
  /** It waits for another attempt, which must not be before this time (ms). */
  | { readonly notBefore: number };

/** Why a run is ended before its time, and the state that it has then. */
interface Stop {
  readonly why: string;
  readonly state: RunState;
  readonly by?: string;
}

interface ExecutorParts {
  settings: Settings;
  records: Records;
  log: ServerLog;
  metrics: Metrics;
  /** An entry's payload; what the entry superseded is on disk as superseded before this resolves. */
  payloadOf: (entry: Entry) => Promise<Uint8Array>;
  /** Told of each run that succeeded, before its record says so. */
  onSuccess: (record: RunRecord) => Promise<void>;
}

/**
 * Takes a run from its start to its end, and writes every step down before the next: whatever instant the
 * server is killed at, the record tells the next one where to go on.
 */
export class Executor {
  readonly #parts: ExecutorParts;
  readonly #runner: Runner;
  readonly #active = new Map<string, { running?: Running; stop?: Stop }>();
  /** How often a run found its checkout busy. */
  readonly #busy = new Map<string, number>();
  #stopping = false;

  constructor(parts: ExecutorParts) {
    this.#parts = parts;
    this.#runner = new Runner(parts);
  }

  /** Run an entry whose turn it is: prepare its folder, start its process, follow it, write its end down. */
  run(entry: Entry, repo: RepoConfig): Promise<Result> {
    const record = this.#recordOf(entry);
    return this.#attempt(record, async () => {
      await this.#prepare(entry, record, repo);
      const end = record.onlyIfCheckedOut && (await notCheckedOut(record, repo));
      if (end) return { ended: await this.#end(record, end.state, { reason: end.reason }) };
      const running = await this.#runner.start(record, repo);
      const what = [record.kind, record.ref, record.sha ?? ""].join(" ").trimEnd();
      this.#parts.log.info(`run ${record.id} of ${record.repo} started: ${what}`);
      return await this.#conclude(record, repo, await this.#outcomeOf(record, running));
    });
  }

  /**
   * Go on with a run that a former server left.
   * @returns undefined: it waits for its turn; `ended`: its record has its end; `result`: it is under way, or its
   * process has exited since.
   */
  async recover(
    entry: Entry,
  ): Promise<{ ended: RunRecord } | { result: Promise<Result> } | undefined> {
    const record = this.#parts.records.get(entry.id);
    const repo = this.#parts.settings.config.repos.get(entry.repo);
    if (!record || record.state === "waiting") return undefined;
    if (hasEnded(record.state)) return { ended: record };
    if (!repo) {
      await this.#runner.clear(record);
      return { ended: await this.lose(record, `lost: ${record.repo} is not configured any more`) };
    }
    if (await this.#runner.outlived(record)) {
      this.#parts.log.info(
        `run ${record.id} of ${record.repo} outlived the former server; it goes on`,
      );
      // the former server may have been killed before it could note that the run had started
      if (record.state === "starting") {
        record.state = "running";
        await this.#save(record);
      }
      const running = this.#runner.adopt(record, repo);
      const result = this.#attempt(record, async () =>
        this.#conclude(record, repo, await this.#outcomeOf(record, running)),
      );
      return { result };
    }
    const outcome = await this.#runner.exitLeft(record);
    if (outcome.how === "exit" && record.phase === "run") {
      record.state = "running";
      return { result: this.#attempt(record, () => this.#conclude(record, repo, outcome)) };
    }
    await this.#runner.clear(record);
    await this.#interrupt(record);
    return undefined;
  }

  /** End a run that is under way, or about to be; false when there is none of that id. */
  stop(id: string, stop: Stop): boolean {
    const active = this.#active.get(id);
    if (!active) return false;
    active.stop ??= stop;
    active.running?.stop(stop.why);
    return true;
  }

  /** End all that is under way; it runs again at the next start. */
  stopAll(): void {
    this.#stopping = true;
    for (const { running } of this.#active.values()) running?.stop("the server ends");
  }

  /** Make the folder of a run that waits, with its payload: then it can end without having been started. */
  async makeFolder(entry: Entry): Promise<void> {
    const owner = this.#parts.settings.config.repos.get(entry.repo)?.user;
    await this.#parts.records.create(
      this.#recordOf(entry),
      await this.#parts.payloadOf(entry),
      owner,
    );
  }

  /** Cancel a run that waits and has a folder. */
  async cancel(entry: Entry, reason: string): Promise<RunRecord> {
    return await this.#end(this.#recordOf(entry), "cancelled", { reason });
  }

  /** End a run of which nothing can come any more. It can be run again. */
  async lose(record: RunRecord, reason: string): Promise<RunRecord> {
    return await this.#end(record, "failed", { reason });
  }

  /** A run that waits gave way to a newer one. When it was started before (busy, or interrupted), its record says so. */
  supersede(old: { id: string }, by: { id: string }): void {
    this.#parts.metrics.run("superseded");
    const record = this.#parts.records.get(old.id);
    if (!record) return;
    record.state = "superseded";
    record.by = by.id;
    record.ended = new Date().toISOString();
    void this.#save(record);
  }

  #recordOf(entry: Entry): RunRecord {
    return this.#parts.records.get(entry.id) ?? recordOf(entry);
  }

  /** Work on a run that is under way. Whatever goes wrong in it ends that run or lets it wait, not the server. */
  async #attempt(record: RunRecord, work: () => Promise<Result>): Promise<Result> {
    this.#active.set(record.id, {});
    try {
      return await work();
    } catch (error) {
      let reason = messageOf(error);
      if (record.state === "starting" && shortages.has(systemCode(error) ?? "")) {
        this.#parts.log.warn(
          `run ${record.id} of ${record.repo} cannot start: ${reason}; it waits`,
        );
        record.state = "waiting";
        record.reason = reason;
        return { notBefore: Date.now() + retryDelay };
      }
      if (exitCodeOf(error) === undefined && systemCode(error) === undefined) {
        this.#parts.log.bug(error);
        reason = "an error of hook-server; see its log";
      }
      return { ended: await this.#end(record, "failed", { reason }) };
    } finally {
      this.#active.delete(record.id);
    }
  }

  async #prepare(entry: Entry, record: RunRecord, repo: RepoConfig): Promise<void> {
    record.attempt += 1;
    record.state = "starting";
    record.started = new Date().toISOString();
    record.cookie = newCookie();
    for (const key of ["pid", "pidStart", "ended", "reason", "exit", "seconds"] as const)
      delete record[key];
    await this.#parts.records.create(record, await this.#parts.payloadOf(entry), repo.user);
    await this.#parts.records.save(record, { durable: false });
  }

  async #outcomeOf(record: RunRecord, running: Running): Promise<Outcome> {
    const active = this.#active.get(record.id);
    if (active) active.running = running;
    if (active?.stop) running.stop(active.stop.why);
    else if (this.#stopping) running.stop("the server ends");
    return await running.outcome;
  }

  async #conclude(record: RunRecord, repo: RepoConfig, outcome: Outcome): Promise<Result> {
    const stop = this.#active.get(record.id)?.stop;
    if (outcome.how === "exit") record.exit = outcome.code;
    if (outcome.how === "stopped" && stop) {
      const { state, why, by } = stop;
      return { ended: await this.#end(record, state, { reason: why, by }) };
    }
    if (outcome.how === "stopped" || outcome.how === "lost") {
      await this.#interrupt(record);
      return { notBefore: 0 };
    }
    if (outcome.how === "exit" && outcome.code === busyCode && record.phase === "run")
      return await this.#retryLater(record);
    if (outcome.how !== "exit" || outcome.code !== 0) {
      const where = record.phase === "then" ? "a then command: " : "";
      const reason = `${where}${this.#runner.explain(outcome, repo) ?? "failed"}`;
      return { ended: await this.#end(record, "failed", { reason }) };
    }
    return await this.#afterwards(record, repo);
  }

  /** Run the `then` commands of a push run that succeeded. */
  async #afterwards(record: RunRecord, repo: RepoConfig): Promise<Result> {
    if (record.kind === "push" && record.phase === "run") {
      for (const command of repo.afterwards) {
        const running = await this.#runner.startThen(record, repo, command);
        const outcome = await this.#outcomeOf(record, running);
        if (outcome.how !== "exit" || outcome.code !== 0)
          return await this.#conclude(record, repo, outcome);
      }
      if (record.phase !== "run") record.exit = 0;
    }
    await this.#parts.onSuccess(record);
    return { ended: await this.#end(record, "succeeded", {}) };
  }

  /** Write down that a run has ended; returns its record as it is on disk. */
  async #end(
    record: RunRecord,
    state: RunState,
    { reason, by }: { reason?: string | undefined; by?: string | undefined },
  ): Promise<RunRecord> {
    const now = new Date();
    const started = Date.parse(record.started ?? record.accepted);
    const seconds = Math.max(0, now.getTime() - started) / 1000;
    // a new object: nobody sees the end before it is on disk
    const ended = { ...record, state, reason, by, ended: now.toISOString(), seconds };
    this.#parts.metrics.run(state, seconds);
    const what = `${state}${reason ? `: ${reason}` : ""} (${seconds.toFixed(1)} s)`;
    this.#note(record, what);
    this.#parts.log.info(`run ${record.id} of ${record.repo} ${what}`);
    const { mask } = this.#parts.settings;
    await maskFile(this.#parts.records.path(record.id, "log"), mask).catch((error: unknown) =>
      this.#parts.log.warn(
        `the log of ${record.id} was not searched for secrets: ${messageOf(error)}`,
      ),
    );
    await this.#save(ended);
    this.#busy.delete(record.id);
    return ended;
  }

  /** The checkout was busy: the run waits, longer each time. */
  async #retryLater(record: RunRecord): Promise<Result> {
    const tries = (this.#busy.get(record.id) ?? 0) + 1;
    this.#busy.set(record.id, tries);
    record.state = "waiting";
    record.reason = "the checkout is busy: another build holds its lock";
    await this.#save(record);
    this.#parts.log.info(`run ${record.id} of ${record.repo} waits: the checkout is busy`);
    return { notBefore: Date.now() + Math.min(maxBusyDelay, 500 * 2 ** Math.min(tries, 10)) };
  }

  /** Write down that an attempt was cut off, and that the run waits for the next one. */
  async #interrupt(record: RunRecord): Promise<void> {
    record.state = "waiting";
    record.reason = "interrupted: the server ended while it ran; it runs again";
    record.interrupted = [...(record.interrupted ?? []), new Date().toISOString()];
    this.#note(record, "interrupted by the end of the server; it runs again");
    this.#parts.metrics.run("interrupted");
    this.#parts.log.warn(`run ${record.id} of ${record.repo} was interrupted; it runs again`);
    await this.#save(record);
  }

  /** Save a record; a full disk is waited for, since the end must be known before the delivery is released. */
  async #save(record: RunRecord): Promise<void> {
    for (;;) {
      try {
        return await this.#parts.records.save(record);
      } catch (error) {
        this.#parts.log.warn(
          `the record of run ${record.id} cannot be written: ${messageOf(error)}; tried again`,
        );
        if (this.#stopping) return;
        await sleep(1000);
      }
    }
  }

  #note(record: RunRecord, text: string): void {
    noteInLog(this.#parts.records.path(record.id, "log"), record.id, text);
  }
}

/** Why a push that came when the checkout had no branch does not run now; undefined: it does. */
async function notCheckedOut(
  { ref }: RunRecord,
  repo: RepoConfig,
): Promise<{ state: RunState; reason: string } | undefined> {
  const branch = await checkoutBranch(repo);
  if (branch === undefined)
    return {
      state: "failed",
      reason: `${repo.dir} has no branch checked out; clone the repository there, or set refs`,
    };
  if (ref === `refs/heads/${branch}`) return undefined;
  return { state: "cancelled", reason: `${repo.dir} is on ${branch}, not on ${ref}` };
}
