/** Bytes that an archive must come on by in each window, else the retrieval is refused as too slow. */
export const slowest = 64 * 1024;

/** Aborts a download that hardly comes on. */
export class Pace {
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly signal: AbortSignal;
  #done = 0;
  #before = 0;

  constructor(window: number, outer: AbortSignal | undefined) {
    this.signal = outer ? AbortSignal.any([outer, this.#abort.signal]) : this.#abort.signal;
    this.#timer = setInterval(() => {
      if (this.#done - this.#before < slowest) this.#abort.abort(new Error("slow"));
      this.#before = this.#done;
    }, window);
  }

  at(done: number): void {
    this.#done = Math.max(done, this.#done);
  }

  end(): void {
    clearInterval(this.#timer);
  }
}
