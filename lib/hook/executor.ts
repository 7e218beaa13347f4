import { messageOf } from "../core/errors.ts";
import { newCookie } from "../exec/process-tree.ts";
import type { RepoConfig } from "./config-repo.ts";
import type { Entry } from "./entry.ts";
import type { Metrics } from "./metrics.ts";
import { hasEnded, recordOf, type RunRecord, type RunState } from "./records.ts";
import { type Place, RunEnds } from "./run-ends.ts";
import { type Outcome, Runner, type Running } from "./runner.ts";
import type { ServerLog } from "./server-log.ts";

/** Exit code of `build` and `release` when another process holds the checkout's lock. */
const busyCode = 3;
const afterTrouble = 5000;

/** Why a run is ended before its time, and what it is then. */
interface Stop {
  why: string;
  state: RunState;
  by?: string;
}

/**
 * Takes each run from its preparation to its end, and writes every step down before the next: whatever
 * instant the server is killed at, the record tells the next one where to go on.
 */
export class Executor {
  readonly #yard: Place;
  readonly #log: ServerLog;
  readonly #runner: Runner;
  readonly #active = new Map<string, { running?: Running; stop?: Stop }>();
  /** How attempts end, also those of runs that never began. */
  readonly ends: RunEnds;
  #ending = false;

  constructor(yard: Place, { log, metrics }: { log: ServerLog; metrics: Metrics }) {
    this.#yard = yard;
    this.#log = log;
    this.#runner = new Runner({ records: yard.records, maxLog: () => yard.config.maxLog });
    const forget = (id: string) => void this.#active.delete(id);
    this.ends = new RunEnds({ yard, log, metrics, runner: this.#runner, forget });
  }

  /** How many runs are under way. */
  get count(): number {
    return this.#active.size;
  }

  /** A bug in the handling of one run must end that run, not the server. */
  #guard(entry: Entry, work: Promise<void>): void {
    work.catch(async (error: unknown) => {
      this.#log.warn(`bug: ${(error as Error)?.stack ?? messageOf(error)}`);
      await this.ends
        .end(entry, this.#yard.records.get(entry.id) ?? recordOf(entry), "failed", {
          reason: "an error of hook-server; see its log",
        })
        .catch((again: unknown) => this.#log.warn(`bug: ${messageOf(again)}`));
    });
  }

  /** Run an entry whose turn it is. */
  begin(entry: Entry, repo: RepoConfig): void {
    this.#guard(entry, this.#run(entry, repo));
  }

  async #run(entry: Entry, repo: RepoConfig): Promise<void> {
    const record = this.#yard.records.get(entry.id) ?? recordOf(entry);
    this.#active.set(entry.id, {});
    let running: Running;
    try {
      await this.#prepare(entry, record, repo);
      running = await this.#runner.begin(record, repo, async () => {
        record.state = "running";
        await this.#yard.records.save(record, { durable: false });
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
    await this.#yard.spool.begin(entry);
    await this.#yard.records.create(record, await this.#yard.spool.payload(entry), repo.user);
    await this.#yard.records.save(record, { durable: false });
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
      this.#yard.putBack(entry, Date.now() + afterTrouble);
      return;
    }
    this.#runner.note(record, messageOf(error));
    await this.ends.end(entry, record, "failed", { reason: messageOf(error) });
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
      await this.ends.end(entry, record, "failed", { reason: messageOf(error) });
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
      return await this.ends.end(entry, record, stop.state, { reason: stop.why, by: stop.by });
    }
    if (outcome.how === "stopped" || outcome.how === "lost")
      return await this.ends.interrupted(entry, record);
    if (outcome.how === "exit" && outcome.code === busyCode && record.phase === "run")
      return await this.ends.tryLater(entry, record);
    const good = outcome.how === "exit" && outcome.code === 0;
    if (!good) {
      const why = this.#runner.explain(outcome, repo);
      const where = record.phase === "then" ? "a then command: " : "";
      return await this.ends.end(entry, record, "failed", {
        reason: `${where}${why ?? "failed"}`,
      });
    }
    await this.#afterwards(entry, record, repo);
  }

  async #afterwards(entry: Entry, record: RunRecord, repo: RepoConfig): Promise<void> {
    if (record.kind === "push" && record.phase === "run") {
      for (const command of repo.afterwards) {
        const running = await this.#runner.beginAfterwards(record, repo, command, () =>
          this.#yard.records.save(record, { durable: false }),
        );
        const outcome = await this.#outcomeOf(entry, running);
        if (outcome.how !== "exit" || outcome.code !== 0)
          return await this.#conclude(entry, record, repo, outcome);
      }
      if (record.phase !== "run") record.exit = 0;
    }
    await this.#yard.onGood(record);
    await this.ends.end(entry, record, "succeeded", {});
  }

  /**
   * Go on with what a former server left: waiting, under way, ended unseen, or interrupted.
   * @returns whether it waits for its turn.
   */
  async recover(entry: Entry): Promise<boolean> {
    const record = this.#yard.records.get(entry.id);
    const repo = this.#yard.config.repos.get(entry.repo);
    if (!record || record.state === "waiting") return true;
    if (hasEnded(record.state)) {
      this.#yard.spool.settle(entry, record.state, record.by);
      return false;
    }
    if (repo && (await this.#runner.outlived(record))) {
      this.#log.info(`run ${record.id} of ${record.repo} outlived the former server; it goes on`);
      // the former server may have been killed before it could note that the run had begun
      if (record.state === "starting") {
        record.state = "running";
        await this.ends.save(record);
      }
      this.#active.set(entry.id, {});
      this.#yard.queue.adopt(entry);
      this.#guard(entry, this.#follow(entry, record, repo, this.#runner.adopt(record, repo)));
      return false;
    }
    const outcome = await this.#runner.leftBehind(record);
    if (repo && outcome.how === "exit" && record.phase === "run") {
      // it ended while no server was there: go on from its exit code
      this.#active.set(entry.id, {});
      this.#yard.queue.adopt(entry);
      this.#guard(entry, this.#conclude(entry, record, repo, outcome));
      return false;
    }
    await this.#runner.clear(record);
    this.ends.markInterrupted(record);
    await this.ends.save(record);
    return true;
  }

  /** End a run that is under way, or about to be; false when there is none of that id. */
  stop(id: string, stop: Stop): boolean {
    const active = this.#active.get(id);
    if (!active) return false;
    active.stop ??= stop;
    active.running?.stop(stop.why);
    return true;
  }

  /** End what is under way; it runs again at the next start. */
  endAll(): void {
    this.#ending = true;
    this.ends.giveUpSaving();
    for (const { running } of this.#active.values()) running?.stop("the server ends");
  }
}
