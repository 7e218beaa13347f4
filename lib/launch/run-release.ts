import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { $, cleanEnvironment, type CommandOptions, type ProcessOutput, sh, timedOut } from "../exec/exec.ts";
import { formatListen } from "../http/server.ts";
import { type EndOptions, type RunningApp, startApp } from "./app-process.ts";
import type { AppSettings } from "./config.ts";
import { type ListenSocket, openFreeSocket } from "./listen-socket.ts";
import type { Releases } from "./releases.ts";

/** What of a release is run as its configuration says: the hooks, and the app. */

/** The points at which launchfit runs a command of the user's (design, section 11). */
export type HookName = "before_start" | "before_symlink" | "before_restart" | "after_restart";

/** What every hook and the app itself gets in its environment, besides `app.env`. */
export interface HookVariables {
  version: string;
  releaseDir: string;
  /** The version before, at an update or a rollback. */
  previous?: string | undefined;
}

/** The environment of the app and of the hooks. */
export function appEnvironment(
  { version, releaseDir, previous }: HookVariables,
  env: Record<string, string>,
): Record<string, string> {
  return cleanEnvironment({
    ...env,
    LAUNCHFIT_VERSION: version,
    LAUNCHFIT_RELEASE_DIR: releaseDir,
    ...(previous === undefined ? {} : { LAUNCHFIT_PREVIOUS_VERSION: previous }),
  });
}

/** It was the release that failed, not the way to it: it is not tried again. */
export class ReleaseFailed extends Failure {
  override name = "Failure";
}

/**
 * Run a hook, if there is one: the configured command, else the executable `hooks/NAME` in `cwd` (`before-symlink`
 * and `before_symlink` are one).
 * @throws {ReleaseFailed} when it fails or takes too long.
 */
export async function runHook(
  name: HookName,
  { hooks, env }: Pick<AppSettings, "hooks" | "env">,
  {
    cwd,
    log,
    signal,
    ...variables
  }: HookVariables & {
    cwd: string;
    log: (line: string) => void;
    signal?: AbortSignal | undefined;
  },
): Promise<void> {
  const options: CommandOptions = {
    cwd,
    env: { ...appEnvironment(variables, env), LAUNCHFIT_HOOK: name },
    timeout: hooks.timeout,
    signal,
    onLine: (line) => log(`${name}: ${line}`),
    nothrow: true,
  };
  const command = hooks[name];
  const file = command === undefined ? await executableHook(name, cwd) : undefined;
  if (command === undefined && file === undefined) return;
  const ended = await (command === undefined ? $(options)`${file}` : sh(command, options));
  const wrong = describe(ended);
  if (wrong !== undefined) throw new ReleaseFailed(`the hook ${name} ${wrong}`);
}

function describe(ended: ProcessOutput): string | undefined {
  const { exitCode, signal, cause } = ended;
  if (timedOut(ended)) return "took too long and was ended";
  if (signal !== null) return `was ended by ${signal}`;
  if (exitCode === null) return messageOf(cause);
  return exitCode === 0 ? undefined : `failed with exit code ${exitCode}`;
}

async function executableHook(name: HookName, cwd: string): Promise<string | undefined> {
  for (const spelling of [name, name.replaceAll("_", "-")]) {
    const file = join(cwd, "hooks", spelling);
    const executable = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return file;
  }
  return undefined;
}

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
    if (!this.#socket) return "the socket that the app got was opened by a launchfit that has ended";
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
