import { notify, watchdogInterval } from "../http/systemd.ts";
import type { AppKeeper, AppSettings } from "./app-keeper.ts";
import { ask } from "./health.ts";
import { appEnvironment } from "./hooks.ts";

export interface HealthWatch {
  /** The last answer: `well`, `starting`, `alive` where there is no check, else what is wrong. */
  readonly last: string | undefined;
  close(): void;
}

/**
 * Ask the running app how it is, every `app.health.every`; a change is told. systemd's watchdog is fed for
 * as long as the answer is good, so that a unit with WatchdogSec= is restarted when the app hangs.
 */
export function watchHealth(
  keeper: AppKeeper,
  {
    cwd,
    settings,
    log,
  }: {
    cwd: string;
    settings: (version: string) => Promise<AppSettings>;
    log: (line: string) => void;
  },
): HealthWatch {
  let last: string | undefined;
  /** The app of the last look, since when, and whether it ever answered well. */
  let seen: { app: AppKeeper["app"]; since: number; well: boolean } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  async function look(): Promise<void> {
    const { app } = keeper;
    let pause = 30_000;
    if (app?.alive) {
      const { health, env } = await settings(app.version);
      pause = health.every;
      if (seen?.app !== app) seen = { app, since: performance.now(), well: false };
      const said =
        health.url === undefined && health.command === undefined
          ? "alive"
          : ((await ask(health, {
              patience: health.timeout,
              cwd,
              env: appEnvironment({ version: app.version, releaseDir: cwd }, env),
            })) ?? "well");
      seen.well ||= said === "well";
      // an app has the whole of health.within for its start: systemd must not take that for a hang
      const early = !seen.well && performance.now() - seen.since < health.within;
      const answer = early && said !== "alive" ? "starting" : said;
      // the app may have been replaced while it was asked
      if (keeper.app === app) {
        if (last !== undefined && last !== answer) log(`health: ${answer}`);
        last = answer;
      }
    } else last = undefined;
    const watchdog = watchdogInterval();
    if (isGood()) await notify("WATCHDOG=1");
    if (!closed) timer = setTimeout(again, Math.min(pause, watchdog ?? pause));
  }

  // between two apps, and while one is given up on purpose, launchfit itself is what lives
  const isGood = () => last === undefined || ["well", "alive", "starting"].includes(last);
  const again = () => {
    look().catch((error: unknown) => {
      log(`health: ${String(error)}`);
      if (!closed) timer = setTimeout(again, 30_000);
    });
  };
  timer = setTimeout(again, 1000);
  return {
    get last() {
      return keeper.app?.alive ? (last ?? "not asked yet") : undefined;
    },
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
