import { rename, rm } from "node:fs/promises";
import { messageOf } from "../core/errors.ts";
import { type AppEnd, appRecords, findApp, type RunningApp } from "./app-process.ts";
import type { AppSettings } from "./config.ts";
import { AppStarter, type AppStarterOptions, type Known } from "./run-release.ts";
import type { Mutex } from "../core/mutex.ts";
import { maxIllRestarts, planIllRestart, planRestart, type Restarts } from "./schedule.ts";

export type AppState = "stopped" | "starting" | "running" | "waiting to restart" | "given up";

export interface KeeperOptions extends AppStarterOptions {
  /** Held by who ends and starts the app: a restart by itself waits for it. */
  changes: Mutex;
  /** The app has ended and will not be started again. */
  onGone: (code: number, reason: string) => void;
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
  readonly #starter: AppStarter;
  readonly #records: ReturnType<typeof appRecords>;
  #restartTimer: NodeJS.Timeout | undefined;
  /** When it was started again for its bad health, lately. */
  #illRestarts: number[] = [];
  /** That it is not any more was said. */
  #leftIll = false;
  /** Ended by itself, and may have left processes behind (a daemon that it forked). */
  #remains: RunningApp | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#starter = new AppStarter(options);
    this.#records = appRecords(options.releases.deploy);
  }

  /** Take over the app that outlived the launchfit before, else start it. */
  async takeOverOrStart(): Promise<void> {
    const { version } = await this.current();
    const { app, beside } = this.#records;
    const { log, releases } = this.#options;
    let living: RunningApp | undefined;
    // an update that was killed may have left two: the one that is current goes on, the other is ended
    for (const record of [app, beside]) {
      const found = await findApp(record);
      if (!found) continue;
      if (!living && found.alive && found.version === version) {
        living = found;
        if (record === beside) await rename(beside, app);
        continue;
      }
      const what = `version ${found.version}, process ${found.pid}`;
      log(`${what}, was left by a launchfit that was killed: it is ended`);
      await this.#starter.end(found, await releases.settings(found.version).catch(() => undefined));
    }
    if (!living) return this.start();
    log(`took over ${version}, process ${living.pid}, which was running already`);
    this.watch(living);
  }

  /**
   * Start the version that `current` names. The app must not be running.
   * @param known that version and its settings, where the caller has them.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async start(known?: Known): Promise<void> {
    clearTimeout(this.#restartTimer);
    this.state = "starting";
    const { version, settings } = known ?? (await this.current());
    await this.clearRemains();
    const app = await this.#starter.start({ version, settings }, this.#records.app);
    this.#options.log(`started ${version}, process ${app.pid}`);
    this.watch(app);
  }

  /** Why another version cannot be started beside the one that runs; undefined when it can. */
  obstacleTo(settings: AppSettings): string | undefined {
    return this.app?.alive ? this.#starter.obstacleTo(settings) : "no app runs";
  }

  /**
   * Start another version beside the one that runs, with the same socket. The one that runs stays the app.
   * @throws {Failure} when the hook before_start fails, or it cannot be started.
   */
  async startBeside(known: Known): Promise<RunningApp> {
    const next = await this.#starter.start(known, this.#records.beside);
    this.#options.log(`started ${known.version}, process ${next.pid}, beside ${this.app?.version}`);
    return next;
  }

  /** End one that was started beside the app, which goes on. */
  async endBeside(next: RunningApp, settings: AppSettings): Promise<void> {
    await this.#starter.end(next, settings);
    await rm(this.#records.beside, { force: true });
  }

  /** From now on the one that was started beside the app is the app; the one before is ended. */
  async handOver(next: RunningApp): Promise<void> {
    const before = this.app;
    this.watch(next);
    if (before) {
      const { releases } = this.#options;
      // ended all the same when its configuration cannot be read any more
      const settings = await releases.settings(before.version).catch(() => undefined);
      await this.#starter.end(before, settings);
    }
    await this.clearRemains();
    const { app, beside } = this.#records;
    await rename(beside, app);
  }

  /** End the app for good, or until `start`. */
  async stop(): Promise<void> {
    clearTimeout(this.#restartTimer);
    const settings = await this.settings();
    const { app } = this;
    this.app = undefined;
    this.state = "stopped";
    if (!app?.alive) return this.clearRemains();
    await this.#starter.end(app, settings);
  }

  /**
   * Start it again because somebody wants that: what went wrong before is forgiven.
   * @throws {UsageError} when the configuration is wrong; the app runs on then.
   * @throws {Failure} when it cannot be started; with `forever` it is tried again.
   */
  async restart(): Promise<void> {
    const known = await this.current();
    await this.stop();
    this.restarts = { quick: 0, total: this.restarts.total };
    this.#illRestarts = [];
    await this.start(known).catch(async (error: unknown) => {
      await this.startLater(error);
      throw error;
    });
  }

  /** Start the version that `current` names; one that cannot be started counts as one that ended. */
  async startAgain(): Promise<void> {
    await this.start().catch((error: unknown) => this.startLater(error));
  }

  /** The app gave bad answers for as long as it may: with `forever` it is started again, if not too often lately. */
  restartIll(app: RunningApp, wrong: string): Promise<void> {
    const { changes, signal, log } = this.#options;
    return changes.run(async () => {
      const isKept = (await this.settings())?.forever;
      // replaced meanwhile; on trial it is the update's matter
      if (!isKept || this.app !== app || this.onUnexpectedEnd || signal.aborted) return;
      const times = planIllRestart(this.#illRestarts, performance.now());
      const what = `${app.version} is not healthy (${wrong})`;
      const left = `and was started again ${maxIllRestarts} times within an hour: it stays as it is`;
      if (!times && !this.#leftIll) log(`${what}, ${left}`);
      this.#leftIll = !times;
      if (!times) return;
      this.#illRestarts = times;
      log(`${what}: it is started again`);
      await this.stop();
      this.lastEnd = `bad health (${wrong})`;
      this.restarts = { ...this.restarts, total: this.restarts.total + 1 };
      await this.startAgain();
    });
  }

  /** Close the app's address; what waits in its backlog is refused. */
  close(): void {
    clearTimeout(this.#restartTimer);
    this.#starter.close();
  }

  private async current(): Promise<Known> {
    const { releases } = this.#options;
    const version = (await releases.current()) ?? "";
    return { version, settings: await releases.settings(version) };
  }

  /** None when the configuration cannot be read any more: the app is ended all the same. */
  private async settings(): Promise<AppSettings | undefined> {
    return (await this.current().catch(() => undefined))?.settings;
  }

  /** What an app left that ended by itself must not hold its address or its files against the next one. */
  private async clearRemains(): Promise<void> {
    const remains = this.#remains;
    this.#remains = undefined;
    await remains?.end({ signal: "SIGTERM", grace: 2000 });
  }

  private watch(app: RunningApp): void {
    this.app = app;
    this.state = "running";
    // not by the clock of the day, which may jump
    const started = performance.now();
    void app.ended.then((end) => this.ended(app, end, performance.now() - started));
  }

  private ended(app: RunningApp, end: AppEnd, lived: number): void {
    // ended by us, or replaced already
    if (this.app !== app) return;
    this.app = undefined;
    this.state = "stopped";
    this.lastEnd = end.how;
    this.#remains = app;
    this.#options.log(`${app.version} ended with ${end.how}`);
    if (this.onUnexpectedEnd) this.onUnexpectedEnd(end.how);
    else void this.startAfter(end, lived);
  }

  /** It ended by itself, or could not be started: with `forever` it is started after a pause. */
  private async startAfter({ how, code }: AppEnd, lived: number): Promise<void> {
    const { changes, log, onGone } = this.#options;
    this.state = "waiting to restart";
    // who ended or started it meanwhile had the last word
    const isWaiting = () => this.state === "waiting to restart";
    const settings = await this.settings();
    if (!isWaiting()) return;
    if (!settings?.forever) {
      this.state = "stopped";
      return onGone(code, `the app ended with ${how}`);
    }
    const plan = planRestart(this.restarts, lived, how);
    if (!plan.again) {
      this.state = "given up";
      return onGone(1, plan.reason);
    }
    this.restarts = plan.restarts;
    log(`starts again in ${plan.pause / 1000} s`);
    const start = async () => (isWaiting() ? this.startAgain() : undefined);
    clearTimeout(this.#restartTimer);
    this.#restartTimer = setTimeout(() => void changes.run(start), plan.pause);
  }

  private async startLater(error: unknown): Promise<void> {
    const how = messageOf(error);
    this.#options.log(`cannot start: ${how}`);
    await this.startAfter({ how, code: 1 }, 0);
  }
}
