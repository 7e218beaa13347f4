import { FetchFailed } from "./fetch-retry.ts";

/** Fewer bytes a second than this are no transfer but a connection held open. */
const slowest = 1000 / 30;

/** Gives a connection up that brings nothing: a server may hold it open for ever. */
export class Watch {
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #outer: AbortSignal | undefined;
  #bytes = 0;

  constructor(stall: number, outer: AbortSignal | undefined) {
    this.#outer = outer;
    this.#timer = setInterval(() => {
      if (this.#bytes >= (slowest * stall) / 1000) this.#bytes = 0;
      else this.#abort.abort(new FetchFailed(`no answer for ${stall / 1000} s`, { again: true }));
    }, stall);
    outer?.addEventListener("abort", this.#pass, { once: true });
    if (outer?.aborted) this.#pass();
  }

  readonly #pass = () => this.#abort.abort(this.#outer?.reason);

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Bytes came; an answer's head counts as a good deal of them. */
  saw(bytes = 1024): void {
    this.#bytes += bytes;
  }

  end(): void {
    clearInterval(this.#timer);
    this.#outer?.removeEventListener("abort", this.#pass);
  }
}
