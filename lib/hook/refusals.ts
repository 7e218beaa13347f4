interface Options {
  /** Lines that are logged in a window, and its milliseconds. */
  readonly lines?: number;
  readonly window?: number;
}

/**
 * The log of what strangers are refused. Whoever reaches the server can send as much as he likes: of each minute the
 * first refusals are a line each, and all others together one more.
 */
export class Refusals {
  readonly #log: (text: string) => void;
  readonly #lines: number;
  readonly #window: number;
  #count = 0;
  /** Those without a line, by status. */
  readonly #more = new Map<number, number>();
  #timer: NodeJS.Timeout | undefined;

  constructor(log: (text: string) => void, { lines = 10, window = 60_000 }: Options = {}) {
    this.#log = log;
    this.#lines = lines;
    this.#window = window;
  }

  /** One that was answered with `status`, and its line. */
  add(status: number, line: string): void {
    this.#timer ??= setTimeout(() => this.close(), this.#window).unref();
    this.#count += 1;
    if (this.#count <= this.#lines) this.#log(line);
    else this.#more.set(status, (this.#more.get(status) ?? 0) + 1);
  }

  /** End the window: what had no line is told now. */
  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const left = this.#count - this.#lines;
    const statuses = [...this.#more].map(([status, count]) => `${count} with ${status}`);
    this.#count = 0;
    this.#more.clear();
    if (left > 0)
      this.#log(`${left} more unproved deliveries were refused: ${statuses.join(", ")}`);
  }
}
