import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type Infer, y } from "../../config/yaml.ts";
import { messageOf, Refused } from "../../core/errors.ts";
import { Mutex } from "../../core/mutex.ts";
import { isShortName } from "../../core/names.ts";
import { Changes } from "../../core/changes.ts";
import { makeFolder } from "../../files/files.ts";
import { StateFile } from "../../files/state-file.ts";
import { HttpError } from "../../http/server.ts";
import { checkTime, type Order, orderSchema } from "../letter.ts";

/**
 * What should be served here, and what became of it: one file a repo. An order is on disk before it is answered. The
 * newest one counts, whichever of the master's keys signed it: the same again changes nothing, an older one is refused,
 * of several that come at once the last is done, and what a crash has interrupted is done again.
 */
const schema = y.object({
  order: orderSchema,
  // what runs is queued on disk: after a crash it runs again
  state: y.choice(["queued", "running", "done", "failed"]),
  before: y.optional(y.string()),
  sha: y.optional(y.string()),
  error: y.optional(y.string()),
  // how long it took
  ms: y.optional(y.number()),
});
export type Desired = Infer<typeof schema>;

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
  readonly #changes = new Changes();
  closed = false;
  /** Called when something came to be, started or ended. */
  onChange: () => void = () => {};
  /** Since the start: how many ended in which way, and the time that they took. */
  readonly finished = { done: 0, failed: 0, ms: 0 };

  constructor(options: DesiredStateOptions) {
    this.#options = options;
  }

  /** Read what an earlier server left. @throws {Failure} for a damaged file: without it old orders would be new */
  async open(): Promise<void> {
    const { folder } = this.#options;
    await makeFolder(folder);
    for (const name of await readdir(folder)) {
      const repo = name.replace(/\.json$/, "");
      const desired = name.endsWith(".json") && isShortName(repo) ? await this.file(repo).read() : undefined;
      if (desired) this.#desired.set(repo, desired);
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
   * @throws {Refused} for one that is not newer than the last, or is over
   * @throws {HttpError} 503 when it cannot be written
   */
  take(order: Order): Promise<boolean> {
    return this.#turns.run(async () => {
      const last = this.#desired.get(order.repo)?.order;
      if (last?.digest === order.digest) return false;
      const isOld = last !== undefined && order.at <= last.at;
      // a slave of two names gets two orders of one run: what says the same turns nothing back
      if (isOld && order.sha !== undefined && order.sha === last.sha && order.branch === last.branch) return false;
      if (isOld)
        throw new Refused(
          `the order is not newer than the last one taken (${new Date(last.at).toISOString()}); ` +
            "is the master's clock right?",
        );
      checkTime({ kind: "order", ...order });
      if (this.closed) throw new HttpError(503, "shutting down", { "retry-after": "5" });
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
    if (!this.closed) await this.#changes.next(ms, signal);
  }

  /** Take no more; what runs or waits stays on disk for the next start. */
  close(): void {
    this.closed = true;
    this.tell();
  }

  /** Have as many run as may, the oldest first. */
  start(): void {
    for (const desired of this.all().sort((one, other) => one.order.at - other.order.at)) {
      if (this.closed || this.#running.size >= this.#options.jobs) return;
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
    if (this.closed) return;
    const ms = Math.round(performance.now() - started);
    // a newer order may have come meanwhile: the file is its own
    await this.#turns.run(async () => {
      if (this.get(repo) === desired) await this.save({ ...desired, ...end, state, ms }).catch(this.#options.onError);
    });
    Object.assign(desired, { ...end, state, ms });
    this.#running.delete(repo);
    this.finished[state] += 1;
    this.finished.ms += ms;
    this.tell();
    this.start();
  }

  private tell(): void {
    this.#changes.tell();
    this.onChange();
  }

  private file(repo: string): StateFile<Desired> {
    const damaged = "it says which orders are old: put it back, or remove it and give the master a new key";
    return new StateFile(join(this.#options.folder, `${repo}.json`), schema, { damaged, mode: 0o600 });
  }

  private async save(desired: Desired): Promise<void> {
    await this.file(desired.order.repo).write(desired);
  }
}
