/** How many wrong tries to sign in there may be within `time` ms: from one network, and from all together. */
const limits = { time: 10 * 60_000, each: 10, all: 200 };
const maxNetworks = 10_000;

/** Counts wrong tries, so that secrets cannot be tried out. */
export class Tries {
  readonly #of = new Map<string, number[]>();
  #all: number[] = [];
  /** Networks from which somebody has signed in: the wrong tries of others do not keep them out. */
  readonly #good = new Set<string>();

  /** Seconds that somebody of this network has to wait; 0: another try is allowed. */
  wait(network: string, now = Date.now()): number {
    const recent = (times: readonly number[]) => times.filter((time) => now - time < limits.time);
    this.#all = recent(this.#all);
    const own = recent(this.#of.get(network) ?? []);
    if (own.length === 0) this.#of.delete(network);
    else this.#of.set(network, own);
    const until = (times: readonly number[], most: number) =>
      times.length < most ? 0 : (times.at(-most) ?? now) + limits.time - now;
    const all = this.#good.has(network) ? 0 : until(this.#all, limits.all);
    return Math.ceil(Math.max(until(own, limits.each), all) / 1000);
  }

  /** Somebody has signed in. */
  succeeded(network: string): void {
    if (this.#good.size >= maxNetworks) this.#good.clear();
    this.#good.add(network);
  }

  /** A wrong try. */
  failed(network: string, now = Date.now()): void {
    if (this.#of.size >= maxNetworks) this.#of.clear();
    this.#of.set(network, [...(this.#of.get(network) ?? []), now].slice(-limits.each));
    this.#all = [...this.#all, now].slice(-limits.all);
  }
}
