import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, systemCode } from "../../core/errors.ts";
import type { Settings } from "../config/config.ts";
import type { Entry } from "../store/entry.ts";
import { type Records, recordOf, type RunFacts, type RunRecord, type RunState, type Telling } from "./records.ts";
import { logSize, noteInLog, sealLog } from "./run-log.ts";
import { closeStages, type RunStage, readStages } from "./run-stages.ts";
import type { Metrics, ServerLog } from "../telemetry/telemetry.ts";

const shortages = new Set("ENOSPC EDQUOT EIO EMFILE ENFILE EAGAIN ENOMEM EROFS".split(" "));

/** Whether the system lacks something for a while: a run that meets it waits. */
export function isShortage(error: unknown): boolean {
  return shortages.has(systemCode(error) ?? "");
}

export interface RunStatesParts {
  settings: Settings;
  records: Records;
  log: ServerLog;
  metrics: Metrics;
  /** Who is to be told of a run's end. */
  tellingOf: (run: RunFacts) => Telling[];
  /** Told of each run that is under way. */
  onRunning: (record: RunRecord) => void;
}

/** Takes runs from state to state: on disk, in the run's log, in the server's, and in the counters. */
export class RunStates {
  readonly #parts: RunStatesParts;
  #closing = false;

  constructor(parts: RunStatesParts) {
    this.#parts = parts;
  }

  /** The server ends: a disk that stays full is waited for no longer. */
  close(): void {
    this.#closing = true;
  }

  /** An attempt begins: the run's folder is made anew, with its payload. */
  async starting(record: RunRecord, payload: Uint8Array, owner: { uid: number; gid: number }): Promise<void> {
    record.attempt += 1;
    record.state = "starting";
    record.started = new Date().toISOString();
    for (const key of ["ended", "reason", "exit", "seconds", "step", "met", "stages"] as const) delete record[key];
    await this.#parts.records.create(record, payload, owner);
  }

  /** Its process is about to start: by the marks on it the next server finds it, whenever this one is killed. */
  async marked(record: RunRecord, marks: Partial<RunRecord>): Promise<void> {
    for (const key of ["pid", "pidStart"] as const) delete record[key];
    Object.assign(record, marks);
    await this.#parts.records.save(record, { durable: false });
  }

  /** Its process has started. */
  async running(record: RunRecord, process: Pick<RunRecord, "pid" | "pidStart">): Promise<void> {
    Object.assign(record, process);
    record.state = "running";
    this.#parts.onRunning(record);
    // the marks on it are on disk
    await this.#parts.records
      .save(record, { durable: false })
      .catch((error: unknown) =>
        this.#parts.log.warn(`the process of run ${record.id} cannot be noted: ${messageOf(error)}`),
      );
  }

  /** The stages of its newest attempt, as far as they are known. */
  async stagesOf(record: RunRecord): Promise<RunStage[]> {
    // once the script has ended, its file is not asked any more
    return record.stages ?? (await readStages(this.#parts.records.path(record.id, "stages")));
  }

  /** A `then` command is about to start, the first one after the end of the script. */
  async thenStarts(record: RunRecord, name: string): Promise<void> {
    const now = new Date();
    const before = closeStages(await this.stagesOf(record), { result: "ok", now });
    const from = await logSize(this.logOf(record));
    record.stages = [...before, { name, started: now.toISOString(), from }];
  }

  /** It waits for its next attempt. */
  async waits(record: RunRecord, reason: string): Promise<void> {
    record.state = "waiting";
    record.reason = reason;
    await this.save(record);
  }

  /** An attempt was cut off; the run waits for the next one. */
  async interrupted(record: RunRecord): Promise<void> {
    record.interrupted = [...(record.interrupted ?? []), new Date().toISOString()];
    noteInLog(this.logOf(record), record.id, "interrupted by the end of the server; it runs again");
    this.#parts.metrics.run(record.repo, "interrupted");
    this.#parts.log.warn(`run ${record.id} of ${record.repo} was interrupted; it runs again`);
    await this.waits(record, "interrupted: the server ended while it ran; it runs again");
  }

  /** It has ended; returns its record as it is on disk. */
  async ended(
    record: RunRecord,
    state: RunState,
    { reason, by }: { reason?: string | undefined; by?: string | undefined } = {},
  ): Promise<RunRecord> {
    const now = new Date();
    const started = Date.parse(record.started ?? record.accepted);
    const seconds = Math.max(0, now.getTime() - started) / 1000;
    // a new object: nobody sees the end before it is on disk
    const ended: RunRecord = { ...record, state, reason, by, ended: now.toISOString(), seconds };
    const stages = closeStages(await this.stagesOf(record), {
      result: state === "succeeded" ? "ok" : state === "cancelled" ? "cancelled" : "failed",
      now,
      size: await logSize(this.logOf(record)),
    });
    this.#parts.metrics.run(record.repo, state, seconds);
    const text = `${state}${reason ? `: ${reason}` : ""} (${seconds.toFixed(1)} s)`;
    this.#parts.log.info(`run ${record.id} of ${record.repo} ${text}`);
    const { mask, config } = this.#parts.settings;
    const seal = { max: config.maxLog, mask, id: record.id, text };
    const isReplaced = await sealLog(this.logOf(record), seal).catch((error: unknown) =>
      this.#parts.log.warn(`the log of ${record.id} was not searched for secrets: ${messageOf(error)}`),
    );
    // with its secrets masked, the log's lines are no longer where they were
    if (stages.length > 0)
      ended.stages = isReplaced ? stages.map((stage) => ({ ...stage, from: undefined, to: undefined })) : stages;
    ended.tell = tellingOrNone(this.#parts.tellingOf(ended));
    await this.save(ended);
    return ended;
  }

  /**
   * It waited, and gave way to a newer one. A run that was never started has a record only where somebody is to be told
   * of it.
   */
  superseded(old: Entry, by: string): void {
    this.#parts.metrics.run(old.repo, "superseded");
    const begun = this.#parts.records.get(old.id);
    const facts: RunFacts = { ...(begun ?? old), state: "superseded" };
    const tell = tellingOrNone(this.#parts.tellingOf(facts));
    if (!begun && !tell) return;
    const record = begun ?? recordOf(old);
    const ended = new Date().toISOString();
    Object.assign(record, { state: "superseded", by, ended, tell });
    try {
      // before the line in the store that says the same: whoever is to be told is not forgotten between the two
      this.#parts.records.saveNow(record);
    } catch {
      // said by the next one
    }
    void this.save(record);
  }

  /**
   * Save a record; a full disk is waited for, as the end must be known before the delivery is released. A folder that
   * was made unfit is not: a build of the server's own user would hold its repo up for ever.
   */
  private async save(record: RunRecord): Promise<void> {
    for (let isSaid = false; ; isSaid = true) {
      try {
        return await this.#parts.records.save(record);
      } catch (error) {
        const waits = isShortage(error);
        const next = waits ? "tried again each second" : "it is kept in memory only";
        if (!waits || !isSaid)
          this.#parts.log.warn(`the record of run ${record.id} cannot be written: ${messageOf(error)}; ${next}`);
        if (!waits) this.#parts.records.keep(record);
        if (this.#closing || !waits) return;
        await sleep(1000);
      }
    }
  }

  private logOf(record: RunRecord): string {
    return this.#parts.records.path(record.id, "log");
  }
}

function tellingOrNone(telling: Telling[]): Telling[] | undefined {
  return telling.length > 0 ? telling : undefined;
}
