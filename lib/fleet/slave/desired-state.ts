import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, UsageError } from "../../core/errors.ts";
import { Mutex } from "../../core/mutex.ts";
import { isShortName } from "../../core/names.ts";
import { makeFolder, writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";
import { type Order, timeRefusal } from "../letter.ts";
import type { OrderState } from "../report.ts";

/**
 * What should be served here, and what became of it: one file a repo. An order is on disk before it is answered. The
 * newest one counts, whichever of the master's keys signed it: the same again changes nothing, an older one is refused,
 * of several that come at once the last is done, and what a crash has interrupted is done again.
 */
export interface Desired {
  order: Order;
  state: "queued" | "running" | "done" | "failed";
  result?: Pick<OrderState, "before" | "sha" | "error" | "seconds"> | undefined;
}

export interface DesiredStateOptions {
  folder: string;
  /** How many run at once. */
  jobs: number;
  /** Do one; throws with the reason when it fails. */
  run: (order: Order) => Promise<{ before?: string | undefined; sha: string }>;
  onError: (error: unknown) => void;
}

export class DesiredState {
  readonly #options: DesiredStateOptions;
  readonly #desired = new Map<string, Desired>();
  readonly #running = new Set<string>();
  readonly #turns = new Mutex();
  readonly #watchers = new Set<() => void>();
  #closed = false;
  /** Called when something came to be, started or ended. */
  onChange: () => void = () => {};
  /** Since the start: how many ended in which way, and the seconds that they took. */
  readonly finished = { done: 0, failed: 0, seconds: 0 };

  constructor(options: DesiredStateOptions) {
    this.#options = options;
  }

  /** Read what an earlier server left. @throws {UsageError} for a damaged file: without it old orders would be new */
  async open(): Promise<void> {
    const { folder } = this.#options;
    await makeFolder(folder);
    for (const name of await readdir(folder)) {
      const repo = name.replace(/\.json$/, "");
      if (!name.endsWith(".json") || !isShortName(repo)) continue;
      const file = join(folder, name);
      try {
        const desired = JSON.parse(await readFile(file, "utf8")) as Desired;
        if (!Number.isSafeInteger(desired.order.at) || desired.order.repo !== repo) throw new Error("it is damaged");
        this.#desired.set(repo, desired);
      } catch (error) {
        throw new UsageError(
          `${file} cannot be read (${messageOf(error)}): it says which orders are old; ` +
            "put it back, or remove it and give the master a new key",
        );
      }
    }
  }

  get(repo: string): Desired | undefined {
    return this.#desired.get(repo);
  }

  all(): Desired[] {
    return [...this.#desired.values()];
  }

  get counts(): { running: number; queued: number } {
    const queued = this.all().filter(({ state }) => state === "queued").length;
    return { running: this.#running.size, queued };
  }

  /**
   * Take an order; resolves when it is on disk.
   * @returns whether it is a new one
   * @throws {HttpError} 401 for one that is not newer than the last, or is over; 503 when it cannot be written
   */
  take(order: Order): Promise<boolean> {
    return this.#turns.run(async () => {
      const last = this.#desired.get(order.repo)?.order;
      if (last?.digest === order.digest) return false;
      const isOld = last !== undefined && order.at <= last.at;
      // a slave of two names gets two orders of one run: what says the same turns nothing back
      if (isOld && order.sha !== undefined && order.sha === last.sha && order.branch === last.branch) return false;
      if (isOld)
        throw new HttpError(
          401,
          `the order is not newer than the last one taken (${new Date(last.at).toISOString()}); ` +
            "is the master's clock right?",
        );
      const { at, until } = order;
      const late = timeRefusal({ kind: "order", to: "", at, until }, Date.now());
      if (late !== undefined) throw new HttpError(401, late);
      if (this.#closed) throw new HttpError(503, "shutting down", { "retry-after": "5" });
      const desired: Desired = { order, state: "queued" };
      await this.save(desired).catch((error: unknown) => {
        this.#options.onError(error);
        throw new HttpError(503, "the order could not be recorded: is the disk full?");
      });
      this.#desired.set(order.repo, desired);
      this.tell();
      this.start();
      return true;
    });
  }

  /** Wait until something changes, but not longer than `ms`. */
  async change(ms: number, signal: AbortSignal): Promise<void> {
    if (this.#closed) return;
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#watchers.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#watchers.add(end);
      signal.addEventListener("abort", end);
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Take no more; what runs or waits stays on disk for the next start. */
  close(): void {
    this.#closed = true;
    this.tell();
  }

  /** Have as many run as may, the oldest first. */
  start(): void {
    for (const desired of this.all().sort((one, other) => one.order.at - other.order.at)) {
      if (this.#closed || this.#running.size >= this.#options.jobs) return;
      // what a crash interrupted was written as queued
      if (desired.state === "queued" && !this.#running.has(desired.order.repo)) void this.work(desired);
    }
  }

  private async work(desired: Desired): Promise<void> {
    const { repo } = desired.order;
    this.#running.add(repo);
    const started = performance.now();
    desired.state = "running";
    this.tell();
    const [state, end] = await this.#options.run(desired.order).then(
      (done) => ["done", done] as const,
      (error: unknown) => ["failed", { error: messageOf(error) }] as const,
    );
    // children that were stopped with us have not failed: they run again
    if (this.#closed) return;
    const result = { ...end, seconds: Math.round(performance.now() - started) / 1000 };
    // a newer order may have come meanwhile: the file is its own
    await this.#turns.run(async () => {
      if (this.get(repo) !== desired) return;
      await this.save({ ...desired, state, result }).catch(this.#options.onError);
    });
    Object.assign(desired, { state, result });
    this.#running.delete(repo);
    this.finished[state] += 1;
    this.finished.seconds += result.seconds;
    this.tell();
    this.start();
  }

  private tell(): void {
    for (const watcher of [...this.#watchers]) watcher();
    this.onChange();
  }

  private async save(desired: Desired): Promise<void> {
    const file = join(this.#options.folder, `${desired.order.repo}.json`);
    await writeAtomic(file, `${JSON.stringify(desired)}\n`, { mode: 0o600 });
  }
}
