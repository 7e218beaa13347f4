import { once } from "node:events";
import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import type { Lock } from "../files/lock.ts";
import { notify, watchdogInterval } from "../http/systemd.ts";
import { lockDirectory, ownDirectory } from "./deploy-directory.ts";
import { AppProcesses } from "./app.ts";
import { assertKept } from "./launch-file.ts";
import { Releases } from "./releases.ts";
import type { InstallOptions } from "./session.ts";
import { type ControlAnswer, type ControlHandler, controlPath, errorOf, serveControl } from "./control.ts";
import { healthyAnswers, watchHealth } from "./health.ts";
import { type AppLog, openAppLog, writtenLines } from "./app-log.ts";
import { type Answer, type Effect, type Event, initial, next, type State, type Step } from "./next.ts";
import { Messages } from "./messages.ts";
import { CannotRunBeside, Runner } from "./runner.ts";
import { knownState, launcherFile, type LauncherState } from "./state.ts";
import { describeStatus, type Status } from "./status.ts";
import { chooseRollback, look, prepareChange, sha256Of } from "./update.ts";

export interface LauncherOptions extends InstallOptions {
  /** Aborting it ends the app, then launchfit; it also ends a download under way. */
  stopping: AbortController;
}

/**
 * Run the app of a deploy directory in the foreground and keep it up to date, until `stopping` is aborted.
 * @param options.show gets every line of the app and of launchfit, for whoever watches.
 * @throws {Busy} when another launchfit runs there.
 * @throws {UsageError} when nothing is installed.
 */
export async function launchIn(
  folder: string,
  { show, ...options }: LauncherOptions & { show: (line: string) => void },
): Promise<Launcher> {
  const deploy = await ownDirectory(folder);
  const releases = new Releases(deploy);
  const version = await assertInstalled(releases);
  await releases.settings(version);
  await assertKept(deploy, await releases.config(), await knownState(deploy));
  const lock = await lockDirectory(deploy, "launchfit");
  const log = await openAppLog(deploy.state, show);
  const processes = await AppProcesses.open(deploy.state);
  return await Launcher.open({ lock, releases, processes, log, runs: true }, options);
}

/** Change the version of a directory in which nothing runs: the same, without an app. */
export async function launchOffline<T>(
  folder: string,
  what: string,
  { signal, ...options }: InstallOptions & { signal: AbortSignal },
  work: (launcher: Launcher) => Promise<T>,
): Promise<T> {
  const deploy = await ownDirectory(folder);
  const releases = new Releases(deploy);
  await assertInstalled(releases);
  const lock = await lockDirectory(deploy, what);
  const stopping = new AbortController();
  signal.addEventListener("abort", () => stopping.abort(), { once: true });
  const none = { app: () => {}, follow: async () => {}, close: async () => {} };
  const lines = await writtenLines(deploy.state, 50);
  const processes = await AppProcesses.open(deploy.state);
  const log: AppLog = { ...none, own: options.note, last: (count) => lines.slice(-count) };
  const launcher = await Launcher.open({ lock, releases, processes, log, runs: false }, { ...options, stopping });
  try {
    return await work(launcher);
  } finally {
    stopping.abort();
    await launcher.ended;
  }
}

async function assertInstalled(releases: Releases): Promise<string> {
  const version = await releases.current();
  if (version !== undefined) return version;
  throw new UsageError(`${releases.deploy.path} has no current release; install one: launchfit URL`);
}

interface LauncherParts {
  lock: Lock;
  releases: Releases;
  processes: AppProcesses;
  log: AppLog;
  /** false: there is no app. */
  runs: boolean;
}

type Happening = Event extends infer Each ? (Each extends Event ? Omit<Each, "at" | "clock"> : never) : never;

/** Does what next.ts says, and tells it what came of it. */
export class Launcher {
  /** The exit code for launchfit, once the app has ended and everything is closed. */
  readonly ended: Promise<number>;
  readonly #parts: LauncherParts;
  readonly #options: LauncherOptions;
  readonly #runner: Runner;
  readonly #file: ReturnType<typeof launcherFile>;
  readonly #messages: Messages;
  #state: State;
  #timer: NodeJS.Timeout | undefined;
  /** Milliseconds between two checks, as they could be read last. */
  #every = 15 * 60_000;
  #schedule: { timer: NodeJS.Timeout; at: number | undefined } | undefined;
  /** Who waits for an answer, by the number of the request. */
  readonly #asked = new Map<number, (answer: Answer) => void>();
  #requests = 0;
  /** The work under way, and what is written and removed beside it. */
  #work: Promise<unknown> = Promise.resolve();
  #beside: Promise<unknown> = Promise.resolve();
  #quit: (how: { code: number; error?: string | undefined }) => void = () => {};
  #up: () => void = () => {};
  #health: ReturnType<typeof watchHealth> | undefined;
  #control: Awaited<ReturnType<typeof serveControl>> | undefined;
  /** Aborted when the app has ended, and all is told and written. */
  readonly #over = new AbortController();

  private constructor(parts: LauncherParts, options: LauncherOptions, messages: Messages) {
    const { releases, processes, log } = parts;
    const { signal } = options.stopping;
    this.#parts = parts;
    this.#options = options;
    this.#file = launcherFile(releases.deploy);
    this.#messages = messages;
    this.#state = initial(parts.runs);
    this.#runner = new Runner({
      releases,
      processes,
      log,
      signal,
      onEnded: (app, end) => void this.appEnded(app, end),
    });
    this.ended = new Promise<{ code: number }>((resolve) => (this.#quit = resolve)).then(({ code }) =>
      this.close(code),
    );
    const stop = () => this.tell({ type: "stop" });
    signal.addEventListener("abort", stop, { once: true });
  }

  /**
   * Start the app, or complete a change of version that was interrupted.
   * @throws {Failure} when it cannot be started.
   */
  static async open(parts: LauncherParts, options: LauncherOptions): Promise<Launcher> {
    const { releases, log, runs } = parts;
    const lines = async (count: number) => log.last(count);
    const messages = await Messages.open({ releases, log: log.own, lines, isRunning: runs });
    const launcher = new Launcher(parts, options, messages);
    await launcher.boot();
    return launcher;
  }

  /** Pass a signal on to the app. */
  passOn(signal: NodeJS.Signals): void {
    this.#runner.app?.signal(signal);
  }

  /**
   * Ask for a check, a restart, a rollback; the answer comes with the verdict.
   * @throws {Failure} when it is a bad one.
   */
  ask(request: { type: "check" | "restart" } | { type: "rollback"; version?: string | undefined }) {
    return this.answerTo((id) => this.tell({ ...request, id }));
  }

  /**
   * Change to an installed version; the answer comes with the verdict.
   * @throws {Failure} when it does not hold up, or one of its first hooks fails.
   */
  async switch(to: string) {
    const { releases, runs, log } = this.#parts;
    const { signal } = this.#options.stopping;
    const { overlap } = await prepareChange(releases, this.#state.version, to, { toRun: runs, log: log.own, signal });
    return await this.answerTo((asker) => this.tell({ type: "change", to, overlap, asker, sha256: {} }));
  }

  private async answerTo(tell: (id: number) => void) {
    const id = ++this.#requests;
    const answered = new Promise<Answer>((resolve) => this.#asked.set(id, resolve));
    tell(id);
    const answer = await answered;
    if (!answer.ok) throw errorOf(answer);
    const { ok: _, ...rest } = answer;
    return rest as Omit<ControlAnswer, "ok">;
  }

  private async boot(): Promise<void> {
    const { releases, runs } = this.#parts;
    const { signal } = this.#options.stopping;
    const up = new Promise<undefined>((resolve) => (this.#up = () => resolve(undefined)));
    const failed = new Promise<string | undefined>((resolve) => {
      const quit = this.#quit;
      this.#quit = (how) => {
        quit(how);
        resolve(how.error);
      };
    });
    if (signal.aborted) return this.tell({ type: "stop" });
    if (runs) {
      this.#control = await serveControl(controlPath(releases.deploy.path), this.#handle);
      await this.#runner.clear();
    }
    const current = (await releases.current()) ?? "";
    const memory = (await this.#file.read()) ?? {};
    this.tell({
      type: "boot",
      current,
      memory,
      sha256: await sha256Of(releases, memory.pending?.from ?? current),
    });
    const error = await Promise.race([up, failed]);
    if (error !== undefined) {
      const code = await this.ended;
      throw errorOf({ code, error });
    }
    if (!runs || this.#state.phase === "ending") return;
    this.#health = watchHealth({
      app: () => this.#runner.app,
      isNew: () => this.#state.phase === "watched",
      question: (app) => this.#runner.question(app),
      log: this.#parts.log.own,
      onAnswer: async (answer) => {
        // between two apps, and while one is given up on purpose, launchfit itself is what lives
        if (answer === undefined || healthyAnswers.includes(answer)) await notify("WATCHDOG=1");
      },
      onIll: (app, wrong) => void this.appIll(app.pid, wrong),
      atLeastEvery: watchdogInterval() ?? Number.POSITIVE_INFINITY,
    });
    await notify("READY=1", `STATUS=running ${this.#state.version}`);
    await this.plan();
  }

  /** The one place where the state changes. */
  private tell(happening: Happening): void {
    const before = this.#state;
    const event = { ...happening, at: new Date().toISOString(), clock: performance.now() } as Event;
    const [after, effects] = next(before, event);
    this.#state = after;
    if (after.phase !== before.phase) clearTimeout(this.#timer);
    if (after.memory !== before.memory) this.beside(this.remember(before.memory, after.memory));
    for (const effect of effects) this.do(effect);
    const isSettled = ["running", "watched"].includes(after.phase) && before.phase !== "watched";
    if (isSettled || after.phase === "ending") this.#up();
  }

  private do(effect: Effect): void {
    const { log, releases } = this.#parts;
    switch (effect.do) {
      case "say":
        log.own(effect.line);
        break;
      case "work":
        this.#work = this.work(effect.steps);
        break;
      case "look":
        void this.look();
        break;
      case "reply":
        this.#asked.get(effect.id)?.(effect.answer);
        this.#asked.delete(effect.id);
        break;
      case "timer":
        void this.startTimer(effect.ms);
        break;
      case "plan":
        void this.plan();
        break;
      case "prune":
        this.beside(releases.prune(effect.needed).catch((error: unknown) => log.own(messageOf(error))));
        break;
      case "abort":
        this.#options.stopping.abort();
        break;
      case "quit":
        this.#quit(effect);
    }
  }

  /**
   * People are told first: what is to follow from a change is lost by no crash, and may be told twice. A full or
   * read-only disk stops nothing: the next change brings this one along.
   */
  private async remember(before: LauncherState, after: LauncherState): Promise<void> {
    await this.#messages.changed(before, after);
    await this.#file.write(this.#state.memory).catch((error: unknown) => {
      this.#parts.log.own(`cannot note that in ${this.#file.path}: ${messageOf(error)}`);
    });
  }

  /** `close` waits for it. */
  private beside(work: Promise<void>): void {
    this.#beside = Promise.all([this.#beside, work]);
  }

  private async work(steps: readonly Step[]): Promise<void> {
    const { signal } = this.#options.stopping;
    let at: Step["do"] = "end";
    try {
      let instead: Happening | undefined;
      for (const step of steps) {
        at = step.do;
        if (signal.aborted && at !== "end") throw new Failure("launchfit is ending");
        instead = await this.step(step);
      }
      this.tell(instead ?? { type: "done", pid: this.#runner.app?.pid });
    } catch (error) {
      const code = exitCodeOf(error);
      const known = { ...(code === undefined ? {} : { code }), pid: this.#runner.app?.pid };
      const byItself = error instanceof CannotRunBeside;
      this.tell({ type: "failed", step: at, reason: messageOf(error), byItself, ...known });
    }
  }

  /** @returns what happened in place of `done`. */
  private async step(step: Step): Promise<Happening | undefined> {
    const { releases, runs } = this.#parts;
    switch (step.do) {
      case "record":
        await this.#file.write(this.#state.memory);
        return undefined;
      case "read":
        await releases.settings(step.version, { toRun: runs });
        return undefined;
      case "switch":
        await releases.activate(step.to);
        return undefined;
      case "choose": {
        const to = await chooseRollback(releases, this.#state.memory, step.version);
        const { overlap } = await releases.settings(to, { toRun: runs });
        return {
          type: "chosen",
          to,
          overlap,
          isRollback: true,
          asker: step.id,
          sha256: await sha256Of(releases, to),
        };
      }
      default:
        await this.#runner.do(step);
        return undefined;
    }
  }

  private async look(): Promise<void> {
    const { releases, runs, log } = this.#parts;
    const { signal } = this.#options.stopping;
    const install = { ...this.#options, signal, note: log.own };
    const memory = () => this.#state.memory;
    this.tell({
      type: "looked",
      ...(await look({ releases, memory, install, toRun: runs, log: log.own, signal })),
    });
  }

  private async appEnded(
    app: { pid: number; uptime(): number },
    { how, code }: { how: string; code: number },
  ): Promise<void> {
    if (this.#runner.app !== app) return;
    const lived = app.uptime();
    const forever = (await this.settings())?.forever ?? false;
    const follows = (await this.every()) !== undefined;
    this.tell({ type: "ended", pid: app.pid, how, code, lived, forever, follows });
    if (this.#state.phase === "given up") await notify(`STATUS=given up: ${this.#state.memory.stopped?.reason}`);
  }

  private async appIll(pid: number, wrong: string): Promise<void> {
    const forever = (await this.settings())?.forever ?? false;
    this.tell({ type: "ill", pid, wrong, forever });
  }

  private settings() {
    return this.#parts.releases.settings(this.#state.version).catch(() => undefined);
  }

  private async startTimer(ms: number | "watch"): Promise<void> {
    const { phase } = this.#state;
    const config = ms === "watch" ? await this.#parts.releases.config().catch(() => undefined) : undefined;
    if (this.#state.phase !== phase) return;
    clearTimeout(this.#timer);
    const pause = ms === "watch" ? (config?.updates.watch ?? 10_000) : ms;
    this.#timer = setTimeout(() => this.tell({ type: "timer" }), pause);
  }

  /** Milliseconds between two checks; undefined where no web folder is followed, or none can be read of. */
  private async every(): Promise<number | undefined> {
    const config = await this.#parts.releases.config().catch(() => undefined);
    const { enabled = false, server = [], every = false } = config?.updates ?? {};
    return every !== false && enabled && server.length > 0 ? every : undefined;
  }

  /** Plan the next check, in place of the one that was planned. */
  private async plan(): Promise<void> {
    const every = await this.every();
    clearTimeout(this.#schedule?.timer);
    if (!this.#parts.runs || this.#options.stopping.signal.aborted) return;
    // a fleet of apps must not ask all at the same moment
    const pause = Math.min((this.#every = every ?? this.#every) * (0.9 + Math.random() * 0.2), 2 ** 31 - 1);
    // the configuration may say otherwise by then, or its mistake be corrected
    const work = () => (every === undefined ? void this.plan() : this.tell({ type: "check" }));
    this.#schedule = { timer: setTimeout(work, pause), at: every && performance.now() + pause };
  }

  /** What can be asked by the control socket. */
  readonly #commands: Record<string, ControlHandler> = {
    status: () => this.status(),
    check: () => this.ask({ type: "check" }),
    restart: () => this.ask({ type: "restart" }),
    rollback: ({ version }) => {
      if (version !== undefined && typeof version !== "string") throw new UsageError("version is text");
      return this.ask({ type: "rollback", version });
    },
    switch: async ({ version }) => {
      const installed = await this.#parts.releases.installed();
      if (typeof version !== "string" || !installed.includes(version))
        throw new UsageError(`version is one of ${installed.join(", ")}`);
      return await this.switch(version);
    },
    list: async () => {
      const { releases } = this.#parts;
      return { current: await releases.current(), installed: await releases.installed() };
    },
    log: async ({ lines, follow }, send, closed) => {
      const { log } = this.#parts;
      for (const line of log.last(typeof lines === "number" ? lines : 50)) send({ line });
      if (follow === true) await log.follow((line) => send({ line }), closed);
      return {};
    },
    stop: async () => {
      this.tell({ type: "stop" });
      if (!this.#over.signal.aborted) await once(this.#over.signal, "abort");
      return { stopping: true };
    },
  };

  readonly #handle: ControlHandler = async (request, send, closed) => {
    const command = Object.hasOwn(this.#commands, request.command) ? this.#commands[request.command] : undefined;
    if (command) return await command(request, send, closed);
    const known = Object.keys(this.#commands).join(", ");
    throw new UsageError(`unknown command "${request.command}"; known are ${known}`);
  };

  private async status(): Promise<Status> {
    const { phase, restarts, lastEnd, memory } = this.#state;
    const { app } = this.#runner;
    const words = {
      waiting: "waiting to restart",
      "given up": "given up",
      starting: "starting",
    } as const;
    const at = this.#schedule?.at;
    return await describeStatus(this.#parts.releases, memory, {
      state: app?.alive ? "running" : (words[phase as keyof typeof words] ?? "stopped"),
      pid: app?.alive ? app.pid : undefined,
      uptime: app?.alive ? app.uptime() : undefined,
      restarts: restarts.total,
      lastEnd,
      health: this.#health?.last,
      memory: app?.alive ? await app.memory() : undefined,
      nextCheck: at === undefined ? undefined : new Date(Date.now() + at - performance.now()).toISOString(),
    });
  }

  private async close(code: number): Promise<number> {
    const { lock, log } = this.#parts;
    clearTimeout(this.#timer);
    clearTimeout(this.#schedule?.timer);
    this.#health?.close();
    if (this.#parts.runs) await notify("STOPPING=1");
    this.#options.stopping.abort();
    await this.#work;
    this.#runner.close();
    await this.#beside;
    await this.#messages.close(this.#parts.runs ? 5000 : 15_000);
    await log.close();
    this.#over.abort();
    // who asked for the end is told before the socket closes
    await new Promise((resolve) => void setImmediate(resolve));
    await this.#control?.close();
    lock.release();
    return code;
  }
}
