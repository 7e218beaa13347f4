/**
 * How many files are fetched at once: so many over all, so many of one host. Unless the user fixes the number,
 * it rises while files are small (many small files far away wait for the round trip, not for the bandwidth) and
 * falls again while they are large: those under way are to be some 32 MiB together.
 */
export interface SlotOptions {
  /** Fixed number; undefined: 16, rising to 50 the smaller the files are. */
  jobs?: number | undefined;
  /** At most so many of one host. */
  perHost?: number | undefined;
}

export interface Job {
  host: string;
  /** Resolves with the bytes that came. */
  run: () => Promise<number>;
}

const defaultJobs = 16;
const maxJobs = 50;
const bytesAtOnce = 32 * 1024 * 1024;

export class Slots {
  #limit: number;
  readonly #fixed: boolean;
  readonly #perHost: number;
  readonly #hosts = new Map<string, { waiting: Job[]; active: number; limit: number }>();
  #active = 0;

  constructor({ jobs, perHost }: SlotOptions) {
    this.#fixed = jobs !== undefined;
    this.#limit = jobs ?? defaultJobs;
    this.#perHost = perHost ?? Number.POSITIVE_INFINITY;
  }

  /** Halve what one host gets: it has said that it is too much. */
  slower(host: string): void {
    const state = this.#hosts.get(host);
    if (state) state.limit = Math.max(1, Math.floor(Math.min(state.limit, state.active) / 2));
  }

  /** Run all jobs, those of one host in their order; hosts take turns. A job must not throw. */
  async runAll(jobs: readonly Job[]): Promise<void> {
    for (const job of jobs) {
      const host = this.#hosts.get(job.host);
      if (host) host.waiting.push(job);
      else this.#hosts.set(job.host, { waiting: [job], active: 0, limit: this.#perHost });
    }
    await new Promise<void>((resolve, reject) => {
      const step = () => {
        for (let job = this.next(); job; job = this.next()) this.start(job, step, reject);
        if (this.#active === 0) resolve();
      };
      step();
    });
  }

  private next(): Job | undefined {
    if (this.#active >= this.#limit) return undefined;
    for (const [name, host] of this.#hosts) {
      if (host.active >= host.limit) continue;
      const job = host.waiting.shift();
      if (!job) continue;
      host.active += 1;
      // to the end of the line, so that no host waits for another's thousand files
      this.#hosts.delete(name);
      this.#hosts.set(name, host);
      return job;
    }
    return undefined;
  }

  private start(job: Job, step: () => void, reject: (error: unknown) => void): void {
    this.#active += 1;
    job.run().then((bytes) => {
      this.#active -= 1;
      const host = this.#hosts.get(job.host);
      if (host) host.active -= 1;
      if (!this.#fixed) {
        const wanted = Math.max(defaultJobs, Math.min(maxJobs, bytesAtOnce / bytes));
        this.#limit += Math.sign(Math.floor(wanted) - this.#limit);
      }
      step();
    }, reject);
  }
}
