import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import { sh } from "../exec/exec.ts";
import type { Lock } from "../files/lock.ts";
import { formatListen } from "../http/server.ts";
import { notify, watchdogInterval } from "../http/systemd.ts";
import { lockDirectory, ownDirectory } from "./deploy-directory.ts";
import { type App, type AppEnd, AppProcesses } from "./app.ts";
import type { AppSettings } from "./config.ts";
import { assertKept } from "./launch-file.ts";
import { Releases } from "./releases.ts";
import type { InstallOptions } from "./session.ts";
import { type ControlAnswer, type ControlHandler, controlPath, errorOf, serveControl } from "./control.ts";
import { askHealth, awaitHealth, healthyAnswers, type Question } from "./health.ts";
import { appEnvironment, ReleaseFailed, runHook } from "./hooks.ts";
import { freePort, type ListenSocket, makeBlocking, openListenSocket } from "./listen-socket.ts";
import { type AppLog, openAppLog, writtenLines } from "./app-log.ts";
import { type Answer, type Effect, type Event, initial, next, type State, type Step } from "./next.ts";
import { Messages } from "./messages.ts";
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

/** An app, and how it was started: what is changed in its configuration counts from the next start on. */
type Running = App & {
  settings: AppSettings;
  question: Question;
  /** By which it is asked before it is the only one. */
  ownPort: number | undefined;
};

/** A version that cannot run beside another may still run alone. */
class CannotRunBeside extends Failure {
  override name = "Failure";
}

/** Milliseconds between two questions to an app that is watched after a change. */
const watchEvery = 1000;

/** Does what next.ts says, and tells it what came of it. It decides nothing. */
export class Launcher {
  /** The exit code for launchfit, once the app has ended and everything is closed. */
  readonly ended: Promise<number>;
  readonly #parts: LauncherParts;
  readonly #options: LauncherOptions;
  /** The app is up, or why it cannot be. */
  readonly #started: Promise<{ error?: string | undefined }>;
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
  /** The app; dead for a moment when it has ended by itself. */
  #app: Running | undefined;
  /** The one that is started beside it. */
  #next: Running | undefined;
  /** Opened once, and kept over all restarts. */
  #socket: { name: string; socket: ListenSocket } | undefined;
  /** The last answer: `well`, `starting`, `alive` where there is no check, else what is wrong. */
  #health: string | undefined;
  /** The app that was asked last: whether it ever was well, and when its answers were bad since it was. */
  #answers: { app: Running; well: boolean; bad: number[] } | undefined;
  #control: Awaited<ReturnType<typeof serveControl>> | undefined;
  /** Aborted when the app has ended, and all is told and written. */
  readonly #over = new AbortController();

  private constructor(parts: LauncherParts, options: LauncherOptions, messages: Messages) {
    this.#parts = parts;
    this.#options = options;
    this.#file = launcherFile(parts.releases.deploy);
    this.#messages = messages;
    this.#state = initial(parts.runs);
    const quit = new Promise<{ code: number; error?: string | undefined }>((resolve) => (this.#quit = resolve));
    const up = new Promise<{ error?: undefined }>((resolve) => (this.#up = () => resolve({})));
    this.#started = Promise.race([up, quit]);
    this.ended = quit.then(({ code }) => this.close(code));
    options.stopping.signal.addEventListener("abort", () => this.tell({ type: "stop" }), { once: true });
  }

  /**
   * Start the app, or complete a change of version that was interrupted.
   * @throws {Failure} when it cannot be started.
   */
  static async open(parts: LauncherParts, options: LauncherOptions): Promise<Launcher> {
    const { releases, log, runs } = parts;
    const messages = await Messages.open({ releases, log, isRunning: runs });
    const launcher = new Launcher(parts, options, messages);
    await launcher.boot();
    return launcher;
  }

  /** Pass a signal on to the app. */
  passOn(signal: NodeJS.Signals): void {
    this.#app?.signal(signal);
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
    const { releases, processes, log, runs } = this.#parts;
    const { signal } = this.#options.stopping;
    if (signal.aborted) return this.tell({ type: "stop" });
    if (runs) {
      this.#control = await serveControl(controlPath(releases.deploy.path), this.#handle);
      for (const { version, pid } of await processes.endLeft())
        log.own(`version ${version}, process ${pid}, was left by a launchfit that was killed: it is ended`);
    }
    const current = (await releases.current()) ?? "";
    const memory = (await this.#file.read()) ?? {};
    this.tell({ type: "boot", current, memory, sha256: await sha256Of(releases, memory.pending?.from ?? current) });
    const { error } = await this.#started;
    if (error !== undefined) {
      const code = await this.ended;
      throw errorOf({ code, error });
    }
    if (!runs || this.#state.phase === "ending") return;
    void this.watch();
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
      case "reply": {
        const reply = this.#asked.get(effect.id);
        this.#asked.delete(effect.id);
        // what is answered is on the disk
        const written = () => reply?.(effect.answer);
        void this.#beside.then(written, written);
        break;
      }
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
      this.tell(instead ?? { type: "done", pid: this.#app?.pid });
    } catch (error) {
      const code = exitCodeOf(error);
      const known = { ...(code === undefined ? {} : { code }), pid: this.#app?.pid };
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
        break;
      case "read":
        await releases.settings(step.version, { toRun: runs });
        break;
      case "switch":
        await releases.activate(step.to);
        break;
      case "choose": {
        const to = await chooseRollback(releases, this.#state.memory, step.version);
        const { overlap } = await releases.settings(to, { toRun: runs });
        const sha256 = await sha256Of(releases, to);
        return { type: "chosen", to, overlap, isRollback: true, asker: step.id, sha256 };
      }
      case "end":
        await this.end();
        break;
      case "start":
        await this.start(step.version);
        break;
      case "health":
        await this.assertHealthy(this.#app);
        break;
      case "beside":
        await this.startBeside(step.version);
        break;
      case "hand over": {
        const before = this.#app;
        [this.#app, this.#next] = [this.#next, undefined];
        if (before) await this.endApp(before);
        break;
      }
      case "confirm":
        await this.confirm(step.change);
    }
    return undefined;
  }

  private async end(): Promise<void> {
    const both = [this.#next, this.#app];
    [this.#app, this.#next] = [undefined, undefined];
    for (const app of both) if (app) await this.endApp(app);
  }

  private async start(version: string): Promise<void> {
    this.#app = undefined;
    const settings = await this.#parts.releases.settings(version);
    const socket = await this.socketFor(settings);
    this.#app = await this.spawn(version, settings, socket && { socket, isShared: false });
    this.#parts.log.own(`started ${version}, process ${this.#app.pid}`);
  }

  private async startBeside(version: string): Promise<void> {
    const { releases, log } = this.#parts;
    const settings = await releases.settings(version);
    const name = settings.listen && formatListen(settings.listen);
    if (!this.#socket || name !== this.#socket.name) throw new CannotRunBeside("app.listen has changed");
    const next = await this.spawn(version, settings, { socket: this.#socket.socket, isShared: true });
    this.#next = next;
    log.own(`started ${version}, process ${next.pid}, beside ${this.#app?.version}`);
    try {
      await this.assertHealthy(next);
    } catch (error) {
      const hint = "before it was healthy (if the app cannot run twice, write app.overlap: false)";
      const failure = next.alive ? error : new CannotRunBeside(`${messageOf(error)} ${hint}`);
      this.#next = undefined;
      await this.endApp(next);
      throw failure;
    }
  }

  private async confirm({ from, to }: { from: string; to: string }): Promise<void> {
    const { releases, log } = this.#parts;
    const { signal } = this.#options.stopping;
    const cwd = releases.deploy.current;
    const hook = { version: to, releaseDir: cwd, previous: from, cwd, log: log.own, signal };
    await runHook("after_restart", await releases.settings(to, { toRun: this.#app !== undefined }), hook);
    // it may have ended while the hook ran
    if (this.#app?.alive === false) throw new ReleaseFailed(`it ended with ${(await this.#app.ended).how}`);
  }

  private async assertHealthy(app: Running | undefined): Promise<void> {
    if (!app) throw new Failure("it is not there");
    const { signal } = this.#options.stopping;
    const wrong = await awaitHealth({ ...app.question, port: app.ownPort }, { gone: app.ended, signal });
    if (wrong !== undefined) throw new ReleaseFailed(wrong);
  }

  private async spawn(
    version: string,
    settings: AppSettings,
    listen: { socket: ListenSocket; isShared: boolean } | undefined,
  ): Promise<Running> {
    const { log, releases, processes } = this.#parts;
    const { signal } = this.#options.stopping;
    const { exec, overlap, health: check } = settings;
    // while two versions run, the link `current` is right for one of them only
    const dir = overlap ? await releases.folderOf(version) : releases.deploy.current;
    await runHook("before_start", settings, { version, releaseDir: dir, cwd: dir, log: log.own, signal });
    if (signal.aborted) throw new Failure("launchfit is ending");
    // the one that serves meanwhile has made the socket as it wants it
    if (listen && !listen.isShared) await makeBlocking(listen.socket);
    const port = overlap ? await freePort() : undefined;
    const own = port === undefined ? {} : { LAUNCHFIT_HEALTH_PORT: String(port) };
    const env = { ...appEnvironment({ version, releaseDir: dir }, settings.env), ...own };
    const started = await processes.start({ exec, dir, version, env, onLine: log.app, socket: listen?.socket.fd });
    const question = { check, cwd: dir, env };
    const app: Running = Object.assign(started, { settings, question, ownPort: port });
    void app.ended.then((end) => this.appEnded(app, end));
    return app;
  }

  private async endApp(app: Running): Promise<void> {
    const { kill, grace } = app.settings;
    const { cwd, env } = app.question;
    const wasAlive = app.alive;
    const onLine = (line: string) => this.#parts.log.own(`kill: ${line}`);
    const command = async (text: string) => {
      const variables = { ...env, LAUNCHFIT_PID: String(app.pid) };
      const { cause } = await sh(text, { cwd, env: variables, timeout: grace, onLine, nothrow: true });
      if (cause) onLine(`${messageOf(cause)}; TERM follows`);
    };
    if ("signal" in kill) await app.end({ signal: kill.signal, grace });
    else await app.end({ signal: "SIGTERM", command: () => command(kill.command), grace });
    if (wasAlive) this.#parts.log.own(`ended ${app.version}`);
  }

  private async socketFor({ listen, listen_mode: mode, listen_group: group }: AppSettings) {
    const name = listen && formatListen(listen);
    if (this.#socket?.name === name) return this.#socket?.socket;
    // what waits in its backlog is refused, unless systemd holds it
    this.#socket?.socket.close();
    this.#socket = undefined;
    if (!listen || !name) return undefined;
    const socket = await openListenSocket(listen, { mode, group });
    this.#socket = { name, socket };
    return socket;
  }

  /** Ask the running app how it is, at least as often as systemd wants to hear that launchfit lives. */
  private async watch(): Promise<void> {
    const { signal } = this.#over;
    const atMost = watchdogInterval() ?? Number.POSITIVE_INFINITY;
    for (let pause = 1000; !signal.aborted; pause = await this.askApp()) {
      await sleep(Math.min(pause, atMost), undefined, { signal }).catch(() => {});
      // between two apps, and while one is given up on purpose, launchfit itself is what lives
      if (this.#health === undefined || healthyAnswers.includes(this.#health)) await notify("WATCHDOG=1");
    }
  }

  /** @returns the milliseconds until the next question. */
  private async askApp(): Promise<number> {
    const app = this.#app;
    if (!app?.alive) {
      this.#health = undefined;
      // most often it is about to be started again
      return 1000;
    }
    const { url, command, within, timeout, every, failures = false } = app.question.check;
    if (this.#answers?.app !== app) this.#answers = { app, well: false, bad: [] };
    const seen = this.#answers;
    let answer = "alive";
    if (url !== undefined || command !== undefined) {
      answer = (await askHealth(app.question, timeout)) ?? "well";
      seen.well ||= answer === "well";
      // an app has the whole of health.within for its start: systemd must not take that for a hang
      if (!seen.well && app.uptime() < within) answer = "starting";
    }
    // the app may have been replaced while it was asked
    if (this.#app !== app) return 0;
    if (this.#health !== undefined && this.#health !== answer) this.#parts.log.own(`health: ${answer}`);
    this.#health = answer;
    const isNew = this.#state.phase === "watched";
    const pause = isNew ? Math.min(watchEvery, every) : every;
    const now = performance.now();
    seen.bad = healthyAnswers.includes(answer) ? [] : [...seen.bad, now];
    // systemd's watchdog may have the app asked more often
    if (failures && seen.bad.length >= failures && now - (seen.bad[0] ?? now) >= (failures - 1) * pause) {
      seen.bad = [];
      this.tell({ type: "ill", pid: app.pid, wrong: answer, forever: app.settings.forever });
    }
    return pause;
  }

  private async look(): Promise<void> {
    const { releases, runs, log } = this.#parts;
    const { signal } = this.#options.stopping;
    const install = { ...this.#options, signal, note: log.own };
    const memory = () => this.#state.memory;
    this.tell({ type: "looked", ...(await look({ releases, memory, install, toRun: runs, log: log.own, signal })) });
  }

  private async appEnded(app: Running, { how, code }: AppEnd): Promise<void> {
    if (this.#app !== app) return;
    const lived = app.uptime();
    const follows = (await this.every()) !== undefined;
    this.tell({ type: "ended", pid: app.pid, how, code, lived, forever: app.settings.forever, follows });
    if (this.#state.phase === "given up") await notify(`STATUS=given up: ${this.#state.memory.stopped?.reason}`);
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
    const app = this.#app?.alive ? this.#app : undefined;
    const words = { waiting: "waiting to restart", "given up": "given up", starting: "starting" } as const;
    const at = this.#schedule?.at;
    return await describeStatus(this.#parts.releases, memory, {
      state: app ? "running" : (words[phase as keyof typeof words] ?? "stopped"),
      pid: app?.pid,
      uptime: app?.uptime(),
      restarts: restarts.total,
      lastEnd,
      health: app && (this.#health ?? "not asked yet"),
      memory: await app?.memory(),
      nextCheck: at === undefined ? undefined : new Date(Date.now() + at - performance.now()).toISOString(),
    });
  }

  private async close(code: number): Promise<number> {
    const { lock, log } = this.#parts;
    clearTimeout(this.#timer);
    clearTimeout(this.#schedule?.timer);
    if (this.#parts.runs) await notify("STOPPING=1");
    this.#options.stopping.abort();
    await this.#work;
    this.#socket?.socket.close();
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
