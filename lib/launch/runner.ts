import { Failure, messageOf } from "../core/errors.ts";
import { sh } from "../exec/exec.ts";
import { formatListen } from "../http/server.ts";
import type { AppSettings } from "./config.ts";
import type { Releases } from "./releases.ts";
import { type App, type AppEnd, type AppProcesses, type EndOptions } from "./app.ts";
import { awaitHealth, type Question } from "./health.ts";
import { appEnvironment, ReleaseFailed, runHook } from "./hooks.ts";
import { freePort, type ListenSocket, makeBlocking, openListenSocket } from "./listen-socket.ts";
import type { AppLog } from "./app-log.ts";
import type { Step } from "./next.ts";

/** A version that cannot run beside another may still run alone. */
export class CannotRunBeside extends Failure {
  override name = "Failure";
}

export interface RunnerOptions {
  releases: Releases;
  processes: AppProcesses;
  log: Pick<AppLog, "app" | "own">;
  /** Aborted when launchfit ends. */
  signal: AbortSignal;
  /** The app has ended, by itself or not. */
  onEnded: (app: App, end: AppEnd) => void;
}

/** A step that concerns the app's processes. */
export type AppStep = Extract<Step, { do: "end" | "start" | "health" | "beside" | "hand over" | "confirm" }>;

/** Starts, asks and ends the versions of an app, all with one socket. It decides nothing. */
export class Runner {
  /** The app; dead for a moment when it has ended by itself. */
  app: App | undefined;
  readonly #options: RunnerOptions;
  #socket: { name: string; socket: ListenSocket } | undefined;
  #beside: App | undefined;
  /** By which the app was asked last, and what has been wrong with the configuration since. */
  #known: { version: string; settings: AppSettings; wrong?: string } | undefined;
  /** The port of its own by which an app is asked before it is the only one. */
  readonly #healthPorts = new WeakMap<App, number>();

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** End what a launchfit that was killed may have left. */
  async clear(): Promise<void> {
    const { processes, log } = this.#options;
    for (const { version, pid } of await processes.endLeft())
      log.own(`version ${version}, process ${pid}, was left by a launchfit that was killed: it is ended`);
  }

  /** @throws {Failure} when the step fails. */
  async do(step: AppStep): Promise<void> {
    switch (step.do) {
      case "end":
        return this.end();
      case "start":
        return this.start(step.version);
      case "health":
        return this.assertHealthy(this.app);
      case "beside":
        return this.startBeside(step.version);
      case "hand over": {
        const before = this.app;
        this.app = this.#beside;
        this.#beside = undefined;
        return before && this.endApp(before);
      }
      case "confirm":
        return this.confirm(step.change);
    }
  }

  /** How the app is asked for its health; while somebody edits the configuration and makes a mistake, as before. */
  async question({ version }: App): Promise<Question> {
    const { releases, log } = this.#options;
    try {
      this.#known = { version, settings: await releases.settings(version) };
    } catch (error) {
      if (this.#known?.version !== version) throw error;
      const wrong = messageOf(error);
      if (this.#known.wrong !== wrong) log.own(`health: ${wrong}; the app is asked as before`);
      this.#known.wrong = wrong;
    }
    const { health, env } = this.#known.settings;
    const cwd = releases.deploy.current;
    return { check: health, cwd, env: appEnvironment({ version, releaseDir: cwd }, env) };
  }

  /** Close the app's address; what waits in its backlog is refused, unless systemd holds it. */
  close(): void {
    this.#socket?.socket.close();
    this.#socket = undefined;
  }

  private async end(): Promise<void> {
    const { app } = this;
    this.app = undefined;
    if (this.#beside) await this.endApp(this.#beside);
    this.#beside = undefined;
    if (app) await this.endApp(app);
  }

  private async start(version: string): Promise<void> {
    this.app = undefined;
    const settings = await this.#options.releases.settings(version);
    const socket = await this.socketFor(settings);
    this.app = await this.spawn(version, settings, socket && { socket, isShared: false });
    this.#options.log.own(`started ${version}, process ${this.app.pid}`);
  }

  private async startBeside(version: string): Promise<void> {
    const { releases, log } = this.#options;
    const settings = await releases.settings(version);
    const name = settings.listen && formatListen(settings.listen);
    if (!this.#socket || name !== this.#socket.name) throw new CannotRunBeside("app.listen has changed");
    const next = await this.spawn(version, settings, {
      socket: this.#socket.socket,
      isShared: true,
    });
    this.#beside = next;
    log.own(`started ${version}, process ${next.pid}, beside ${this.app?.version}`);
    try {
      await this.assertHealthy(next);
    } catch (error) {
      const hint = "before it was healthy (if the app cannot run twice, write app.overlap: false)";
      const failure = next.alive ? error : new CannotRunBeside(`${messageOf(error)} ${hint}`);
      this.#beside = undefined;
      await this.endApp(next);
      throw failure;
    }
  }

  private async confirm({ from, to }: { from: string; to: string }): Promise<void> {
    const { releases, log, signal } = this.#options;
    const cwd = releases.deploy.current;
    const hook = { version: to, releaseDir: cwd, previous: from, cwd, log: log.own, signal };
    await runHook("after_restart", await releases.settings(to, { toRun: this.app !== undefined }), hook);
    // it may have ended while the hook ran
    if (this.app?.alive === false) throw new ReleaseFailed(`it ended with ${(await this.app.ended).how}`);
  }

  private async assertHealthy(app: App | undefined): Promise<void> {
    if (!app) throw new Failure("it is not there");
    const { signal } = this.#options;
    const question = { ...(await this.question(app)), port: this.#healthPorts.get(app) };
    const wrong = await awaitHealth(question, { gone: app.ended, signal });
    if (wrong !== undefined) throw new ReleaseFailed(wrong);
  }

  private async spawn(
    version: string,
    settings: AppSettings,
    listen: { socket: ListenSocket; isShared: boolean } | undefined,
  ): Promise<App> {
    const { log, signal, onEnded, processes } = this.#options;
    const { exec, env, overlap } = settings;
    const dir = await this.directoryOf(version, settings);
    await runHook("before_start", settings, {
      version,
      releaseDir: dir,
      cwd: dir,
      log: log.own,
      signal,
    });
    if (signal.aborted) throw new Failure("launchfit is ending");
    // the one that serves meanwhile has made the socket as it wants it
    if (listen && !listen.isShared) await makeBlocking(listen.socket);
    const port = overlap ? await freePort() : undefined;
    const variables = appEnvironment({ version, releaseDir: dir }, env);
    const app = await processes.start({
      ...{ exec, dir, version, onLine: log.app, socket: listen?.socket.fd },
      env: port === undefined ? variables : { ...variables, LAUNCHFIT_HEALTH_PORT: String(port) },
    });
    if (port !== undefined) this.#healthPorts.set(app, port);
    void app.ended.then((end) => onEnded(app, end));
    return app;
  }

  private async endApp(app: App): Promise<void> {
    // while the configuration cannot be read, it is ended all the same
    const settings = await this.#options.releases.settings(app.version).catch(() => undefined);
    const wasAlive = app.alive;
    await app.end(this.endOptions(app, settings));
    if (wasAlive) this.#options.log.own(`ended ${app.version}`);
  }

  private endOptions(app: App, settings: AppSettings | undefined): EndOptions {
    if (!settings) return { signal: "SIGTERM", grace: 10_000 };
    const { kill, grace } = settings;
    if ("signal" in kill) return { signal: kill.signal, grace };
    const say = (line: string) => this.#options.log.own(`kill: ${line}`);
    const command = async () => {
      const cwd = await this.directoryOf(app.version, settings);
      const variables = appEnvironment({ version: app.version, releaseDir: cwd }, settings.env);
      const env = { ...variables, LAUNCHFIT_PID: String(app.pid) };
      const { cause } = await sh(kill.command, {
        cwd,
        env,
        timeout: grace,
        onLine: say,
        nothrow: true,
      });
      if (cause) say(`${messageOf(cause)}; TERM follows`);
    };
    return { signal: "SIGTERM", command, grace };
  }

  /** While two versions run, the link `current` is right for one of them only. */
  private async directoryOf(version: string, { overlap }: AppSettings): Promise<string> {
    const { releases } = this.#options;
    return overlap ? await releases.folderOf(version) : releases.deploy.current;
  }

  /** Opened once, and kept over all restarts. */
  private async socketFor({ listen, ...rights }: AppSettings): Promise<ListenSocket | undefined> {
    const name = listen && formatListen(listen);
    if (this.#socket?.name === name) return this.#socket?.socket;
    this.close();
    if (!listen || !name) return undefined;
    this.#socket = {
      name,
      socket: await openListenSocket(listen, { mode: rights.listen_mode, group: rights.listen_group }),
    };
    return this.#socket.socket;
  }
}
