import type { Settings } from "../config/config.ts";
import type { Executor, Result } from "./executor.ts";
import { Queue } from "../store/queue.ts";
import { entryOf, type RunRecord } from "./records.ts";
import type { Entry } from "../store/entry.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";

interface SchedulerParts {
  settings: Settings;
  executor: Executor;
  log: ServerLog;
  /** Told of each run that waited and gave way to a newer one. */
  onSuperseded: (old: Entry, by: Entry) => void;
  /** Told of each run that has ended; its record says so on disk. */
  onEnded: (entry: Entry, record: RunRecord) => void;
}

/** Gives the entries of the queue to the executor, each when its turn comes. */
export class Scheduler {
  readonly #parts: SchedulerParts;
  /** What runs and waits: others only look at it. */
  readonly queue = new Queue<Entry>();
  /** The server ends: nothing more is started. */
  draining = false;
  /** Runs that waited and are being cancelled. */
  readonly #cancelling = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  /** Called when nothing runs any more. */
  #onIdle = () => {};

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
  }

  /**
   * Go on with what a former server left: what waits, what is under way, what ended meanwhile. Of an orphan, whose
   * delivery is gone, only the process that is under way goes on.
   */
  async recover(entries: readonly Entry[], orphans: readonly RunRecord[]): Promise<void> {
    const left = [
      ...entries.map((entry) => [entry, false] as const),
      ...orphans.map((record) => [entryOf(record), true] as const),
    ];
    for (const [entry, isOrphan] of left) {
      const found = await this.#parts.executor.recover(entry, isOrphan);
      if (!found) this.enqueue(entry);
      else if ("ended" in found) this.#parts.onEnded(entry, found.ended);
      else {
        this.queue.adopt(entry);
        this.follow(entry, found.result);
      }
    }
  }

  /** An entry was accepted: it waits for its turn, which may be now. */
  add(entry: Entry): void {
    this.enqueue(entry);
    this.schedule();
  }

  private enqueue(entry: Entry): void {
    this.supersede(this.queue.add(entry));
    const current = this.queue.runningOf(entry.repo);
    if (
      current &&
      entry.kind === "push" &&
      current.kind === "push" &&
      current.ref === entry.ref &&
      this.#parts.settings.config.repos.get(entry.repo)?.cancel
    ) {
      this.#parts.executor.stop(current.id, {
        why: "a newer push came, and the repo says cancel: true",
        state: "cancelled",
        by: entry.id,
      });
    }
  }

  private supersede(result: { superseded: Entry; by: Entry } | undefined): void {
    if (!result) return;
    this.#parts.executor.supersede(result.superseded, result.by);
    this.#parts.onSuperseded(result.superseded, result.by);
  }

  /** Start whatever may run now. */
  schedule(): void {
    if (this.draining) return;
    const { concurrency, repos } = this.#parts.settings.config;
    for (;;) {
      const entry = this.queue.next(concurrency, Date.now(), (repo) => repos.has(repo));
      const repo = entry && repos.get(entry.repo);
      if (!repo) break;
      this.follow(entry, this.#parts.executor.run(entry, repo));
    }
    clearTimeout(this.#timer);
    const next = this.queue.nextTime();
    if (next !== undefined) this.#timer = setTimeout(() => this.schedule(), Math.max(10, next - Date.now()));
  }

  private follow(entry: Entry, attempt: Promise<Result>): void {
    attempt
      .then((result) => {
        if ("ended" in result) this.#parts.onEnded(entry, result.ended);
        this.supersede(this.queue.finish(entry, "notBefore" in result ? result : undefined));
        this.schedule();
        if (this.queue.running === 0) this.#onIdle();
      })
      .catch((error: unknown) => this.#parts.log.bug(error));
  }

  /** Cancel a run that waits or is under way; false when it has ended or is not known. `by`: who asked for it. */
  async cancel(id: string, by: string): Promise<boolean> {
    const why = "cancelled by hand";
    if (this.#parts.executor.stop(id, { why, state: "cancelled", cancelledBy: by })) return true;
    const entry = [...this.queue.entries()].find((each) => each.id === id);
    // its turn must not come meanwhile
    if (!entry || !this.queue.remove(entry)) return this.#cancelling.has(id);
    this.#cancelling.add(id);
    try {
      // with a folder it can be run again
      await this.#parts.executor.makeFolder(entry).catch((error: unknown) => {
        this.supersede(this.queue.add(entry));
        this.schedule();
        throw error;
      });
      this.#parts.onEnded(entry, await this.#parts.executor.cancel(entry, why, by));
    } finally {
      this.#cancelling.delete(id);
    }
    return true;
  }

  /** Start nothing more; resolves when the runs under way have ended, or were left or ended after `patience` ms. */
  async drain(patience: number): Promise<void> {
    this.draining = true;
    clearTimeout(this.#timer);
    const timer = setTimeout(() => void this.#parts.executor.leaveAll(), patience);
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      if (this.queue.running === 0) resolve();
    });
    clearTimeout(timer);
  }

  /** End what is under way at once; it runs again at the next start. */
  endRuns(): void {
    this.draining = true;
    this.#parts.executor.stopAll();
  }
}
