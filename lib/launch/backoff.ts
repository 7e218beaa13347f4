/** When an app that ended is started again (design, section 11, `app.forever`). Pure. */

/** Milliseconds an app must have lived for its crashes so far to be forgiven. */
export const goodRun = 60_000;

/** After so many quick ends in a row the app is given up. */
export const crashLoop = 10;

const firstPause = 1000;
const longestPause = 60_000;

/** What is known of the app's ends. */
export interface Restarts {
  /** Ends in a row, each after less than a good run. */
  quick: number;
  /** Starts after the first one, ever. */
  total: number;
}

export type Verdict =
  | { again: true; pause: number; restarts: Restarts }
  | { again: false; reason: string };

/** Whether and when to start again after an app lived for `lived` milliseconds. */
export function afterExit(restarts: Restarts, lived: number, how: string): Verdict {
  const quick = lived >= goodRun ? 1 : restarts.quick + 1;
  if (quick > crashLoop) {
    return {
      again: false,
      reason: `crash loop: it ended ${quick} times in a row within a minute, the last time with ${how}`,
    };
  }
  const pause = Math.min(longestPause, firstPause * 2 ** (quick - 1));
  return { again: true, pause, restarts: { quick, total: restarts.total + 1 } };
}
