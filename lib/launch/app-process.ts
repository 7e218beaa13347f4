import process from "node:process";
import { readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { systemCode } from "../core/errors.ts";
import { cleanEnvironment, start } from "../exec/exec.ts";
import { temporaryBeside } from "../files/files.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf } from "../exec/process-tree.ts";

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
  /** Where the living app is recorded, so that the next launchfit finds it. */
  record: string;
}

/** An app that runs, ours or one that outlived the launchfit before. */
export interface RunningApp {
  readonly pid: number;
  readonly version: string;
  /** Milliseconds since its start, whatever the clock does meanwhile. */
  uptime(): number;
  /** How it ended, in words: `exit code 3`, `SIGKILL`. */
  readonly exited: Promise<{ how: string; code: number }>;
  readonly alive: boolean;
  /** Ends it with all it started; see `endApp`. */
  end(how: EndOptions): Promise<void>;
  signal(signal: NodeJS.Signals): void;
}

export interface EndOptions {
  /** The signal of `app.kill`, or the one that stands for none: TERM. */
  signal: NodeJS.Signals;
  /** Runs the command of `app.kill`; the signal follows only when it did not help. */
  command?: () => Promise<void>;
  /** Milliseconds before TERM, and again before KILL. */
  grace: number;
}

/** What the record file holds. Without a pid, launchfit died between the decision and the start. */
interface AppRecord {
  cookie: string;
  version: string;
  startedAt: string;
  pid?: number;
  startTime?: number;
}

/**
 * Start the app in a session of its own. The record is written before it starts (with its cookie) and
 * after (with its pid): whenever launchfit is killed, the next one can find the app.
 */
export async function startApp(options: AppStart): Promise<RunningApp> {
  const cookie = newCookie();
  const record: AppRecord = {
    cookie,
    version: options.version,
    startedAt: new Date().toISOString(),
  };
  writeRecord(options.record, record);
  // the pid of the outer shell is that of the inner one, and of the app when it is a single command
  const argv =
    options.fd3 === undefined
      ? ["/bin/sh", "-c", options.exec]
      : ["/bin/sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec /bin/sh -c "$0"', options.exec];
  const child = start(argv, {
    cwd: options.dir,
    env: cleanEnvironment({ ...options.env, PWD: options.dir }),
    output: { fd: options.output },
    fd3: options.fd3,
    cookie,
  });
  child.release();
  const exited = child.exited.then(({ code, signal }) => describeEnd(code, signal));
  const startTime = await startTimeOf(child.pid);
  const full: AppRecord = {
    ...record,
    pid: child.pid,
    ...(startTime === undefined ? {} : { startTime }),
  };
  writeRecord(options.record, full);
  return runningApp(full, child.pid, exited);
}

/**
 * The app that outlived the launchfit before, when it lives and serves `version`; any other remainder of
 * it is ended, so that there are never two.
 */
export async function takeOverApp(
  recordFile: string,
  version: string,
): Promise<RunningApp | undefined> {
  const record = readRecord(recordFile);
  if (!record) return undefined;
  const { pid, startTime, cookie } = record;
  if (pid !== undefined && record.version === version && (await isAlive(pid, startTime))) {
    return runningApp(record, pid, watchEnd(pid, startTime));
  }
  if ((await membersOf({ cookie })).length > 0) await endTree({ cookie });
  return undefined;
}

/** In one step, but not waited for until the disk has it: no process outlives a power cut. */
function writeRecord(file: string, record: AppRecord): void {
  const text = `${JSON.stringify(record)}\n`;
  const temporary = temporaryBeside(file);
  try {
    writeFileSync(temporary, text, { mode: 0o600 });
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    // a full disk must not keep the app from running: the old record has room for the new one
    if (systemCode(error) !== "ENOSPC") throw error;
    writeFileSync(file, text, { flag: "r+" });
    truncateSync(file, Buffer.byteLength(text));
  }
}

function readRecord(file: string): AppRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(file, "utf8")) as AppRecord;
    return typeof record.cookie === "string" && record.cookie !== "" ? record : undefined;
  } catch {
    return undefined;
  }
}

/** An app that is no child of ours tells its end to nobody: it is looked for. */
async function watchEnd(
  pid: number,
  startTime: number | undefined,
): Promise<{ how: string; code: number }> {
  while (await isAlive(pid, startTime)) {
    await new Promise<void>((resolve) => void setTimeout(resolve, 200).unref());
  }
  return { how: "an exit code nobody saw", code: 1 };
}

function describeEnd(
  code: number | null,
  signal: NodeJS.Signals | null,
): { how: string; code: number } {
  return signal === null
    ? { how: `exit code ${code}`, code: code ?? 1 }
    : { how: signal, code: 128 + signalNumber(signal) };
}

function signalNumber(signal: NodeJS.Signals): number {
  return (
    { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGSEGV: 11, SIGTERM: 15 }[
      signal as string
    ] ?? 0
  );
}

function runningApp(
  record: AppRecord,
  pid: number,
  exited: Promise<{ how: string; code: number }>,
): RunningApp {
  let alive = true;
  // a start that failed is an end like any other
  const end = exited.catch((error: unknown) => ({
    how: String((error as Error).message),
    code: 127,
  }));
  const ended = end.then((how) => {
    alive = false;
    return how;
  });
  // of an app that was taken over only the time of day is known
  const before = Math.max(0, Date.now() - Date.parse(record.startedAt));
  const since = performance.now();
  return {
    pid,
    version: record.version,
    uptime: () => before + Math.round(performance.now() - since),
    exited: ended,
    get alive() {
      return alive;
    },
    end: (how) => endApp({ pid, cookie: record.cookie }, ended, () => alive, record, how),
    signal: (signal) => send(-pid, signal),
  };
}

/**
 * End an app: its own command or signal, after the grace TERM, after the grace KILL; then whatever it left
 * behind in other sessions. Fast when the app is: its end is waited for, not asked for.
 */
async function endApp(
  tree: { pid: number; cookie: string },
  ended: Promise<unknown>,
  alive: () => boolean,
  record: AppRecord,
  { signal, command, grace }: EndOptions,
): Promise<void> {
  const within = (ms: number) =>
    Promise.race([ended, new Promise((resolve) => setTimeout(resolve, ms))]);
  if (alive() && command) {
    await Promise.race([ended, command()]);
    await within(grace);
  }
  if (alive() && (!command || signal !== "SIGTERM")) {
    send(-tree.pid, signal);
    await within(grace);
  }
  if (alive() && (command || signal !== "SIGTERM")) {
    send(-tree.pid, "SIGTERM");
    await within(grace);
  }
  if (alive()) {
    await endTree(tree, { grace: 0 });
    await within(5000);
  }
  // a process that is no child of ours is noticed late by `ended`: ask once more, by pid
  if (record.pid !== undefined && (await isAlive(record.pid, record.startTime)))
    await endTree(tree, { grace: 0 });
  if ((await membersOf(tree)).length > 0) await endTree(tree, { grace: Math.min(grace, 2000) });
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has ended by itself
  }
}
