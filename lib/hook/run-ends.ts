import { messageOf } from "../core/errors.ts";
import type { Mask } from "../config/secrets.ts";
import type { HookConfig } from "./config.ts";
import type { Entry } from "./entry.ts";
import { maskFile } from "./mask-file.ts";
import type { Metrics } from "./metrics.ts";
import type { Queue } from "./queue.ts";
import type { Records, RunRecord, RunState } from "./records.ts";
import type { Runner } from "./runner.ts";
import type { ServerLog } from "./server-log.ts";
import type { Spool } from "./spool.ts";

const longestPause = 60_000;

/** What the executor works with: the yard. */
export interface Place {
  readonly config: HookConfig;
  readonly mask: Mask;
  readonly records: Records;
  readonly spool: Spool;
  readonly queue: Queue<Entry>;
  /** Told of every run that ended well. */
  onGood(record: RunRecord): Promise<void>;
  /** A run that began waits again, until `notBefore` at least. */
  putBack(entry: Entry, notBefore: number): void;
  /** A run has come to its end. */
  finish(entry: Entry): Promise<void>;
}

interface Parts {
  yard: Place;
  log: ServerLog;
  metrics: Metrics;
  runner: Runner;
  /** The run of that id is not under way any more. */
  forget: (id: string) => void;
}

/** Writes down how an attempt ended: for good, to be tried later, or cut off by the end of a server. */
export class RunEnds {
  readonly #yard: Place;
  readonly #log: ServerLog;
  readonly #metrics: Metrics;
  readonly #runner: Runner;
  readonly #forget: Parts["forget"];
  readonly #busy = new Map<string, number>();
  #givenUp = false;

  constructor({ yard, log, metrics, runner, forget }: Parts) {
    this.#yard = yard;
    this.#log = log;
    this.#metrics = metrics;
    this.#runner = runner;
    this.#forget = forget;
  }

  /** A run has come to its end. */
  async end(
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
    await maskFile(this.#yard.records.path(record.id, "log"), this.#yard.mask).catch(
      (error: unknown) =>
        this.#log.warn(
          `the log of ${record.id} was not looked through for secrets: ${messageOf(error)}`,
        ),
    );
    await this.save(ended);
    this.#yard.spool.settle(entry, state, by);
    this.#busy.delete(entry.id);
    this.#forget(entry.id);
    await this.#yard.finish(entry);
  }

  /** The checkout was busy: the run waits, longer each time. */
  async tryLater(entry: Entry, record: RunRecord): Promise<void> {
    const tries = (this.#busy.get(entry.id) ?? 0) + 1;
    this.#busy.set(entry.id, tries);
    record.state = "waiting";
    record.reason = "the checkout is busy: another build holds its lock";
    await this.save(record);
    this.#forget(entry.id);
    this.#log.info(`run ${record.id} of ${record.repo} waits: the checkout is busy`);
    this.#yard.putBack(entry, Date.now() + Math.min(longestPause, 500 * 2 ** Math.min(tries, 10)));
  }

  /** The run was cut off, and waits for its next attempt. */
  async interrupted(entry: Entry, record: RunRecord): Promise<void> {
    this.markInterrupted(record);
    await this.save(record);
    this.#forget(entry.id);
    this.#yard.putBack(entry, 0);
  }

  /** Note that an attempt was cut off; the caller keeps the record. */
  markInterrupted(record: RunRecord): void {
    record.state = "waiting";
    record.reason = "interrupted: the server ended while it ran; it runs again";
    record.interrupted = [...(record.interrupted ?? []), new Date().toISOString()];
    this.#runner.note(record, "interrupted by the end of the server; it runs again");
    this.#metrics.run("interrupted", 0);
    this.#log.warn(`run ${record.id} of ${record.repo} was interrupted; it runs again`);
  }

  /** Keep a record; a full disk is waited for, since its end must be known before its delivery is let go. */
  async save(record: RunRecord): Promise<void> {
    for (;;) {
      try {
        return await this.#yard.records.save(record);
      } catch (error) {
        this.#log.warn(
          `the record of run ${record.id} cannot be written: ${messageOf(error)}; tried again`,
        );
        if (this.#givenUp) return;
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  }

  /** The server ends: a disk that stays full is not waited for any longer. */
  giveUpSaving(): void {
    this.#givenUp = true;
  }
}
