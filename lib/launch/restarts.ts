import type { LauncherStateFile } from "./launcher-state.ts";

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

export type RestartPlan =
  | { again: true; pause: number; restarts: Restarts }
  | { again: false; reason: string };

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
    if (state.value.crashLoop && (uptime() ?? 0) >= goodRun)
      void state.note({ crashLoop: undefined }, log);
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
