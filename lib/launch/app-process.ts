import process from "node:process";
import { readdir, readFile, readlink } from "node:fs/promises";
import { constants } from "node:os";
import { Failure, messageOf } from "../core/errors.ts";
import { $, cleanEnvironment, type ProcessPromise } from "../exec/exec.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf } from "../exec/process-tree.ts";
import { StateFile } from "./state-file.ts";

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

/** What the record file holds. Without a pid, launchfit died between the decision and the start. */
interface AppRecord {
  cookie: string;
  version: string;
  startedAt: string;
  pid?: number;
  startTime?: number | undefined;
}

/** No process outlives a power cut: the record need not be brought to the disk. */
const recordIn = (path: string) => new StateFile<Partial<AppRecord>>(path, {}, { durable: false });

/**
 * Start the app in a session of its own. The record is written before it starts (with its cookie) and
 * after (with its pid): whenever launchfit is killed, the next one can find the app.
 * @throws {Failure} when it cannot be started.
 */
export async function startApp(options: AppStart): Promise<RunningApp> {
  const { exec, dir, output, fd3 } = options;
  const cookie = newCookie();
  const record: AppRecord = {
    cookie,
    version: options.version,
    startedAt: new Date().toISOString(),
  };
  const file = recordIn(options.record);
  await file.save({ ...record, pid: undefined, startTime: undefined });
  // the pid of the outer shell is that of the inner one, and of the app when it is a single command
  const script =
    fd3 === undefined ? [exec] : ['LISTEN_PID=$$ LISTEN_FDS=1 exec /bin/sh -c "$0"', exec];
  const child = $({
    cwd: dir,
    env: cleanEnvironment({ ...options.env, PWD: dir }),
    stdio: ["ignore", output, output, ...(fd3 === undefined ? [] : [fd3])],
    cookie,
    outlives: true,
    nothrow: true,
  })`/bin/sh -c ${script}`;
  const { pid } = child;
  if (pid === undefined) throw new Failure(messageOf((await child).cause));
  const started = { ...record, pid, startTime: await startTimeOf(pid) };
  await file.save(started);
  return new RunningApp(started, endOf(child));
}

/**
 * The app that outlived the launchfit before, when it lives and serves `version`; any other remainder of
 * it is ended, so that there are never two.
 * @param version undefined: whatever is recorded there is ended.
 */
export async function takeOverApp(
  recordFile: string,
  version: string | undefined,
): Promise<RunningApp | undefined> {
  const record = await recordIn(recordFile).load();
  const { pid, startTime, cookie, startedAt = "" } = record;
  if (typeof cookie !== "string" || cookie === "") return undefined;
  if (
    pid !== undefined &&
    version !== undefined &&
    record.version === version &&
    (await isAlive(pid, startTime))
  )
    return new RunningApp({ cookie, version, startedAt, pid, startTime }, watchEnd(pid, startTime));
  if ((await membersOf({ cookie })).length > 0) await endTree({ cookie });
  return undefined;
}

/** The end of an app that is not a child of ours: nobody tells it, so it is looked for. */
async function watchEnd(pid: number, startTime: number | undefined): Promise<AppEnd> {
  while (await isAlive(pid, startTime)) {
    await new Promise<void>((resolve) => void setTimeout(resolve, 200).unref());
  }
  return { how: "an exit code nobody saw", code: 1 };
}

async function endOf(child: ProcessPromise): Promise<AppEnd> {
  const { exitCode, signal } = await child;
  return signal === null
    ? { how: `exit code ${exitCode}`, code: exitCode ?? 1 }
    : { how: signal, code: 128 + (constants.signals[signal] ?? 0) };
}

async function hasSocket(pid: number, inode: string): Promise<boolean> {
  const folder = `/proc/${pid}/fd`;
  const names = await readdir(folder).catch(() => []);
  const links = await Promise.all(names.map((fd) => readlink(`${folder}/${fd}`).catch(() => "")));
  return links.includes(`socket:[${inode}]`);
}

/** An app that runs, ours or one that outlived the launchfit before. */
export class RunningApp {
  readonly pid: number;
  readonly version: string;
  readonly ended: Promise<AppEnd>;
  alive = true;
  readonly #cookie: string;
  readonly #startTime: number | undefined;
  /** Milliseconds that it had lived when it was taken over: of that only the time of day is known. */
  readonly #livedBefore: number;
  readonly #since = performance.now();

  constructor(
    { pid, version, cookie, startedAt, startTime }: AppRecord & { pid: number },
    ended: Promise<AppEnd>,
  ) {
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

  /** Bytes of memory that it and all that it started have resident; what they share is counted for each. */
  async memory(): Promise<number> {
    const members = await membersOf({ pid: this.pid, cookie: this.#cookie });
    const sizes = members.map(async ({ pid }) => {
      const status = await readFile(`/proc/${pid}/status`, "latin1").catch(() => "");
      return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    });
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }

  /** Whether it, or something that it started, has a socket open: by the inode that /proc/net/tcp shows. */
  async holdsSocket(inode: string): Promise<boolean> {
    // most often it is the app itself; the look at all processes takes longer
    if (await hasSocket(this.pid, inode)) return true;
    const members = await membersOf({ pid: this.pid, cookie: this.#cookie });
    const held = await Promise.all(members.map(({ pid }) => hasSocket(pid, inode)));
    return held.includes(true);
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
    const tree = { pid: this.pid, cookie: this.#cookie };
    if (this.alive && command) {
      await Promise.race([this.ended, command()]);
      await this.#endWithin(grace);
    }
    for (const each of new Set(command ? ["SIGTERM" as const] : [signal, "SIGTERM" as const])) {
      if (!this.alive) break;
      this.signal(each);
      await this.#endWithin(grace);
    }
    if (this.alive) {
      await endTree(tree, { grace: 0 });
      await this.#endWithin(5000);
    }
    // the end of a process that is not a child of ours is noticed late: ask once more, by pid
    if (await isAlive(this.pid, this.#startTime)) await endTree(tree, { grace: 0 });
    if ((await membersOf(tree)).length > 0) await endTree(tree, { grace: Math.min(grace, 2000) });
  }

  #endWithin(ms: number): Promise<unknown> {
    return Promise.race([this.ended, new Promise((resolve) => setTimeout(resolve, ms))]);
  }
}
