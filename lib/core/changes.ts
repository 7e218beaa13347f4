/** Something that changes, and those who wait for it. */
export class Changes {
  readonly #waiting = new Set<() => void>();

  /** Wait for the next change, but not longer than `ms`, nor than the signal. */
  next(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#waiting.add(end);
      signal.addEventListener("abort", end);
      if (signal.aborted) end();
    });
  }

  tell(): void {
    for (const end of [...this.#waiting]) end();
  }
}
