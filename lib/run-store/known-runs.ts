import { hasEnded, type Listener, type Run } from "./run-store.ts";

/** What every store of runs has: them as they are now, with what is asked for often. */
export abstract class KnownRuns {
  readonly #all = new Map<string, Run>();
  readonly #open = new Map<string, Run>();
  readonly #deliveries = new Map<string, string>();
  readonly #listeners: Listener[] = [];
  revision = 0;

  get(id: string): Run | undefined {
    return this.#all.get(id);
  }

  runs(): Iterable<Run> {
    return this.#all.values();
  }

  open(): Iterable<Run> {
    return this.#open.values();
  }

  runOf(repo: string, delivery: string): Run | undefined {
    return this.get(this.#deliveries.get(`${repo} ${delivery}`) ?? "");
  }

  watch(listener: Listener): void {
    this.#listeners.push(listener);
  }

  protected set(run: Run): void {
    const before = this.#all.get(run.id);
    this.#all.set(run.id, run);
    if (hasEnded(run)) this.#open.delete(run.id);
    else this.#open.set(run.id, run);
    if (!before && run.delivery !== undefined) this.#deliveries.set(`${run.repo} ${run.delivery}`, run.id);
    this.tell(run, before);
  }

  protected delete(id: string): void {
    const before = this.#all.get(id);
    if (!before) return;
    this.#all.delete(id);
    this.#open.delete(id);
    const key = `${before.repo} ${before.delivery}`;
    if (this.#deliveries.get(key) === id) this.#deliveries.delete(key);
    this.tell(undefined, before);
  }

  private tell(now: Run | undefined, before: Run | undefined): void {
    this.revision += 1;
    for (const listener of this.#listeners) listener(now, before);
  }
}
