import { FetchFailed } from "./retry.ts";

/** Fewer bytes a second than this are no transfer but a connection held open. */
const slowest = 1000 / 30;

/**
 * Gives connections up that bring nothing: a server may hold one open for ever. One clock looks at all of them,
 * and an AbortSignal is made only for who can take nothing else: for thousands of small files a timer and a
 * signal for each would cost as much as opening them.
 */
export class Watches {
  readonly #stall: number;
  readonly #all = new Set<Watch>();
  /** The signals that are listened to, each with how many connections it would break. */
  readonly #heard = new Map<AbortSignal, { watches: number; pass: () => void }>();
  #clock: NodeJS.Timeout | undefined;

  /** @param stall milliseconds without noticeable progress that are one too many. */
  constructor(stall: number) {
    this.#stall = stall;
  }

  /** Watch one connection, until `end`. Aborting `outer` breaks it. */
  begin(outer: AbortSignal | undefined): Watch {
    const watch = new Watch(outer, (ended) => this.#forget(ended));
    this.#all.add(watch);
    this.#clock ??= setInterval(() => this.#look(), this.#stall / 4);
    if (outer?.aborted) watch.break(outer.reason);
    else if (outer) this.#hear(outer);
    return watch;
  }

  #hear(outer: AbortSignal): void {
    const known = this.#heard.get(outer);
    if (known) {
      known.watches += 1;
      return;
    }
    const pass = () => {
      for (const watch of this.#all) if (watch.outer === outer) watch.break(outer.reason);
    };
    outer.addEventListener("abort", pass, { once: true });
    this.#heard.set(outer, { watches: 1, pass });
  }

  /** A signal with a time limit that is listened to would keep Deno from ending. */
  #unhear(outer: AbortSignal): void {
    const known = this.#heard.get(outer);
    if (!known || --known.watches > 0) return;
    outer.removeEventListener("abort", known.pass);
    this.#heard.delete(outer);
  }

  #look(): void {
    const now = performance.now();
    for (const watch of this.#all)
      if (watch.isIdle((slowest * this.#stall) / 1000, now - this.#stall, now))
        watch.break(new FetchFailed(`no answer for ${this.#stall / 1000} s`, { again: true }));
  }

  #forget(watch: Watch): void {
    if (!this.#all.delete(watch)) return;
    if (watch.outer) this.#unhear(watch.outer);
    if (this.#all.size > 0) return;
    clearInterval(this.#clock);
    this.#clock = undefined;
  }
}

/** The watch over one connection. */
export class Watch {
  readonly outer: AbortSignal | undefined;
  readonly #forget: (watch: Watch) => void;
  #abort: AbortController | undefined;
  #onBreak: (() => void) | undefined;
  #since = performance.now();
  #bytes = 0;
  /** Whether the connection was given up, and why. */
  isBroken = false;
  reason: unknown;

  constructor(outer: AbortSignal | undefined, forget: (watch: Watch) => void) {
    this.outer = outer;
    this.#forget = forget;
  }

  /** What ends the connection that is under way now. */
  onBreak(action: () => void): void {
    this.#onBreak = action;
    if (this.isBroken) action();
  }

  /** The same as a signal. */
  get signal(): AbortSignal {
    this.#abort ??= new AbortController();
    if (this.isBroken) this.#abort.abort(this.reason);
    return this.#abort.signal;
  }

  /** Bytes came; an answer's head counts as a good deal of them. */
  saw(bytes = 1024): void {
    this.#bytes += bytes;
  }

  /** Whether fewer than `least` bytes have come since `deadline`. */
  isIdle(least: number, deadline: number, now: number): boolean {
    if (this.#bytes < least) return this.#since <= deadline;
    this.#bytes = 0;
    this.#since = now;
    return false;
  }

  break(reason: unknown): void {
    if (this.isBroken) return;
    this.isBroken = true;
    this.reason = reason;
    this.#abort?.abort(reason);
    this.#onBreak?.();
  }

  end(): void {
    this.#forget(this);
  }
}
