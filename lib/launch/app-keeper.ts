import { rename, rm } from "node:fs/promises";
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
import type { AppSettings } from "./app-settings.ts";
import { appEnvironment, runHook } from "./hooks.ts";
import { type ListenSocket, openListenSocket } from "./listen-socket.ts";
import type { Releases } from "./releases.ts";
import { planRestart, type Restarts } from "./restarts.ts";

export type AppState = "stopped" | "starting" | "running" | "waiting to restart" | "given up";

export interface KeeperOptions {
  /** Asked before every start which version is current, and how it is run. */
  releases: Releases;
  /** The descriptor that the app writes to. */
  output: number;
  log: (line: string) => void;
  /** The app has ended and will not be started again. */
  onGone: (code: number, reason: string) => void;
}

/** A version, and how it is run. */
interface Known {
  version: string;
  settings: AppSettings;
}

/**
 * Keeps one app running: starts it, takes over a living one, restarts it with pauses, ends it. Never two, but for the
 * moments in which an update starts one beside the other.
 */
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
    const { version } = await this.#current();
    const { app, beside } = this.#records;
    // an update that was killed may have left two: the one that is current goes on, the other is ended
    const [first, second] = [await takeOverApp(app, version), await takeOverApp(beside, version)];
    if (second) await rename(beside, app);
    const living = second ?? first;
    if (!living) return this.start();
    this.#options.log(`took over ${version}, process ${living.pid}, which was running already`);
    this.#watch(living);
  }

  /**
   * Start the version that `current` names. The app must not be running.
   * @param known that version and its settings, where the caller has them.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async start(known?: Known): Promise<void> {
    clearTimeout(this.#restartTimer);
    this.state = "starting";
    const { version, settings } = known ?? (await this.#current());
    await this.#clearRemains();
    const app = await this.#launch({ version, settings }, this.#records.app);
    this.#options.log(`started ${version}, process ${app.pid}`);
    this.#watch(app);
  }

  /** Why another version cannot be started beside the one that runs; undefined when it can. */
  obstacleTo({ listen }: AppSettings): string | undefined {
    if (!this.app?.alive) return "no app runs";
    if (!this.#socket)
      return "the socket that the app got was opened by a launchfit that has ended";
    if (this.#socket.listen !== (listen && formatListen(listen))) return "app.listen has changed";
    return undefined;
  }

  /**
   * Start another version beside the one that runs, with the same socket. The one that runs stays the app.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async startBeside(known: Known): Promise<RunningApp> {
    const next = await this.#launch(known, this.#records.beside);
    this.#options.log(`started ${known.version}, process ${next.pid}, beside ${this.app?.version}`);
    return next;
  }

  /** End one that was started beside the app, which goes on. */
  async endBeside(next: RunningApp, settings: AppSettings): Promise<void> {
    await next.end(this.#endOptions(settings, next));
    await rm(this.#records.beside, { force: true });
    this.#options.log(`ended ${next.version}`);
  }

  /** From now on the one that was started beside the app is the app; the one before is ended. */
  async handOver(next: RunningApp): Promise<void> {
    const before = this.app;
    this.#watch(next);
    if (before) {
      const settings = await this.#options.releases.settings(before.version).catch(() => undefined);
      await before.end(this.#endOptions(settings, before));
      this.#options.log(`ended ${before.version}`);
    }
    await this.#clearRemains();
    const { app, beside } = this.#records;
    await rename(beside, app);
  }

  async #launch({ version, settings }: Known, record: string): Promise<RunningApp> {
    const { output, log } = this.#options;
    const dir = await this.#directoryOf(version, settings);
    await runHook("before_start", settings, { version, releaseDir: dir, cwd: dir, log });
    const env = appEnvironment({ version, releaseDir: dir }, settings.env);
    const { exec, listen } = settings;
    const fd3 = (await this.#listenSocket(listen))?.fd;
    return await startApp({ exec, dir, version, env, output, fd3, record });
  }

  /** While two versions run, the link `current` is right for one of them only. */
  async #directoryOf(version: string, settings: AppSettings | undefined): Promise<string> {
    const { releases } = this.#options;
    return settings?.overlap ? await releases.folderOf(version) : releases.deploy.current;
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

  /** Where the app is recorded, and the one that an update starts beside it. */
  get #records(): { app: string; beside: string } {
    const { state } = this.#options.releases.deploy;
    return { app: join(state, "app.json"), beside: join(state, "app-beside.json") };
  }

  async #current(): Promise<Known> {
    const { releases } = this.#options;
    const version = (await releases.current()) ?? "";
    return { version, settings: await releases.settings(version) };
  }

  /** None when the configuration cannot be read any more: the app is ended all the same. */
  #settings(): Promise<AppSettings | undefined> {
    return this.#current().then(
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
    const { log } = this.#options;
    const onLine = (line: string) => log(`kill: ${line}`);
    const command = async () => {
      const cwd = await this.#directoryOf(app.version, settings);
      const env = {
        ...appEnvironment({ version: app.version, releaseDir: cwd }, settings.env),
        LAUNCHFIT_PID: String(app.pid),
      };
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
