/**
 * How many files are fetched at once: so many over all, so many of one host. Unless the user fixes the number,
 * it rises while files are small (many small files far away wait for the round trip, not for the bandwidth) and
 * falls again while they are large: those under way are to be some 32 MiB together.
 */
export interface PoolOptions {
  /** Fixed number; undefined: 16, rising to 50 the smaller the files are. */
  jobs?: number | undefined;
  /** At most so many of one host; undefined: no limit. */
  perHost?: number | undefined;
}

const defaultJobs = 16;
const maxJobs = 50;
const bytesAtOnce = 32 * 1024 * 1024;

export class Pool<Item> {
  #limit: number;
  #active = 0;
  readonly #options: PoolOptions;
  readonly #hosts = new Map<string, { waiting: Item[]; active: number; limit: number }>();

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#limit = options.jobs ?? defaultJobs;
  }

  /** Halve what one host gets: it has said that it is too much. */
  slower(host: string): void {
    const state = this.#hosts.get(host);
    if (state) state.limit = Math.max(1, Math.floor(Math.min(state.limit, state.active) / 2));
  }

  /**
   * Do the work for all items, those of one host in their order; hosts take turns.
   * @param work resolves with the bytes that came.
   */
  async run(items: readonly Item[], hostOf: (item: Item) => string, work: (item: Item) => Promise<number>) {
    for (const item of items) {
      const host = this.#hosts.get(hostOf(item));
      if (host) host.waiting.push(item);
      else this.#hosts.set(hostOf(item), { waiting: [item], active: 0, limit: this.#options.perHost ?? Infinity });
    }
    await new Promise<void>((resolve, reject) => {
      const start = () => {
        for (let next = this.next(); next; next = this.next()) {
          const { host, item } = next;
          this.#active += 1;
          host.active += 1;
          work(item).then((bytes) => {
            this.#active -= 1;
            host.active -= 1;
            this.adapt(bytes);
            start();
          }, reject);
        }
        if (this.#active === 0) resolve();
      };
      start();
    });
  }

  private next() {
    if (this.#active >= this.#limit) return undefined;
    for (const [name, host] of this.#hosts) {
      const [item] = host.waiting;
      if (item === undefined || host.active >= host.limit) continue;
      host.waiting.shift();
      // to the end of the line, so that no host waits for another's thousand files
      this.#hosts.delete(name);
      this.#hosts.set(name, host);
      return { host, item };
    }
    return undefined;
  }

  private adapt(bytes: number): void {
    if (this.#options.jobs !== undefined) return;
    const wanted = Math.max(defaultJobs, Math.min(maxJobs, bytesAtOnce / bytes));
    this.#limit += Math.sign(Math.floor(wanted) - this.#limit);
  }
}
