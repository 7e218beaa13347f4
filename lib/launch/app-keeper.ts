import { createServer } from "node:net";
import { join } from "node:path";
import { messageOf, UsageError } from "../core/errors.ts";
import { sh } from "../exec/exec.ts";
import { formatListen, type Listen } from "../http/server.ts";
import {
  type AppEnd,
  type EndOptions,
  type RunningApp,
  startApp,
  takeOverApp,
} from "./app-process.ts";
import type { AppSettings } from "./config.ts";
import { appEnvironment, runHook } from "./hooks.ts";
import { type ListenSocket, openListenSocket } from "./listen-socket.ts";

export type AppState = "stopped" | "starting" | "running" | "waiting to restart" | "given up";

export interface KeeperOptions {
  /** The deploy directory. */
  directory: string;
  /** The version that `current` names, and its settings; asked before every start. */
  current: () => Promise<{ version: string; settings: AppSettings }>;
  /** The descriptor that the app writes to. */
  output: number;
  log: (line: string) => void;
  /** The app has ended and will not be started again. */
  onGone: (code: number, reason: string) => void;
}

/** Keeps one app running: starts it, takes over a living one, restarts it with pauses, ends it. Never two. */
export class AppKeeper {
  app: RunningApp | undefined;
  state: AppState = "stopped";
  restarts: Restarts = { quick: 0, total: 0 };
  /** How the app ended the last time by itself. */
  lastEnd: string | undefined;
  /** Set while an update is under way: told when the app ends by itself, in place of a restart. */
  onUnexpectedEnd: ((how: string) => void) | undefined;

  readonly #options: KeeperOptions;
  #socket: { listen: string; socket: ListenSocket } | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  /** Ended by itself, and may have left processes behind (a daemon that it forked). */
  #remains: RunningApp | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Take over the app that outlived the launchfit before, else start it. */
  async takeOverOrStart(): Promise<void> {
    const { version } = await this.#options.current();
    const living = await takeOverApp(this.#record, version);
    if (!living) return this.start();
    this.#options.log(`took over ${version}, process ${living.pid}, which was running already`);
    this.#watch(living);
  }

  /**
   * Start the version that `current` names. The app must not be running.
   * @param known that version and its settings, where the caller has them.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async start(known?: { version: string; settings: AppSettings }): Promise<void> {
    clearTimeout(this.#restartTimer);
    this.state = "starting";
    const { directory, output, log } = this.#options;
    const { version, settings } = known ?? (await this.#options.current());
    await this.#clearRemains();
    const dir = join(directory, "current");
    await runHook("before_start", settings, { version, releaseDir: dir, cwd: dir, log });
    const env = appEnvironment({ version, releaseDir: dir }, settings.env);
    const { exec } = settings;
    const fd3 = (await this.#listenSocket(settings.listen))?.fd;
    const app = await startApp({ exec, dir, version, env, output, fd3, record: this.#record });
    log(`started ${version}, process ${app.pid}`);
    this.#watch(app);
  }

  /** End the app for good, or until `start`. */
  async stop(): Promise<void> {
    clearTimeout(this.#restartTimer);
    const settings = await this.#settings();
    const { app } = this;
    this.app = undefined;
    this.state = "stopped";
    if (!app?.alive) return this.#clearRemains();
    await app.end(this.#endOptions(settings, app));
    this.#options.log(`ended ${app.version}`);
  }

  /** Close the app's address; what waits in its backlog is refused. */
  close(): void {
    clearTimeout(this.#restartTimer);
    this.#socket?.socket.close();
    this.#socket = undefined;
  }

  get #record(): string {
    return join(this.#options.directory, ".launchfit", "app.json");
  }

  /** None when the configuration cannot be read any more: the app is ended all the same. */
  #settings(): Promise<AppSettings | undefined> {
    return this.#options.current().then(
      ({ settings }) => settings,
      () => undefined,
    );
  }

  /** What an app left that ended by itself must not hold its address or its files against the next one. */
  async #clearRemains(): Promise<void> {
    const remains = this.#remains;
    this.#remains = undefined;
    await remains?.end({ signal: "SIGTERM", grace: 2000 });
  }

  #watch(app: RunningApp): void {
    this.app = app;
    this.state = "running";
    // not by the clock of the day, which may jump
    const started = performance.now();
    void app.ended.then((end) => this.#ended(app, end, performance.now() - started));
  }

  #ended(app: RunningApp, end: AppEnd, lived: number): void {
    // ended by us, or replaced already
    if (this.app !== app) return;
    this.app = undefined;
    this.state = "stopped";
    this.lastEnd = end.how;
    this.#remains = app;
    this.#options.log(`${app.version} ended with ${end.how}`);
    if (this.onUnexpectedEnd) this.onUnexpectedEnd(end.how);
    else void this.#restartLater(end, lived);
  }

  async #restartLater({ how, code }: AppEnd, lived: number): Promise<void> {
    const settings = await this.#settings();
    if (!settings?.forever) return this.#options.onGone(code, `the app ended with ${how}`);
    const plan = planRestart(this.restarts, lived, how);
    if (!plan.again) {
      this.state = "given up";
      return this.#options.onGone(1, plan.reason);
    }
    this.restarts = plan.restarts;
    this.state = "waiting to restart";
    this.#options.log(`starts again in ${plan.pause / 1000} s`);
    this.#restartTimer = setTimeout(() => {
      this.start().catch((error: unknown) => {
        this.#options.log(`cannot start: ${messageOf(error)}`);
        void this.#restartLater({ how: messageOf(error), code: 1 }, 0);
      });
    }, plan.pause);
  }

  #endOptions(settings: AppSettings | undefined, app: RunningApp): EndOptions {
    if (!settings) return { signal: "SIGTERM", grace: 10_000 };
    const { kill, grace } = settings;
    if ("signal" in kill) return { signal: kill.signal, grace };
    const { log, directory } = this.#options;
    const cwd = join(directory, "current");
    const env = {
      ...appEnvironment({ version: app.version, releaseDir: cwd }, settings.env),
      LAUNCHFIT_PID: String(app.pid),
    };
    const onLine = (line: string) => log(`kill: ${line}`);
    const command = async () => {
      const { cause } = await sh(kill.command, { cwd, env, timeout: grace, onLine, nothrow: true });
      if (cause) log(`kill: ${messageOf(cause)}; TERM follows`);
    };
    return { signal: "SIGTERM", command, grace };
  }

  /** The socket for the app, opened once and kept over all its restarts. */
  async #listenSocket(listen: Listen | undefined): Promise<ListenSocket | undefined> {
    const name = listen && formatListen(listen);
    if (this.#socket?.listen === name) return this.#socket?.socket;
    this.close();
    if (!listen || !name) return undefined;
    await assertFree(listen);
    this.#socket = { listen: name, socket: openListenSocket(listen) };
    return this.#socket.socket;
  }
}

/** Binding alone does not fail on an address where somebody listens: try to listen, and stop at once. */
async function assertFree(listen: Listen): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...listen, exclusive: true }, resolve);
  }).catch((error: unknown) => {
    throw new UsageError(
      `app.listen: ${messageOf(error)}; end the process that holds it, or name another`,
    );
  });
  await new Promise((resolve) => server.close(resolve));
}

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
