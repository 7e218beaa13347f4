import { createServer } from "node:net";
import { join } from "node:path";
import { messageOf, UsageError } from "../core/errors.ts";
import { CommandFailed, shell } from "../exec/exec.ts";
import { formatListen, type Listen } from "../http/listen-address.ts";
import { type EndOptions, type RunningApp, startApp, takeOverApp } from "./app-process.ts";
import { afterExit, type Restarts } from "./backoff.ts";
import type { HealthCheck } from "./health.ts";
import { appEnvironment, type HookName, runHook } from "./hooks.ts";
import { type ListenSocket, openListenSocket } from "./listen-socket.ts";

/** What launchify.yml says about running the app. */
export interface AppSettings {
  exec: string;
  forever: boolean;
  /** A signal, or a command; TERM and KILL follow. */
  kill: { signal?: NodeJS.Signals | undefined; command?: string | undefined };
  /** Milliseconds an app has to end before the next harder way. */
  grace: number;
  env: Record<string, string>;
  listen?: Listen | undefined;
  health: HealthCheck;
  hooks: Partial<Record<HookName, string | undefined>>;
  /** Milliseconds that a hook may take. */
  hookTimeout: number;
}

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
  /** Asked first when the app ends by itself; true: somebody else sees to it. */
  guard: ((how: string) => boolean) | undefined;

  readonly #options: KeeperOptions;
  #socket: { listen: string; socket: ListenSocket } | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Ended by itself, and may have left processes behind (a daemon that it forked). */
  #remains: RunningApp | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Take over the app that outlived the launchfit before, else start it. */
  async begin(): Promise<void> {
    const { version } = await this.#options.current();
    const living = await takeOverApp(this.#record, version);
    if (!living) return this.start();
    this.#options.log(`took over ${version}, process ${living.pid}, which was running already`);
    this.#watch(living);
  }

  /**
   * Start the version that `current` names. The app must not be running.
   * @param known that version and its settings, where the caller has them: nothing is read then, while nobody serves.
   */
  async start(known?: { version: string; settings: AppSettings }): Promise<void> {
    clearTimeout(this.#timer);
    this.state = "starting";
    const { directory, output, log } = this.#options;
    const { version, settings } = known ?? (await this.#options.current());
    await this.#clearRemains();
    const dir = join(directory, "current");
    const env = appEnvironment({ version, releaseDir: dir }, settings.env);
    await runHook("before_start", {
      command: settings.hooks.before_start,
      cwd: dir,
      env,
      timeout: settings.hookTimeout,
      onLine: (line) => log(`before_start: ${line}`),
    });
    const socket = await this.#listenSocket(settings.listen);
    const app = await startApp({
      exec: settings.exec,
      dir,
      version,
      env,
      output,
      fd3: socket?.fd,
      record: this.#record,
    });
    log(`started ${version}, process ${app.pid}`);
    this.#watch(app);
  }

  /** End the app for good, or until `start`. */
  async stop(): Promise<void> {
    clearTimeout(this.#timer);
    // an app whose configuration cannot be read any more is ended all the same
    const settings = await this.#options.current().then(
      ({ settings }) => settings,
      () => undefined,
    );
    const app = this.app;
    this.app = undefined;
    this.state = "stopped";
    if (!app?.alive) return this.#clearRemains();
    await app.end(this.#endOptions(settings, app));
    this.#options.log(`ended ${app.version}`);
  }

  /** What an app left that ended by itself must not hold its address or its files against the next one. */
  async #clearRemains(): Promise<void> {
    const remains = this.#remains;
    this.#remains = undefined;
    await remains?.end({ signal: "SIGTERM", grace: 2000 });
  }

  /** Let go of the address; what waits in its backlog is refused. */
  close(): void {
    clearTimeout(this.#timer);
    this.#socket?.socket.close();
    this.#socket = undefined;
  }

  get #record(): string {
    return join(this.#options.directory, ".launchfit", "app.json");
  }

  #watch(app: RunningApp): void {
    this.app = app;
    this.state = "running";
    const begun = performance.now();
    void app.exited.then(({ how, code }) => this.#ended(app, how, code, begun));
  }

  #ended(app: RunningApp, how: string, code: number, begun: number): void {
    // ended by us, or replaced already
    if (this.app !== app) return;
    this.app = undefined;
    this.state = "stopped";
    this.lastEnd = how;
    this.#remains = app;
    // not by the clock of the day, which may jump
    const lived = performance.now() - begun;
    this.#options.log(`${app.version} ended with ${how}`);
    if (this.guard?.(how)) return;
    void this.#afterEnd(lived, how, code);
  }

  async #afterEnd(lived: number, how: string, code: number): Promise<void> {
    const settings = await this.#options.current().then(
      ({ settings }) => settings,
      () => undefined,
    );
    if (!settings?.forever) return this.#options.onGone(code, `the app ended with ${how}`);
    const verdict = afterExit(this.restarts, lived, how);
    if (!verdict.again) {
      this.state = "given up";
      return this.#options.onGone(1, verdict.reason);
    }
    this.restarts = verdict.restarts;
    this.state = "waiting to restart";
    this.#options.log(`starts again in ${verdict.pause / 1000} s`);
    this.#timer = setTimeout(() => {
      this.start().catch((error: unknown) => {
        this.#options.log(`cannot start: ${messageOf(error)}`);
        void this.#afterEnd(0, messageOf(error), 1);
      });
    }, verdict.pause);
  }

  #endOptions(settings: AppSettings | undefined, app: RunningApp): EndOptions {
    if (!settings) return { signal: "SIGTERM", grace: 10_000 };
    const { kill, grace } = settings;
    const { command } = kill;
    if (command === undefined) return { signal: kill.signal ?? "SIGTERM", grace };
    const cwd = join(this.#options.directory, "current");
    const env = appEnvironment({ version: app.version, releaseDir: cwd }, settings.env);
    return {
      signal: "SIGTERM",
      grace,
      command: async () => {
        try {
          await shell(command, {
            cwd,
            env: { ...env, LAUNCHFIT_PID: String(app.pid) },
            timeout: grace,
            output: { onLine: (line) => this.#options.log(`kill: ${line}`) },
          });
        } catch (error) {
          const words = error instanceof CommandFailed ? "failed" : messageOf(error);
          this.#options.log(`the kill command ${words}; TERM follows`);
        }
      },
    };
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

/** Binding alone does not fail on an address where somebody listens: try to listen, and let go at once. */
async function assertFree(listen: Listen): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...listen, exclusive: true }, resolve);
  }).catch((error: unknown) => {
    throw new UsageError(`app.listen: ${messageOf(error)}; end who holds it, or name another`);
  });
  await new Promise((resolve) => server.close(resolve));
}
