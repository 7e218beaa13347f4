/**
 * How many files are fetched at once: so many over all, so many of one host. Without a wish of the user
 * the number rises while files are small (many small files far away wait for the way, not for the wire)
 * and falls again while they are large: those under way shall be some 32 MiB together. It does not rise while
 * this process has no time to spare: each connection costs some, and more of them would only wait for it.
 */
export interface SlotOptions {
  /** Fixed number; undefined: 16, rising to 50 the smaller the files are. */
  jobs?: number | undefined;
  /** At most so many of one host. */
  perHost?: number | undefined;
  /** Whether this process has no time to spare; default: it has. */
  isBusy?: () => boolean;
}

export interface Job {
  host: string;
  /** Resolves with the bytes that came. */
  run: () => Promise<number>;
}

export const usualJobs = 16;
export const mostJobs = 50;
const bytesAtOnce = 32 * 1024 * 1024;

/** The jobs, run. `slower(host)` halves what one host gets: it has said that it is too much. */
export class Slots {
  #limit: number;
  readonly #fixed: boolean;
  readonly #perHost: number;
  readonly #isBusy: () => boolean;
  readonly #hosts = new Map<string, { waiting: Job[]; active: number; limit: number }>();
  #active = 0;

  constructor({ jobs, perHost, isBusy = () => false }: SlotOptions) {
    this.#fixed = jobs !== undefined;
    this.#limit = jobs ?? usualJobs;
    this.#perHost = perHost ?? Number.POSITIVE_INFINITY;
    this.#isBusy = isBusy;
  }

  /** The number at once as it stands now. */
  get limit(): number {
    return this.#limit;
  }

  slower(host: string): void {
    const state = this.#hosts.get(host);
    if (state) state.limit = Math.max(1, Math.floor(Math.min(state.limit, state.active) / 2));
  }

  /** Run all jobs; hosts take turns. A job must not throw. */
  async runAll(jobs: readonly Job[]): Promise<void> {
    for (const job of jobs) {
      const host = this.#hosts.get(job.host);
      if (host) host.waiting.push(job);
      else this.#hosts.set(job.host, { waiting: [job], active: 0, limit: this.#perHost });
    }
    for (const host of this.#hosts.values()) host.waiting.reverse();
    await new Promise<void>((resolve, reject) => {
      const step = () => {
        for (let job = this.#next(); job; job = this.#next()) this.#start(job, step, reject);
        if (this.#active === 0) resolve();
      };
      step();
    });
  }

  #next(): Job | undefined {
    if (this.#active >= this.#limit) return undefined;
    for (const [name, host] of this.#hosts) {
      if (host.active >= host.limit) continue;
      const job = host.waiting.pop();
      if (!job) continue;
      host.active += 1;
      // to the end of the line, so that no host waits for another's thousand files
      this.#hosts.delete(name);
      this.#hosts.set(name, host);
      return job;
    }
    return undefined;
  }

  #start(job: Job, step: () => void, reject: (error: unknown) => void): void {
    this.#active += 1;
    job.run().then((bytes) => {
      this.#active -= 1;
      const host = this.#hosts.get(job.host);
      if (host) host.active -= 1;
      if (!this.#fixed) {
        const wanted = Math.max(usualJobs, Math.min(mostJobs, bytesAtOnce / bytes));
        const step = Math.sign(Math.floor(wanted) - this.#limit);
        if (step < 0 || !this.#isBusy()) this.#limit += step;
      }
      step();
    }, reject);
  }
}
