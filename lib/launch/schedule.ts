import type { Releases } from "./releases.ts";
import type { LauncherStateFile } from "./state.ts";

/** What a running launchfit does by itself, and when: it looks for updates, and starts again what ended or hangs. */

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

/** When an app that ended, or hangs, is started again, and when it counts as well. */

/** Milliseconds an app must have lived for its crashes so far to be forgiven. */
export const goodRun = 60_000;

/** After so many quick ends in a row the app is given up. */
export const crashLoop = 10;

const minPause = 1000;
const maxPause = 60_000;

/** What is known of the app's ends. */
export interface Restarts {
  /** Ends in a row, each after less than a good run. */
  quick: number;
  /** Starts after the first one, ever. */
  total: number;
}

export type RestartPlan = { again: true; pause: number; restarts: Restarts } | { again: false; reason: string };

/** Whether, and after how many milliseconds, an app is started again that lived for `lived` milliseconds. Pure. */
export function planRestart(restarts: Restarts, lived: number, how: string): RestartPlan {
  const quick = lived >= goodRun ? 1 : restarts.quick + 1;
  if (quick > crashLoop) {
    return {
      again: false,
      reason: `crash loop: it ended ${quick} times in a row within a minute, the last time with ${how}`,
    };
  }
  const pause = Math.min(maxPause, minPause * 2 ** (quick - 1));
  return { again: true, pause, restarts: { quick, total: restarts.total + 1 } };
}

/**
 * An app that was given up counts as well again once it has run for a minute.
 * @param uptime milliseconds; undefined while it does not run.
 */
export function watchRecovery(
  uptime: () => number | undefined,
  state: LauncherStateFile,
  log: (line: string) => void,
): { close(): void } {
  const timer = setInterval(() => {
    if (state.value.crashLoop && (uptime() ?? 0) >= goodRun) void state.note({ crashLoop: undefined }, log);
  }, goodRun / 6);
  return { close: () => clearInterval(timer) };
}

/** So often an app that runs and is not healthy is started again within an hour; then it stays as it is. */
export const maxIllRestarts = 5;
const hour = 3_600_000;

/**
 * Whether an app that is ill is started again.
 * @param times when it was before, in milliseconds of the clock of `now`.
 * @returns the times with this one; undefined when it was too often.
 */
export function planIllRestart(times: readonly number[], now: number): number[] | undefined {
  const lately = times.filter((time) => now - time < hour);
  return lately.length < maxIllRestarts ? [...lately, now] : undefined;
}
