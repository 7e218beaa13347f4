import type { Releases } from "./releases.ts";

/** When a running launchfit looks for a new version without being asked: every `updates.every`. */
export class UpdateSchedule {
  readonly #releases: Releases;
  readonly #check: () => Promise<unknown>;
  #timer: NodeJS.Timeout | undefined;
  /** By the clock that never jumps. */
  #next: number | undefined;
  /** Milliseconds, as they could be read last. */
  #every = 15 * 60_000;
  #isClosed = false;

  /** @param check looks, and plans the next look. */
  constructor(releases: Releases, check: () => Promise<unknown>) {
    this.#releases = releases;
    this.#check = check;
  }

  /** The time of the next look, ISO 8601. */
  get next(): string | undefined {
    if (this.#next === undefined) return undefined;
    return new Date(Date.now() + this.#next - performance.now()).toISOString();
  }

  /** Plan the next look, in place of the one that was planned. */
  async plan(): Promise<void> {
    const follows = await this.follows();
    clearTimeout(this.#timer);
    this.#next = undefined;
    if (this.#isClosed) return;
    // a fleet of apps must not ask all at the same moment
    const pause = Math.min(this.#every * (0.9 + Math.random() * 0.2), 2 ** 31 - 1);
    if (follows) this.#next = performance.now() + pause;
    // the configuration may say otherwise by then, or its mistake be corrected
    const look = () => (follows ? this.#check() : this.plan());
    this.#timer = setTimeout(() => void look().catch(() => {}), pause);
  }

  /** Whether a web folder is followed; not while the configuration cannot be read. */
  async follows(): Promise<boolean> {
    try {
      const { enabled, server, every } = (await this.#releases.config()).updates;
      if (every === false) return false;
      this.#every = every;
      return enabled && server.length > 0;
    } catch {
      return false;
    }
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
  }
}
