import { join } from "node:path";
import { exitCodeOf, Failure, messageOf, Refused, UsageError } from "../core/errors.ts";
import { acquireLock } from "../files/lock.ts";
import { openLog } from "../log/writer.ts";
import { notify } from "../http/systemd.ts";
import { AppKeeper } from "./app-keeper.ts";
import { type ControlRequest, controlPath, serveControl } from "./control.ts";
import { watchHealth } from "./health-watch.ts";
import { StateFile } from "./launcher-state.ts";
import { LineFeed } from "./line-feed.ts";
import { openOutputPipe } from "./output-pipe.ts";
import { staySmall } from "./small-process.ts";
import { describeStatus } from "./status.ts";
import { Turns } from "./turns.ts";
import type { Releases } from "./releases.ts";
import { Updater } from "./updater.ts";

export interface LauncherOptions {
  /** The deploy directory, links resolved. */
  directory: string;
  releases: Releases;
  /** Milliseconds between two looks for a new version; false: only when asked. Read anew after each look. */
  every: () => Promise<number | false>;
  /** Shown to whoever watches; launchfit's own lines and the app's. */
  show: (line: string) => void;
  /** Aborting it ends the app, then launchfit; it also ends a download under way. */
  stopping: AbortController;
}

/** A launchfit that runs: its end, and how to pass a signal on to the app. */
export interface Launcher {
  /** The exit code for launchfit. */
  ended: Promise<number>;
  passOn(signal: NodeJS.Signals): void;
}

/**
 * Run the app of a deploy directory in the foreground and keep it up to date.
 * @throws {Busy} when another launchfit runs there; {UsageError} when nothing is installed.
 */
export async function launch(options: LauncherOptions): Promise<Launcher> {
  staySmall();
  const { directory, releases, show, stopping } = options;
  const own = join(directory, ".launchfit");
  if ((await releases.current()) === undefined) {
    throw new UsageError(`${directory} has no current release; install one: launchfit URL`);
  }
  const lock = await acquireLock(join(own, "lock"), { what: "launchfit" });
  const appLog = await openLog(join(own, "app.log"), { mode: 0o640 });
  const feed = new LineFeed();
  await feed.load(join(own, "app.log"));
  const write = (stage: string, lines: string[]) => {
    appLog.lines(stage, lines);
    for (const line of lines) feed.add(`${new Date().toISOString()} ${stage} | ${line}`);
  };
  const log = (line: string) => {
    write("launchfit", [line]);
    show(`launchfit: ${line}`);
  };
  const pipe = await openOutputPipe(join(own, "output"), (lines) => {
    write("app", lines);
    for (const line of lines) show(line);
  });
  const state = new StateFile(join(own, "launcher.json"));
  await state.load();

  let end: (code: number) => void = () => {};
  const finished = new Promise<number>((resolve) => {
    end = resolve;
  });
  const keeper = new AppKeeper({
    directory,
    current: async () => {
      const version = (await releases.current()) ?? "";
      return { version, settings: await releases.settings(version) };
    },
    output: pipe.fd,
    log,
    onGone: (code, reason) => void gone(code, reason),
  });
  // a check, a restart, a rollback wait for each other; within them, what ends and starts the app waits
  // for its like only, so that a version that dies is undone while the next one is still fetched
  const requests = new Turns();
  const changes = new Turns();
  const { signal } = stopping;
  const updater = new Updater({ directory, releases, state, log, signal, changes }, keeper);

  async function gone(code: number, reason: string): Promise<void> {
    await state.note({ stopped: { at: new Date().toISOString(), reason } }, log);
    const every = await options.every().catch(() => false as const);
    if (keeper.state === "given up" && every !== false) {
      // an update may bring the app back: that is worth staying for
      log(`GIVEN UP: ${reason}; it starts again with the next update or launchfit restart`);
      await notify(`STATUS=given up: ${reason}`);
      return;
    }
    log(keeper.state === "given up" ? `GIVEN UP: ${reason}` : reason);
    end(code);
  }

  /** By the clock that never jumps. */
  let nextCheck: number | undefined;
  let timer: NodeJS.Timeout | undefined;
  async function schedule(): Promise<void> {
    clearTimeout(timer);
    const every = await options.every().catch(() => false as const);
    if (every === false || stopping.signal.aborted) {
      nextCheck = undefined;
      return;
    }
    // a fleet of apps must not ask all at the same moment
    const pause = every * (0.9 + Math.random() * 0.2);
    nextCheck = performance.now() + pause;
    timer = setTimeout(() => void look().catch(() => {}), Math.min(pause, 2 ** 31 - 1));
  }

  async function look(): Promise<Record<string, unknown>> {
    try {
      return await requests.take(() => updater.check());
    } catch (error) {
      log(`update: ${messageOf(error)}`);
      throw error;
    } finally {
      await schedule();
    }
  }

  async function handle(
    request: ControlRequest,
    send: (value: unknown) => void,
    closed: AbortSignal,
  ): Promise<Record<string, unknown>> {
    switch (request.command) {
      case "status":
        return status();
      case "check":
        return look();
      case "list":
        return { current: await releases.current(), installed: await releases.installed() };
      case "restart":
        return requests.take(() => changes.take(restart));
      case "rollback": {
        const { version } = request;
        if (version !== undefined && typeof version !== "string") {
          throw new UsageError("version is text");
        }
        return requests.take(() => updater.rollback(version));
      }
      case "stop":
        setImmediate(() => stopping.abort());
        return { stopping: true };
      case "log":
        await feed.give((line) => send({ line }), {
          count: typeof request["lines"] === "number" ? request["lines"] : 50,
          follow: request["follow"] === true,
          signal: closed,
        });
        return {};
      default:
        throw new UsageError(
          `unknown command "${request.command}"; known are status, check, list, restart, rollback, stop, log`,
        );
    }
  }

  async function restart(): Promise<Record<string, unknown>> {
    await keeper.stop();
    keeper.restarts = { quick: 0, total: keeper.restarts.total };
    await state.note({ stopped: undefined }, log);
    await keeper.start();
    return { version: keeper.app?.version, pid: keeper.app?.pid };
  }

  async function status(): Promise<Record<string, unknown>> {
    const { app } = keeper;
    return describeStatus({
      directory,
      state: state.value,
      app: {
        state: keeper.state,
        restarts: keeper.restarts.total,
        lastEnd: keeper.lastEnd,
        running: app,
      },
      version: await releases.current(),
      installed: await releases.installed(),
      health: health.last,
      nextCheck:
        nextCheck === undefined ? undefined : new Date(Date.now() + nextCheck - performance.now()),
    });
  }

  const control = await serveControl(controlPath(directory), handle);
  const health = watchHealth(keeper, {
    cwd: join(directory, "current"),
    settings: (version) => releases.settings(version),
    log,
  });
  stopping.signal.addEventListener("abort", () => end(0), { once: true });

  async function close(): Promise<void> {
    stopping.abort();
    clearTimeout(timer);
    health.close();
    await notify("STOPPING=1");
    // an update under way is let go of, or undone, before the app ends
    await requests.idle();
    await changes.idle();
    await keeper.stop();
    keeper.close();
    await control.close();
    pipe.close();
    await appLog.close();
    lock.release();
  }

  const ended = finished.then(async (code) => {
    await close();
    return code;
  });
  try {
    await requests.take(async () => {
      await keeper.begin();
      await updater.settlePending();
    });
    await state.note({ stopped: undefined }, log);
  } catch (error) {
    log(`cannot start: ${messageOf(error)}`);
    end(exitCodeOf(error) ?? 1);
    await ended;
    if (error instanceof Refused || error instanceof UsageError) throw error;
    throw new Failure(messageOf(error));
  }
  await notify("READY=1", `STATUS=running ${keeper.app?.version ?? ""}`);
  await schedule();
  return { ended, passOn: (name) => keeper.app?.signal(name) };
}
