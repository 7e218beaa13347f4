import { messageOf, systemCode } from "../core/errors.ts";
import { sh, timedOut } from "../exec/exec.ts";
import { request } from "../fetch/fetch.ts";
import { notify, watchdogInterval } from "../http/systemd.ts";
import type { AppKeeper } from "./app-keeper.ts";
import type { RunningApp } from "./app-process.ts";
import type { AppSettings, HealthCheck } from "./config.ts";
import { appEnvironment } from "./run-release.ts";

/** Milliseconds between two questions while a new app starts. */
const pauseBetween = 10;

interface Surroundings {
  cwd: string;
  env: Record<string, string>;
}

/**
 * Wait until a new app is healthy.
 * @param gone settles when the app has ended: then there is nothing more to wait for.
 * @returns undefined when it is healthy, else what is wrong.
 */
export async function awaitHealth(
  check: HealthCheck,
  {
    gone,
    signal,
    cwd = "/",
    env = {},
    ask = (timeout) => askHealth(check, { cwd, env, timeout }),
  }: Partial<Surroundings> & {
    gone: Promise<{ how: string }>;
    /** Aborting it ends the waiting with a reason. */
    signal: AbortSignal;
    /** Another way to ask. */
    ask?: (timeout: number) => Promise<string | undefined>;
  },
): Promise<string | undefined> {
  // the clock of the day may jump meanwhile
  const deadline = performance.now() + check.within;
  let ended: string | undefined;
  const end = gone.then(({ how }) => {
    ended = how;
    return "it ended";
  });
  const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
  if (check.url === undefined && check.command === undefined) {
    await Promise.race([end, aborted, pause(check.within)]);
    if (ended === undefined && !signal.aborted) return undefined;
  }
  let reason: string | undefined;
  while (ended === undefined && !signal.aborted) {
    const left = deadline - performance.now();
    if (left <= 0) return `no good answer within ${check.within / 1000} s: ${reason ?? "no answer"}`;
    const timeout = Math.min(left, check.timeout);
    const wrong = await Promise.race([ask(timeout), end]);
    // the app must still be alive when its answer counts
    if (wrong === undefined && ended === undefined) return undefined;
    // a question that the deadline cuts short tells less than the one before it
    if (reason === undefined || performance.now() < deadline) reason = wrong ?? reason;
    await Promise.race([pause(Math.min(pauseBetween, Math.max(0, left))), end]);
  }
  return signal.aborted ? "launchfit is ending" : `it ended with ${ended}`;
}

/** One question; undefined when the answer is good, else what is wrong. */
async function askHealth(
  { url, command = "true" }: HealthCheck,
  options: Surroundings & { timeout: number },
): Promise<string | undefined> {
  if (url !== undefined) return await askUrl(url, options.timeout);
  const answer = await sh(command, { ...options, grace: 500, nothrow: true });
  if (timedOut(answer)) return "the health command took too long";
  const { exitCode } = answer;
  return exitCode === 0 ? undefined : `the health command ended with exit code ${exitCode}`;
}

async function askUrl(url: string, timeout: number): Promise<string | undefined> {
  try {
    // a connection of its own each time: one kept from the old app would answer for the new one
    const { status } = await request(url, { timeout, maxBytes: 0 });
    return status >= 200 && status < 400 ? undefined : `status ${status}`;
  } catch (error) {
    return systemCode(error) ?? messageOf(error);
  }
}

export interface HealthWatch {
  /** The last answer: `well`, `starting`, `alive` where there is no check, else what is wrong. */
  readonly last: string | undefined;
  close(): void;
}

/** The answers with which an app counts as healthy. */
export const healthyAnswers: readonly string[] = ["well", "alive", "starting", "not asked yet"];

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
    onIll,
  }: {
    cwd: string;
    settings: (version: string) => Promise<AppSettings>;
    log: (line: string) => void;
    /** The app gave `app.health.failures` bad answers in a row, at the pace of `app.health.every`. */
    onIll: (app: RunningApp, wrong: string) => void;
  },
): HealthWatch {
  let last: string | undefined;
  /** The app that was asked last, since when, and whether it was ever well. */
  let seen: { app: RunningApp; since: number; well: boolean; bad: number[] } | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  /** By which it was asked last, and what has been wrong with the configuration since. */
  let known: { version: string; settings: AppSettings; wrong?: string } | undefined;

  /** How the app is asked; while somebody edits the configuration and makes a mistake, as before. */
  async function settingsOf(version: string): Promise<AppSettings> {
    try {
      known = { version, settings: await settings(version) };
    } catch (error) {
      if (known?.version !== version) throw error;
      const wrong = messageOf(error);
      if (known.wrong !== wrong) log(`health: ${wrong}; the app is asked as before`);
      known.wrong = wrong;
    }
    return known.settings;
  }

  /** Asks once; the milliseconds until the next question. */
  async function ask(): Promise<number> {
    const { app } = keeper;
    if (!app?.alive) {
      last = undefined;
      // most often it is about to be started again
      return keeper.state === "given up" ? 30_000 : 1000;
    }
    const { version } = app;
    const { health, env } = await settingsOf(version);
    if (seen?.app !== app) seen = { app, since: performance.now(), well: false, bad: [] };
    let answer = "alive";
    if (health.url !== undefined || health.command !== undefined) {
      const environment = appEnvironment({ version, releaseDir: cwd }, env);
      answer = (await askHealth(health, { timeout: health.timeout, cwd, env: environment })) ?? "well";
      seen.well ||= answer === "well";
      // an app has the whole of health.within for its start: systemd must not take that for a hang
      if (!seen.well && performance.now() - seen.since < health.within) answer = "starting";
    }
    // the app may have been replaced while it was asked
    if (keeper.app === app) {
      if (last !== undefined && last !== answer) log(`health: ${answer}`);
      last = answer;
      const now = performance.now();
      seen.bad = healthyAnswers.includes(answer) ? [] : [...seen.bad, now];
      const { failures = false, every } = health;
      const [first = now] = seen.bad;
      // systemd's watchdog may have the app asked more often
      if (failures && seen.bad.length >= failures && now - first >= (failures - 1) * every) {
        seen.bad = [];
        onIll(app, answer);
      }
    }
    return health.every;
  }

  async function look(): Promise<void> {
    let pause = 30_000;
    try {
      pause = await ask();
      // between two apps, and while one is given up on purpose, launchfit itself is what lives
      if (last === undefined || healthyAnswers.includes(last)) await notify("WATCHDOG=1");
    } catch (error) {
      log(`health: ${messageOf(error)}`);
    }
    if (!closed) timer = setTimeout(() => void look(), Math.min(pause, watchdogInterval() ?? pause));
  }

  timer = setTimeout(() => void look(), 1000);
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

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
