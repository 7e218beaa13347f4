import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Failure, ifMissing, messageOf, systemCode } from "../core/errors.ts";
import { bootId } from "../core/id.ts";
import { closeFrom, closingShell } from "../exec/descriptors.ts";
import { $, cleanEnvironment, type ProcessPromise } from "../exec/exec.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf, type Tree } from "../exec/process-tree.ts";
import { type Infer, y } from "../config/yaml.ts";
import { StateFile } from "../files/state-file.ts";

/** The processes of an app: they end with their launchfit, at the latest when the next one starts. */

/** How an app is started. */
export interface AppStart {
  /** The command of `app.exec`, run by /bin/sh in `dir`. */
  exec: string;
  dir: string;
  version: string;
  env: Record<string, string>;
  /** The socket that it gets as fd 3. */
  socket: number | undefined;
  onLine: (line: string) => void;
}

/** How an app is ended. */
export interface EndOptions {
  /** The signal of `app.kill`. */
  signal: NodeJS.Signals;
  /** Runs the command of `app.kill` instead. */
  command?: (() => Promise<void>) | undefined;
  /** Milliseconds before TERM, and again before KILL. */
  grace: number;
}

/** How an app ended: in words (`exit code 3`, `SIGKILL`), and as launchfit's own exit code. */
export interface AppEnd {
  how: string;
  code: number;
}

/** An app that was started, a process for ever by its start time. */
const startedApp = y.object({ pid: y.number(), startTime: y.optional(y.number()), version: y.string() });
type StartedApp = Infer<typeof startedApp>;

/** What stands in app.json: nothing of it holds after a new start of the machine, or in a copy of the directory. */
const startedApps = y.object({ boot: y.string(), mark: y.string(), apps: y.list(startedApp) });

/**
 * The processes of a deploy directory. Each is noted before it runs (its session is then known, whatever it executes)
 * and marked in its environment, so that the next launchfit finds what a killed one has left.
 */
export class AppProcesses {
  /** In the environment of all that is started here; a copy of the directory has another. */
  readonly #mark: string;
  readonly #file: StateFile<Infer<typeof startedApps>>;

  private constructor(mark: string, state: string) {
    this.#mark = mark;
    // no process outlives a power cut: the file need not be brought to the disk
    this.#file = new StateFile(join(state, "app.json"), startedApps, { mode: 0o600, durable: false });
  }

  /** @param state the folder `.launchfit`. */
  static async open(state: string): Promise<AppProcesses> {
    const { dev, ino } = (await stat(state).catch(ifMissing)) ?? { dev: 0, ino: 0 };
    const mark = createHash("sha256").update(`${dev}:${ino}`).digest("hex").slice(0, 24);
    return new AppProcesses(mark, state);
  }

  /** What is noted and lives. */
  async living(): Promise<StartedApp[]> {
    const { boot, mark, apps } = (await this.#file.read()) ?? { apps: [] };
    if (boot !== bootId() || mark !== this.#mark) return [];
    const alive = await Promise.all(apps.map(({ pid, startTime }) => isAlive(pid, startTime ?? -1)));
    return apps.filter((_, at) => alive[at]);
  }

  /** End what a launchfit that was killed has left: by session and group, and by the mark. @returns what was noted. */
  async endLeft(): Promise<StartedApp[]> {
    const left = await this.living();
    for (const { pid } of left) await endTree({ pid }, { grace: 0 });
    await endTree({ cookie: this.#mark }, { grace: 0 });
    return left;
  }

  /**
   * Start the app in a session of its own. It runs once it is noted.
   * @throws {Failure} when it cannot be started.
   */
  async start({ exec, dir, version, env, socket, onLine }: AppStart): Promise<App> {
    const cookie = newCookie();
    const listen = socket === undefined ? "" : "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=app ";
    // a shell that waits for a line, or for the end of us, and then becomes the app, with the same pid
    const wait = `${closeFrom(socket === undefined ? 3 : 4)}; read -r _ || exit`;
    const script = `${wait}; ${listen}exec /bin/sh -c "$0" </dev/null`;
    const child = $({
      cwd: dir,
      env: cleanEnvironment({ ...env, PWD: dir }),
      stdio: ["pipe", "pipe", "pipe", ...(socket === undefined ? [] : [socket])],
      cookie: `${this.#mark}.${cookie}`,
      nothrow: true,
      onLine,
    })`exec ${closingShell} -c ${script} ${exec}`;
    const { pid } = child;
    if (pid === undefined) throw new Failure(messageOf((await child).cause));
    try {
      const apps = [...(await this.living()), { pid, startTime: await startTimeOf(pid), version }];
      await this.#file.write({ boot: bootId(), mark: this.#mark, apps }).catch((error: unknown) => {
        // a full disk must not keep the app from running: its mark is enough to find it
        if (systemCode(error) !== "ENOSPC") throw error;
      });
      child.stdin.write("\n");
      return new App(pid, version, cookie, child);
    } finally {
      child.stdin.end();
    }
  }
}

/** An app that runs. */
export class App {
  readonly pid: number;
  readonly version: string;
  /** It has ended, and so has all that it left behind. */
  readonly ended: Promise<AppEnd>;
  alive = true;
  readonly #cookie: string;
  readonly #exited: Promise<AppEnd>;
  readonly #since = performance.now();

  constructor(pid: number, version: string, cookie: string, child: ProcessPromise) {
    this.pid = pid;
    this.version = version;
    this.#cookie = cookie;
    this.#exited = child.then(({ exitCode, signal }) => {
      this.alive = false;
      if (signal === null) return { how: `exit code ${exitCode}`, code: exitCode ?? 1 };
      return { how: signal, code: 128 + (constants.signals[signal] ?? 0) };
    });
    this.ended = this.#exited.then(async (end) => {
      // what it left must not hold its address or its files against the next one
      const left = await this.members();
      if (left.length > 0) await endTree(this.tree(), { grace: 2000 });
      const hint = " (it went into the background, and was ended there; let it stay in the foreground)";
      if (left.length > 0 && end.code === 0) return { ...end, how: `${end.how}${hint}` };
      return end;
    });
  }

  /** Milliseconds since its start, whatever the clock does meanwhile. */
  uptime(): number {
    return Math.round(performance.now() - this.#since);
  }

  /** Bytes of memory that it and all that it started have resident; what they share is counted for each. */
  async memory(): Promise<number> {
    const sizes = (await this.members()).map(async ({ pid }) => {
      const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
      return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    });
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }

  /** Send it, and what it started in its session, a signal. */
  signal(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch {
      // it has ended by itself
    }
  }

  /** End it: its own command or signal, after the grace TERM, after the grace KILL; then whatever it left behind. */
  async end({ signal, command, grace }: EndOptions): Promise<void> {
    if (command && this.alive) {
      await Promise.race([this.#exited, command()]);
      await this.exitWithin(grace);
    }
    for (const each of new Set(command ? (["SIGTERM"] as const) : ([signal, "SIGTERM"] as const))) {
      if (!this.alive) break;
      this.signal(each);
      await this.exitWithin(grace);
    }
    if (this.alive) await endTree(this.tree(), { grace: 0 });
    await this.ended;
  }

  private members() {
    return membersOf(this.tree());
  }

  /** Once it has ended, its pid may be another's. */
  private tree(): Tree {
    return this.alive ? { pid: this.pid, cookie: this.#cookie } : { cookie: this.#cookie };
  }

  private async exitWithin(ms: number): Promise<void> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), ms);
    await Promise.race([this.#exited, new Promise((resolve) => late.signal.addEventListener("abort", resolve))]);
    clearTimeout(timer);
  }
}
