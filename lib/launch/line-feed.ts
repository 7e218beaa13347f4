import { open } from "node:fs/promises";

/** The last lines of the log, kept for whoever asks, and the coming ones for whoever follows. */
export class LineFeed {
  readonly #lines: string[] = [];
  readonly #listeners = new Set<(line: string) => void>();

  /** Begin with the end of what an earlier launchfit wrote. */
  async load(file: string): Promise<void> {
    const handle = await open(file, "r").catch(() => undefined);
    if (!handle) return;
    try {
      const { size } = await handle.stat();
      const start = Math.max(0, size - tailSize);
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(tailSize), 0, tailSize, start);
      const lines = buffer
        .toString("utf8", 0, bytesRead)
        .split("\n")
        .slice(start > 0 ? 1 : 0, -1);
      this.#lines.unshift(...lines.slice(-kept));
    } finally {
      await handle.close();
    }
  }

  add(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > kept * 2) this.#lines.splice(0, kept);
    for (const listener of this.#listeners) listener(line);
  }

  /** The last `count` lines; with `follow` also the coming ones, until `signal` is aborted. */
  async give(
    onLine: (line: string) => void,
    { count, follow, signal }: { count: number; follow: boolean; signal: AbortSignal },
  ): Promise<void> {
    for (const line of count > 0 ? this.#lines.slice(-Math.min(count, kept)) : []) onLine(line);
    if (!follow || signal.aborted) return;
    this.#listeners.add(onLine);
    await new Promise<void>((resolve) =>
      signal.addEventListener("abort", () => resolve(), { once: true }),
    );
    this.#listeners.delete(onLine);
  }
}

const kept = 500;
const tailSize = 128 * 1024;
