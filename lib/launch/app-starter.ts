import { Failure, messageOf } from "../core/errors.ts";
import { sh } from "../exec/exec.ts";
import { formatListen } from "../http/server.ts";
import { type EndOptions, type RunningApp, startApp } from "./app-process.ts";
import type { AppSettings } from "./app-settings.ts";
import { appEnvironment, runHook } from "./hooks.ts";
import { type ListenSocket, openFreeSocket } from "./listen-socket.ts";
import type { Releases } from "./releases.ts";

/** A version, and how it is run. */
export interface Known {
  version: string;
  settings: AppSettings;
}

export interface AppStarterOptions {
  releases: Releases;
  /** The descriptor that the app writes to. */
  output: number;
  log: (line: string) => void;
  /** Aborted when launchfit ends: nothing is started any more. */
  signal: AbortSignal;
}

/** Starts and ends versions of the app as they are configured, all with one socket. */
export class AppStarter {
  readonly #options: AppStarterOptions;
  #socket: { listen: string; socket: ListenSocket } | undefined;

  constructor(options: AppStarterOptions) {
    this.#options = options;
  }

  /**
   * Start a version.
   * @param record the file in which it is recorded while it lives.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async start({ version, settings }: Known, record: string): Promise<RunningApp> {
    const { output, log, signal } = this.#options;
    const dir = await this.directoryOf(version, settings);
    await runHook("before_start", settings, { version, releaseDir: dir, cwd: dir, log, signal });
    if (signal.aborted) throw new Failure("launchfit is ending");
    const env = appEnvironment({ version, releaseDir: dir }, settings.env);
    const { exec } = settings;
    const fd3 = (await this.socketFor(settings))?.fd;
    return await startApp({ exec, dir, version, env, output, fd3, record });
  }

  /** End one in its own way, without settings in the usual one. */
  async end(app: RunningApp, settings: AppSettings | undefined): Promise<void> {
    await app.end(this.endOptions(app, settings));
    this.#options.log(`ended ${app.version}`);
  }

  /** Why a version would not get the socket that the running one has; undefined when it would. */
  obstacleTo({ listen }: AppSettings): string | undefined {
    if (!this.#socket)
      return "the socket that the app got was opened by a launchfit that has ended";
    if (this.#socket.listen !== (listen && formatListen(listen))) return "app.listen has changed";
    return undefined;
  }

  /** Close the socket; what waits in its backlog is refused. */
  close(): void {
    this.#socket?.socket.close();
    this.#socket = undefined;
  }

  /** While two versions run, the link `current` is right for one of them only. */
  private async directoryOf(version: string, { overlap }: AppSettings): Promise<string> {
    const { releases } = this.#options;
    return overlap ? await releases.folderOf(version) : releases.deploy.current;
  }

  /** Opened once, and kept over all restarts. */
  private async socketFor({ listen }: AppSettings): Promise<ListenSocket | undefined> {
    const name = listen && formatListen(listen);
    if (this.#socket?.listen === name) return this.#socket?.socket;
    this.close();
    if (!listen || !name) return undefined;
    this.#socket = { listen: name, socket: await openFreeSocket(listen) };
    return this.#socket.socket;
  }

  private endOptions(app: RunningApp, settings: AppSettings | undefined): EndOptions {
    if (!settings) return { signal: "SIGTERM", grace: 10_000 };
    const { kill, grace } = settings;
    if ("signal" in kill) return { signal: kill.signal, grace };
    const { log } = this.#options;
    const onLine = (line: string) => log(`kill: ${line}`);
    const command = async () => {
      const cwd = await this.directoryOf(app.version, settings);
      const env = {
        ...appEnvironment({ version: app.version, releaseDir: cwd }, settings.env),
        LAUNCHFIT_PID: String(app.pid),
      };
      const { cause } = await sh(kill.command, { cwd, env, timeout: grace, onLine, nothrow: true });
      if (cause) log(`kill: ${messageOf(cause)}; TERM follows`);
    };
    return { signal: "SIGTERM", command, grace };
  }
}
