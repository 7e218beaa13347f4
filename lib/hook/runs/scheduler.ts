import { hasEnded, isBranchPush, isUnderWay, type Run, type RunStore } from "../../run-store/run-store.ts";
import type { Settings } from "../config/config.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import type { Stop } from "./run.ts";

interface SchedulerParts {
  settings: Settings;
  store: RunStore;
  log: ServerLog;
  /** Whether runs go on when the server ends. */
  outlive: boolean;
  /** Work on a run; returns milliseconds after which it may be tried again, if it waits again. */
  run: (run: Run, how: { signal: AbortSignal; tries: number; isLost: () => boolean }) => Promise<number | undefined>;
  /** Of several builders: take the right to run a run's repo; undefined: another one has it, or the run has ended. */
  claim?: ((run: Run) => Promise<Claimed | undefined>) | undefined;
  /** Milliseconds after which it is asked for again. */
  claimAgain?: number | undefined;
  /** Whether this server builds a repo. */
  mayRun: (repo: string) => boolean;
  /** Who is to be told that a run was superseded or cancelled. */
  onEnd: (run: Run) => Partial<Run>;
}

/** Why a run was cancelled that somebody cancelled. */
const byHand = "cancelled by hand";

/** The right to run a repo, until it is given back or lost. */
export interface Claimed {
  /** The run, which says whose it is. */
  readonly run: Run;
  readonly lost: AbortSignal;
  /** Whether it is lost, or may be. */
  readonly isLost: () => boolean;
  release(): Promise<void>;
}

/** A run that this server works on. */
interface Active {
  readonly run: Run;
  readonly stop: AbortController;
}

/** Which run is next: one at a time of a repo, `concurrency` in all, repos in turn, of a branch only the newest. */
export class Scheduler {
  readonly #parts: SchedulerParts;
  readonly #active = new Map<string, Active>();
  /** When each repo last had its turn, and before when it must not have another one (ms). */
  readonly #served = new Map<string, number>();
  readonly #notBefore = new Map<string, number>();
  readonly #tries = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #isDue = false;
  #mayBegin = false;
  #onIdle = () => {};
  /** The server ends: nothing more is started. */
  draining = false;

  constructor(parts: SchedulerParts) {
    this.#parts = parts;
    parts.store.watch((now, before) => {
      if (now?.cancelAsked !== undefined && before?.cancelAsked === undefined)
        this.stop(now.id, { why: byHand, cancelledBy: now.cancelAsked });
      // its repo's claim is about to be given back
      if (parts.claim && now && hasEnded(now)) this.#notBefore.delete(now.repo);
      if (now?.state === "waiting" || (before && !hasEnded(before))) this.soon();
    });
  }

  /** Go on with what was under way, and start what waits. */
  start(): void {
    this.#mayBegin = true;
    if (!this.#parts.claim) for (const run of this.#parts.store.open()) if (isUnderWay(run)) this.begin(run);
    this.look();
  }

  get running(): number {
    return this.#active.size;
  }

  get waiting(): number {
    return [...this.#parts.store.open()].length - this.#active.size;
  }

  waitingOf(repo: string): number {
    let count = 0;
    for (const run of this.#parts.store.open()) if (run.repo === repo && run.state === "waiting") count += 1;
    return count;
  }

  private soon(): void {
    if (this.#isDue) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      this.look();
    });
  }

  /** Start whatever may run now. */
  look(): void {
    if (!this.#mayBegin || this.draining) return;
    const { store, claim, mayRun } = this.#parts;
    const { concurrency, repos } = this.#parts.settings.config;
    const busy = new Map([...this.#active.values()].map(({ run }) => [run.repo, run]));
    const newest = new Map<string, Run>();
    const ready = new Map<string, Run>();
    const idle = [...store.open()].filter(({ id }) => !this.#active.has(id));
    const waiting = idle.filter(({ state }) => state === "waiting");
    // another builder's, which may be gone
    if (claim) for (const run of idle) if (isUnderWay(run) && mayRun(run.repo)) ready.set(run.repo, run);
    for (const run of waiting) if (isBranchPush(run)) newest.set(`${run.repo} ${run.ref}`, run);
    for (const run of waiting) {
      const by = isBranchPush(run) ? newest.get(`${run.repo} ${run.ref}`) : undefined;
      if (by && by.id !== run.id) this.supersede(run, by);
      else if (!ready.has(run.repo) && mayRun(run.repo)) ready.set(run.repo, run);
      const current = busy.get(run.repo);
      if (by?.id === run.id && current?.ref === run.ref && repos.get(run.repo)?.cancel)
        this.stop(current.id, {
          why: "a newer push came, and the repo says cancel: true",
          by: run.id,
        });
    }
    const now = Date.now();
    const turns = [...ready.values()].filter(({ repo }) => !busy.has(repo));
    turns.sort((a, b) => (this.#served.get(a.repo) ?? 0) - (this.#served.get(b.repo) ?? 0));
    clearTimeout(this.#timer);
    const later = turns.map(({ repo }) => this.#notBefore.get(repo) ?? 0).filter((time) => time > now);
    if (later.length > 0) this.#timer = setTimeout(() => this.look(), Math.min(...later) - now + 1);
    for (const run of turns) {
      if (this.#active.size >= concurrency) return;
      if ((this.#notBefore.get(run.repo) ?? 0) <= now) this.begin(run);
    }
  }

  private begin(run: Run): void {
    const stop = new AbortController();
    this.#active.set(run.id, { run, stop });
    this.#served.set(run.repo, performance.now());
    this.work(run, stop.signal)
      .catch((error: unknown) => this.#parts.log.bug(error))
      .finally(() => {
        this.#active.delete(run.id);
        this.soon();
        if (this.#active.size === 0) this.#onIdle();
      });
  }

  private async work(run: Run, signal: AbortSignal): Promise<void> {
    const { claim, claimAgain = 0 } = this.#parts;
    const claimed = await claim?.(run);
    if (claim && !claimed) return void this.#notBefore.set(run.repo, Date.now() + claimAgain);
    const { run: now, isLost = () => false } = claimed ?? { run };
    claimed?.lost.addEventListener("abort", () => this.stop(run.id, "lost"));
    if (now.cancelAsked !== undefined) this.stop(run.id, { why: byHand, cancelledBy: now.cancelAsked });
    try {
      const tries = this.#tries.get(run.id) ?? 0;
      const wait = await this.#parts.run(now, { signal, tries, isLost });
      if (wait === undefined) this.#tries.delete(run.id);
      else this.#tries.set(run.id, tries + 1);
      this.#notBefore.set(run.repo, Date.now() + (wait ?? 0));
    } finally {
      await claimed?.release();
    }
  }

  private supersede(run: Run, by: Run): void {
    this.endWaiting(run.id, { state: "superseded", by: by.id }).catch(() => {
      // it is superseded all the same, and said at the next look
    });
  }

  /** End a run that waits; undefined when it does not any more. */
  private endWaiting(id: string, more: Partial<Run>): Promise<Run | undefined> {
    return this.#parts.store.change(id, (now) => {
      if (now.state !== "waiting" || this.#active.has(id)) return undefined;
      const ended = { ...now, ...more, ended: new Date().toISOString() };
      return { ...ended, ...this.#parts.onEnd(ended) };
    });
  }

  /** Cancel a run that waits or is under way; false when it has ended. `by`: who asked for it. */
  async cancel(id: string, by: string): Promise<boolean> {
    const { claim, store } = this.#parts;
    const ended = await this.endWaiting(id, { state: "cancelled", reason: byHand, cancelledBy: by });
    if (ended !== undefined) return true;
    if (!claim) return this.stop(id, { why: byHand, cancelledBy: by });
    // whoever has its claim sees it there, or takes it with the claim
    return (await store.change(id, (now) => (hasEnded(now) ? undefined : { ...now, cancelAsked: by }))) !== undefined;
  }

  private stop(id: string, stop: Stop): boolean {
    const active = this.#active.get(id);
    if (!active?.stop.signal.aborted) active?.stop.abort(stop);
    return active !== undefined;
  }

  /** Start nothing more; resolves when the runs under way have ended, or were left or ended after `patience` ms. */
  async drain(patience: number): Promise<void> {
    this.draining = true;
    clearTimeout(this.#timer);
    const timer = setTimeout(() => {
      for (const id of this.#active.keys()) {
        if (this.#parts.outlive) this.#parts.log.warn(`run ${id} goes on; the next server takes it over`);
        this.stop(id, this.#parts.outlive ? "leave" : "server");
      }
    }, patience);
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve;
      if (this.#active.size === 0) resolve();
    });
    clearTimeout(timer);
  }

  /** End what is under way at once; it runs again at the next start. */
  endRuns(): void {
    this.draining = true;
    for (const id of this.#active.keys()) this.stop(id, "server");
  }
}
