import { once } from "node:events";
import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import type { Lock } from "../files/lock.ts";
import { notify } from "../http/systemd.ts";
import { AppKeeper } from "./app-keeper.ts";
import { type AppOutput, openAppOutput } from "./app-output.ts";
import { type ControlHandler, controlPath, type ControlServer, serveControl } from "./control.ts";
import { lockDirectory, ownDirectory } from "./deploy-directory.ts";
import { type HealthWatch, watchHealth } from "./health.ts";
import { assertKept } from "./launch-file.ts";
import { knownState, type LauncherStateFile, openLauncherState } from "./state.ts";
import { Messages } from "./messages.ts";
import { Mutex } from "../core/mutex.ts";
import { Releases } from "./releases.ts";
import type { InstallOptions } from "./session.ts";
import { describeStatus, type Status } from "./status.ts";
import { UpdateSchedule, watchRecovery } from "./schedule.ts";
import { type CheckResult, Updater } from "./updater.ts";

export interface LauncherOptions extends InstallOptions {
  /** Gets every line of the app and of launchfit, for whoever watches. */
  show: (line: string) => void;
  /** Aborting it ends the app, then launchfit; it also ends a download under way. */
  stopping: AbortController;
}

/**
 * Run the app of a deploy directory in the foreground and keep it up to date, until `stopping` is aborted.
 * @throws {Busy} when another launchfit runs there.
 * @throws {UsageError} when nothing is installed.
 */
export async function launchIn(folder: string, options: LauncherOptions): Promise<Launcher> {
  const deploy = await ownDirectory(folder);
  const releases = new Releases(deploy);
  const version = await releases.current();
  if (version === undefined) throw new UsageError(`${deploy.path} has no current release; install one: launchfit URL`);
  await releases.settings(version);
  await assertKept(deploy, await releases.config(), await knownState(deploy));
  const lock = await lockDirectory(deploy, "launchfit");
  const output = await openAppOutput(deploy.state, options.show);
  const state = await openLauncherState(deploy.state);
  const { log } = output;
  const lines = async (count: number) => output.last(count);
  const messages = await Messages.follow(state, { releases, log, lines, isRunning: true });
  const launcher = new Launcher({ lock, releases, output, state, messages }, options);
  await launcher.start();
  return launcher;
}

/** What a launcher works with. */
interface LauncherParts {
  lock: Lock;
  releases: Releases;
  output: AppOutput;
  state: LauncherStateFile;
  messages: Messages;
}

/** A launchfit that runs an app. */
class Launcher {
  /** The exit code for launchfit, once the app has ended and everything is closed. */
  readonly ended: Promise<number>;

  readonly #parts: LauncherParts;
  readonly #stopping: AbortController;
  readonly #keeper: AppKeeper;
  readonly #updater: Updater;
  readonly #schedule: UpdateSchedule;
  readonly #recovery: { close(): void };
  readonly #health: HealthWatch;
  #control: ControlServer | undefined;
  // a check, a restart, a rollback wait for each other; within them, what ends and starts the app waits
  // for its like only, so that a version that ends is undone while the next one is still fetched
  readonly #requests = new Mutex();
  readonly #changes = new Mutex();
  #end: (code: number) => void = () => {};
  /** Aborted when the app has ended, and all is told and written. */
  readonly #over = new AbortController();

  constructor(parts: LauncherParts, { stopping, ...options }: LauncherOptions) {
    const { releases, output, state } = parts;
    const { log } = output;
    const { signal } = stopping;
    this.#parts = parts;
    this.#stopping = stopping;
    this.#keeper = new AppKeeper({
      releases,
      output: output.fd,
      log,
      signal,
      changes: this.#changes,
      onGone: (code, reason) => void this.appGone(code, reason),
    });
    const change = { releases, keeper: this.#keeper, state, log, signal, changes: this.#changes };
    this.#updater = new Updater(change, { ...options, signal, note: log });
    this.#schedule = new UpdateSchedule(releases, () => this.check());
    this.#health = watchHealth(this.#keeper, {
      cwd: releases.deploy.current,
      settings: (version) => releases.settings(version),
      log,
      onIll: (app, wrong) => void this.#keeper.restartIll(app, wrong),
    });
    this.#recovery = watchRecovery(() => this.#keeper.app?.uptime(), state, log);
    const end = new Promise<number>((resolve) => {
      this.#end = resolve;
    });
    this.ended = end.then((code) => this.close(code));
    if (signal.aborted) this.#end(0);
    else signal.addEventListener("abort", () => this.#end(0), { once: true });
  }

  /**
   * Start the app, or take over the one that runs, and resume an update that was interrupted.
   * @throws {Failure} when the app cannot be started; everything is closed then.
   */
  async start(): Promise<void> {
    const { releases, output, state } = this.#parts;
    const { signal } = this.#stopping;
    try {
      await this.#requests.run(async () => {
        // whatever is begun here, `close` waits for it
        if (signal.aborted) return;
        this.#control = await serveControl(controlPath(releases.deploy.path), this.#handle);
        await this.#updater.resume();
      });
      if (signal.aborted) return;
      await state.note({ stopped: undefined }, output.log);
    } catch (error) {
      if (signal.aborted) return;
      output.log(`cannot start: ${messageOf(error)}`);
      this.#end(exitCodeOf(error) ?? 1);
      await this.ended;
      throw exitCodeOf(error) === undefined ? new Failure(messageOf(error)) : error;
    }
    await notify("READY=1", `STATUS=running ${this.#keeper.app?.version ?? ""}`);
    await this.#schedule.plan();
  }

  /** Pass a signal on to the app. */
  passOn(signal: NodeJS.Signals): void {
    this.#keeper.app?.signal(signal);
  }

  /** What can be asked by the control socket; `stop` and `log` included. */
  readonly #commands = new Map<string, ControlHandler>(
    Object.entries({
      status: () => this.status(),
      check: async () => ({ ...(await this.check()) }),
      list: async () => {
        const { releases } = this.#parts;
        return { current: await releases.current(), installed: await releases.installed() };
      },
      restart: () =>
        this.#requests.run(() =>
          this.#changes.run(async () => {
            const keeper = this.#keeper;
            await this.#parts.state.note({ stopped: undefined }, this.#parts.output.log);
            await keeper.restart();
            return { version: keeper.app?.version, pid: keeper.app?.pid };
          }),
        ),
      rollback: ({ version }) => {
        if (version !== undefined && typeof version !== "string") throw new UsageError("version is text");
        return this.#requests.run(() => this.#updater.rollback(version));
      },
      stop: async () => {
        this.#stopping.abort();
        await once(this.#over.signal, "abort");
        return { stopping: true };
      },
      log: async ({ lines, follow }, send, closed) => {
        await this.#parts.output.give((line) => send({ line }), {
          count: typeof lines === "number" ? lines : 50,
          follow: follow === true,
          signal: closed,
        });
        return {};
      },
    }),
  );

  readonly #handle: ControlHandler = async (request, send, closed) => {
    const command = this.#commands.get(request.command);
    if (command) return await command(request, send, closed);
    const known = [...this.#commands.keys()].join(", ");
    throw new UsageError(`unknown command "${request.command}"; known are ${known}`);
  };

  private async status(): Promise<Status> {
    const { releases, state: remembered } = this.#parts;
    const { state, restarts, lastEnd, app } = this.#keeper;
    return await describeStatus(releases, remembered.value, {
      state,
      pid: app?.pid,
      uptime: app?.uptime(),
      restarts: restarts.total,
      lastEnd,
      health: this.#health.last,
      memory: await app?.memory(),
      nextCheck: this.#schedule.next,
    });
  }

  private async check(): Promise<CheckResult> {
    try {
      return await this.#requests.run(() => this.#updater.check());
    } catch (error) {
      this.#parts.output.log(`update: ${messageOf(error)}`);
      throw error;
    } finally {
      await this.#schedule.plan();
    }
  }

  /** The app has ended and is not started again by itself. */
  private async appGone(code: number, reason: string): Promise<void> {
    const { output, state } = this.#parts;
    const givenUp = this.#keeper.state === "given up";
    const stopped = { at: new Date().toISOString(), reason };
    await state.note({ stopped, ...(givenUp ? { crashLoop: stopped } : {}) }, output.log);
    if (givenUp && (await this.#schedule.follows())) {
      // an update may bring the app back: that is worth staying for
      output.log(`GIVEN UP: ${reason}; it starts again with the next update or launchfit restart`);
      await notify(`STATUS=given up: ${reason}`);
      return;
    }
    output.log(givenUp ? `GIVEN UP: ${reason}` : reason);
    this.#end(code);
  }

  private async close(code: number): Promise<number> {
    const { lock, output } = this.#parts;
    this.#stopping.abort();
    this.#schedule.close();
    this.#recovery.close();
    this.#health.close();
    await notify("STOPPING=1");
    // an update under way is given up, or undone, before the app ends
    await this.#requests.idle();
    await this.#changes.idle();
    await this.#keeper.stop();
    this.#keeper.close();
    await this.#parts.messages.close(5000);
    await output.close();
    this.#over.abort();
    // who asked for the end is told before the socket closes
    await new Promise((resolve) => void setImmediate(resolve));
    await this.#control?.close();
    lock.release();
    return code;
  }
}
