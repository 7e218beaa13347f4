import process from "node:process";
import { readFile, stat } from "node:fs/promises";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { bootId } from "../core/id.ts";
import { closeFrom, closingShell } from "../exec/descriptors.ts";
import { $, cleanEnvironment, type ProcessPromise } from "../exec/exec.ts";
import {
  endTree,
  isAlive,
  membersOf,
  newCookie,
  processStat,
  type ProcessStat,
  startTimeOf,
  type Tree,
} from "../exec/process-tree.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import { StateFile } from "./state.ts";

/** How an app is started. */
export interface AppStart {
  /** The command of `app.exec`, run by /bin/sh in `dir`. */
  exec: string;
  /** The release's folder, reached by `current`. */
  dir: string;
  version: string;
  env: Record<string, string>;
  /** stdout and stderr. */
  output: number;
  /** The socket it gets as fd 3. */
  fd3: number | undefined;
  /** The file in which the living app is recorded, so that the next launchfit finds it. */
  record: string;
}

/** How an app is ended. */
export interface EndOptions {
  /** The signal of `app.kill`. */
  signal: NodeJS.Signals;
  /** Runs the command of `app.kill` instead. */
  command?: () => Promise<void>;
  /** Milliseconds before TERM, and again before KILL. */
  grace: number;
}

/** How an app ended: in words (`exit code 3`, `SIGKILL`), and as launchfit's own exit code. */
export interface AppEnd {
  how: string;
  code: number;
}

/** What the record file holds: a process for ever, by its start time and that of the machine. */
interface AppRecord {
  /** Carried by the app and what it starts. */
  cookie: string;
  version: string;
  startedAt: string;
  pid: number;
  startTime?: number | undefined;
  boot: string;
  /** The folder of the record: the copy of a directory has the record, and not the app. */
  folder: string;
}

/** Where the app of a deploy directory is recorded, and the one that an update starts beside it. */
export function appRecords({ state }: Pick<DeployDirectory, "state">) {
  return { app: join(state, "app.json"), beside: join(state, "app-beside.json") };
}

/** No process outlives a power cut: the record need not be brought to the disk. */
const recordIn = (path: string) => new StateFile<Partial<AppRecord>>(path, {}, { durable: false });

async function folderId(record: string): Promise<string> {
  const { dev, ino } = await stat(dirname(record));
  return `${dev}:${ino}`;
}

/**
 * Start the app in a session of its own. It runs only once it is recorded: whenever launchfit is killed, the next one
 * can find it.
 * @throws {Failure} when it cannot be started.
 */
export async function startApp(options: AppStart): Promise<RunningApp> {
  const { exec, dir, output, fd3, version } = options;
  const cookie = newCookie();
  // a shell that waits for a line, or for the end of us, and then becomes the app, with the same pid
  const listen = fd3 === undefined ? "" : "LISTEN_PID=$$ LISTEN_FDS=1 ";
  const close = closeFrom(fd3 === undefined ? 3 : 4);
  const script = `${close}; read -r _ || exit; ${listen}exec /bin/sh -c "$0" </dev/null`;
  const child = $({
    cwd: dir,
    env: cleanEnvironment({ ...options.env, PWD: dir }),
    stdio: ["pipe", output, output, ...(fd3 === undefined ? [] : [fd3])],
    cookie,
    outlives: true,
    nothrow: true,
  })`${closingShell} -c ${script} ${exec}`;
  const { pid } = child;
  if (pid === undefined) throw new Failure(messageOf((await child).cause));
  try {
    const started = {
      ...{ cookie, version, pid, startTime: await startTimeOf(pid) },
      startedAt: new Date().toISOString(),
      ...{ boot: bootId(), folder: await folderId(options.record) },
    };
    await recordIn(options.record).save(started);
    child.stdin.write("\n");
    return new RunningApp(started, endOf(child));
  } finally {
    child.stdin.end();
  }
}

/** What is recorded, when it is of this directory and this start of the machine, and whether that process lives. */
export async function recordedApp(record: string): Promise<(AppRecord & { alive: boolean }) | undefined> {
  const known = await recordIn(record).load();
  const { pid, startTime, cookie, version = "", startedAt = "" } = known;
  if (typeof cookie !== "string" || cookie === "" || !Number.isInteger(pid)) return undefined;
  const { boot = bootId(), folder = await folderId(record) } = known;
  if (boot !== bootId() || folder !== (await folderId(record))) return undefined;
  const found = { cookie, version, startedAt, pid: Number(pid), startTime, boot, folder };
  return { ...found, alive: startTime !== undefined && (await isAlive(found.pid, startTime)) };
}

/** The app that a launchfit before has recorded and left: itself, or what it started. */
export async function findApp(record: string): Promise<RunningApp | undefined> {
  const found = await recordedApp(record);
  if (!found) return undefined;
  const { pid, startTime, alive } = found;
  const end = alive ? watchEnd(pid, startTime) : Promise.resolve(unseenEnd);
  const app = new RunningApp(found, end, alive);
  return alive || (await app.members()).length > 0 ? app : undefined;
}

const unseenEnd = { how: "an exit code nobody saw", code: 1 };

/** The end of an app that is not a child of ours: nobody tells it, so it is looked for. */
async function watchEnd(pid: number, startTime: number | undefined): Promise<AppEnd> {
  while (await isAlive(pid, startTime)) {
    await new Promise<void>((resolve) => void setTimeout(resolve, 200).unref());
  }
  return unseenEnd;
}

async function endOf(child: ProcessPromise): Promise<AppEnd> {
  const { exitCode, signal } = await child;
  return signal === null
    ? { how: `exit code ${exitCode}`, code: exitCode ?? 1 }
    : { how: signal, code: 128 + (constants.signals[signal] ?? 0) };
}

/** An app that runs, ours or one that outlived the launchfit before. */
export class RunningApp {
  readonly pid: number;
  readonly version: string;
  readonly ended: Promise<AppEnd>;
  alive: boolean;
  readonly #cookie: string;
  readonly #startTime: number | undefined;
  /** Milliseconds that it had lived when it was taken over: of that only the time of day is known. */
  readonly #livedBefore: number;
  readonly #since = performance.now();

  constructor({ pid, version, cookie, startedAt, startTime }: AppRecord, ended: Promise<AppEnd>, alive = true) {
    this.alive = alive;
    this.pid = pid;
    this.version = version;
    this.#cookie = cookie;
    this.#startTime = startTime;
    this.#livedBefore = Math.max(0, Date.now() - Date.parse(startedAt)) || 0;
    this.ended = ended.then((end) => {
      this.alive = false;
      return end;
    });
  }

  /** Milliseconds since its start, whatever the clock does meanwhile. */
  uptime(): number {
    return this.#livedBefore + Math.round(performance.now() - this.#since);
  }

  /** It and what it started, as far as that lives. */
  members(): Promise<ProcessStat[]> {
    return membersOf(this.tree());
  }

  /** Once it has ended, its pid may be another's. */
  private tree(): Tree {
    const cookie = this.#cookie;
    const { startTime } = processStat(this.pid) ?? {};
    return startTime === undefined || startTime === this.#startTime ? { pid: this.pid, cookie } : { cookie };
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

  /**
   * End it: its own command or signal, after the grace TERM, after the grace KILL; then whatever it left
   * behind in other sessions. Fast when the app is: its end is waited for, not asked for.
   */
  async end({ signal, command, grace }: EndOptions): Promise<void> {
    if (this.alive && command) {
      await Promise.race([this.ended, command()]);
      await this.endWithin(grace);
    }
    for (const each of new Set(command ? ["SIGTERM" as const] : [signal, "SIGTERM" as const])) {
      if (!this.alive) break;
      this.signal(each);
      await this.endWithin(grace);
    }
    if (this.alive) {
      await endTree(this.tree(), { grace: 0 });
      await this.endWithin(5000);
    }
    if ((await this.members()).length > 0) await endTree(this.tree(), { grace: Math.min(grace, 2000) });
  }

  private endWithin(ms: number): Promise<unknown> {
    return Promise.race([this.ended, new Promise((resolve) => setTimeout(resolve, ms))]);
  }
}
