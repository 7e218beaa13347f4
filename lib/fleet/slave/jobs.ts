import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../../core/errors.ts";
import { isRunId, newRunId } from "../../core/id.ts";
import { Mutex } from "../../core/mutex.ts";
import { writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";

/**
 * Updates that were asked for. An accepted one is on disk before its answer is sent, and goes on after a crash.
 * One repo's updates never overlap; requests that come while one runs share one further run.
 */

export interface Job {
  job: string;
  repo: string;
  state: "queued" | "running" | "done" | "failed";
  /** The commit that was asked for, and its branch; without it, the newest. */
  wanted?: string | undefined;
  branch?: string | undefined;
  /** The order that asked for it, or the last of several. */
  order?: { at: number; signature: string } | undefined;
  before?: string | undefined;
  sha?: string | undefined;
  seconds?: number | undefined;
  error?: string | undefined;
  /** When it was asked for. */
  at: string;
}

/** What an update is asked for with. */
export type Wanted = Pick<Job, "repo" | "branch" | "order"> & { sha?: string | undefined };

export interface JobsOptions {
  /** Where they are kept, a file a job. */
  dir: string;
  /** How many run at once. */
  jobs: number;
  /** How many may wait. */
  queue: number;
  /** Do one; throws with the reason when it fails. */
  run: (job: Job) => Promise<{ before?: string | undefined; sha: string }>;
  onError: (error: unknown) => void;
}

/** So many finished jobs are remembered. */
const maxFinished = 1000;

export class Jobs {
  readonly #options: JobsOptions;
  readonly #known = new Map<string, Job>();
  readonly #queue: Job[] = [];
  readonly #running = new Set<string>();
  readonly #requests = new Mutex();
  readonly #waiters = new Map<string, Set<() => void>>();
  /** The last write of each job, so that writes of one file come in order. */
  readonly #writes = new Map<string, Promise<void>>();
  #closed = false;
  /** Called when a job came to be, started or ended. */
  onChange: () => void = () => {};
  /** Since the start: how many ended in which way, and the seconds that they took. */
  readonly finished = { done: 0, failed: 0, seconds: 0 };

  constructor(options: JobsOptions) {
    this.#options = options;
  }

  /** Read what an earlier server left; what had not finished waits for `start`, to be done again. */
  async open(): Promise<void> {
    const { dir } = this.#options;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const found: Job[] = [];
    for (const name of await readdir(dir)) {
      const id = name.replace(/\.json$/, "");
      if (!isRunId(id)) {
        if (name.includes(".tmp-")) await rm(join(dir, name), { force: true });
        continue;
      }
      try {
        const job = JSON.parse(await readFile(join(dir, name), "utf8")) as Job;
        if (job.job !== id) throw new Failure(`${join(dir, name)} is damaged; remove it`);
        found.push(job);
      } catch (error) {
        this.#options.onError(error);
      }
    }
    // ids tell no two apart that came in one second
    for (const job of found.sort((one, other) => Date.parse(one.at) - Date.parse(other.at))) {
      this.#known.set(job.job, job);
      if (job.state === "done" || job.state === "failed") continue;
      job.state = "queued";
      this.#queue.push(job);
    }
  }

  /**
   * Ask for an update; resolves when it is on disk.
   * @throws {HttpError} 429 when too many wait already, 503 when it cannot be written
   */
  request(wanted: Wanted): Promise<Job> {
    return this.#requests.run(async () => {
      if (this.#closed) throw new HttpError(503, "shutting down", { "retry-after": "5" });
      // after a restart the one that was interrupted waits as well
      const waiting = this.#queue.findLast(({ repo }) => repo === wanted.repo);
      const job = waiting ? await this.join(waiting, wanted) : await this.add(wanted);
      this.start();
      return job;
    });
  }

  private async add({ repo, sha: wanted, branch, order }: Wanted): Promise<Job> {
    if (this.#queue.length >= this.#options.queue)
      throw new HttpError(429, "too many updates are waiting", { "retry-after": "5" });
    const at = new Date().toISOString();
    const job: Job = { job: newRunId(), repo, state: "queued", wanted, branch, order, at };
    await this.record(job);
    this.#known.set(job.job, job);
    this.#queue.push(job);
    return job;
  }

  /** Have a waiting job do another thing: the last word counts for all who share it; each is told the commit. */
  private async join(job: Job, { sha: wanted, branch, order = job.order }: Wanted): Promise<Job> {
    const before = { wanted: job.wanted, branch: job.branch, order: job.order };
    const change = { wanted, branch, order };
    if (JSON.stringify(before) === JSON.stringify(change)) return job;
    // at once, as it may be started while it is written
    Object.assign(job, change);
    try {
      await this.record(job);
    } catch (error) {
      Object.assign(job, before);
      throw error;
    }
    return job;
  }

  get(id: string): Job | undefined {
    return this.#known.get(id);
  }

  /** All that are remembered, oldest first. */
  all(): Job[] {
    return [...this.#known.values()];
  }

  /** Wait for a job's end, but not longer than `ms`. */
  async wait(job: Job, ms: number, signal: AbortSignal): Promise<void> {
    if (job.state === "done" || job.state === "failed" || ms <= 0) return;
    await new Promise<void>((resolve) => {
      const waiters = this.#waiters.get(job.job) ?? new Set();
      this.#waiters.set(job.job, waiters);
      const end = () => {
        clearTimeout(timer);
        waiters.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      waiters.add(end);
      signal.addEventListener("abort", end);
    });
  }

  /** Take no more; what runs or waits stays on disk for the next start. */
  close(): void {
    this.#closed = true;
    for (const waiters of this.#waiters.values()) for (const end of [...waiters]) end();
  }

  get counts(): { running: number; queued: number } {
    return { running: this.#running.size, queued: this.#queue.length };
  }

  /** Have as many run as may. */
  start(): void {
    while (!this.#closed && this.#running.size < this.#options.jobs) {
      const index = this.#queue.findIndex((job) => !this.#running.has(job.repo));
      const [job] = index < 0 ? [] : this.#queue.splice(index, 1);
      if (!job) return;
      this.#running.add(job.repo);
      void this.work(job);
    }
  }

  private async work(job: Job): Promise<void> {
    const started = performance.now();
    job.state = "running";
    this.onChange();
    await this.save(job).catch(this.#options.onError);
    let end: Partial<Job>;
    try {
      end = { state: "done", ...(await this.#options.run(job)) };
    } catch (error) {
      end = { state: "failed", error: messageOf(error) };
    }
    // children that were stopped with us have not failed: they run again
    if (this.#closed) return;
    const seconds = Math.round(performance.now() - started) / 1000;
    await this.save({ ...job, ...end, seconds }).catch(this.#options.onError);
    Object.assign(job, end, { seconds });
    this.#running.delete(job.repo);
    this.finished[end.state === "done" ? "done" : "failed"] += 1;
    this.finished.seconds += seconds;
    this.onChange();
    for (const done of [...(this.#waiters.get(job.job) ?? [])]) done();
    this.#waiters.delete(job.job);
    await this.forgetOld().catch(this.#options.onError);
    this.start();
  }

  /** @throws {HttpError} 503 */
  private async record(job: Job): Promise<void> {
    try {
      await this.save(job);
    } catch (error) {
      this.#options.onError(error);
      throw new HttpError(503, "the update could not be recorded: is the disk full?");
    }
  }

  private save(job: Job): Promise<void> {
    const file = join(this.#options.dir, `${job.job}.json`);
    const text = `${JSON.stringify(job)}\n`;
    const before = this.#writes.get(job.job) ?? Promise.resolve();
    const write = before.catch(() => {}).then(() => writeAtomic(file, text, { mode: 0o600 }));
    this.#writes.set(job.job, write);
    const forget = () => {
      if (this.#writes.get(job.job) === write) this.#writes.delete(job.job);
    };
    write.then(forget, forget);
    return write;
  }

  private async forgetOld(): Promise<void> {
    for (const job of this.#known.values()) {
      if (this.#known.size <= maxFinished) return;
      if (job.state !== "done" && job.state !== "failed") continue;
      this.#known.delete(job.job);
      await rm(join(this.#options.dir, `${job.job}.json`), { force: true });
    }
  }
}
