import { closeSync, openSync } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { formatDuration, formatSize } from "../../core/units.ts";
import { isPopulated, killCgroup, type Limits, type LimitsMet, limitsMet, removeCgroup } from "../../exec/cgroup.ts";
import { $, type ProcessPromise } from "../../exec/exec.ts";
import { endTree, isAlive, membersOf, startTimeOf, type Tree } from "../../exec/process-tree.ts";
import { type Command, supervised } from "./run-command.ts";
import { logSize, prepareLog } from "./run-log.ts";

/** The processes of one command of a run: their start, the watch over them, how they ended. */

/** What is known of a command before it starts; it is on disk by then, so that the next server can take over. */
export interface Job {
  /** The mark in the environment of its processes. */
  readonly cookie: string;
  /** The folder of its cgroup, where there can be one. */
  readonly cgroup: string | undefined;
  readonly logFile: string;
  readonly exitFile: string;
  /** Milliseconds. */
  readonly timeout: number;
  readonly limits: Limits;
  /** Bytes of log that it may write, asked for again and again. */
  readonly maxLog: () => number;
}

/** How a command ended. `reason` says in words why it failed, or what it met although it succeeded. */
export type Outcome =
  | { readonly how: "exit"; readonly code: number; readonly reason?: string | undefined }
  /** Its time-out, its log or its memory ended it. */
  | { readonly how: "cut"; readonly reason: string }
  /** It was ended on request. */
  | { readonly how: "stopped" }
  /** It ended while no server watched, and left no exit code. */
  | { readonly how: "lost" }
  /** It goes on; the next server takes it over. */
  | { readonly how: "left" };

/** How the shell around a command ended. */
type Exit = { readonly how: "exit"; readonly code: number; readonly signal?: string } | { readonly how: "lost" };

/** A command under way. */
export interface Running {
  /** The shell around it, and that one's start in clock ticks since boot. */
  readonly pid: number;
  readonly pidStart: number | undefined;
  readonly outcome: Promise<Outcome>;
  /** End all of it within 3 seconds. */
  stop(): void;
  /** Watch it no longer. False: it is being ended, and is watched until then. */
  leave(): boolean;
}

/** After TERM processes have this many ms until KILL; all of them must be gone within 3 s. */
const grace = 1500;
/** Milliseconds between two looks at the size of a log. */
const logInterval = 200;

/**
 * Start a command.
 * @param outlives whether it may go on when the server ends.
 * @throws what kept it from starting.
 */
export async function startCommand(
  job: Job,
  { argv, env }: Command,
  { outlives }: { outlives: boolean },
): Promise<Running> {
  await prepareLog(job.logFile);
  const fd = openSync(job.logFile, "a", 0o600);
  let command: ProcessPromise;
  try {
    const stdio = ["ignore", fd, fd] as ["ignore", number, number];
    const start = $({ cwd: "/", env, cookie: job.cookie, stdio, outlives, nothrow: true });
    command = start`${supervised(argv, job)}`;
  } finally {
    closeSync(fd);
  }
  const { pid } = command;
  if (pid === undefined) throw (await command).cause;
  const pidStart = await startTimeOf(pid);
  return { pid, pidStart, ...watch(job, pid, exitOf(command), Date.now()) };
}

/** Watch over a command that outlived a former server, which started it at `started` (ms). */
export function takeOver(
  job: Job,
  { pid, pidStart, started }: { pid: number; pidStart: number | undefined; started: number },
): Running {
  const gone = async (): Promise<Exit> => {
    while (await isAlive(pid, pidStart)) await sleep(100);
    return await exitLeft(job);
  };
  return { pid, pidStart, ...watch(job, pid, gone(), started) };
}

/** How a command ended that no server watched. */
export async function outcomeLeft(job: Job): Promise<Outcome> {
  const outcome = explain((await logFull(job)) ?? (await exitLeft(job)), await metBy(job));
  if (outcome.how !== "lost") await release(job);
  return outcome;
}

async function exitLeft({ exitFile }: Job): Promise<Exit> {
  const text = await readFile(exitFile, "utf8").catch(() => "");
  return /^\d+\n$/.test(text) ? { how: "exit", code: Number(text) } : { how: "lost" };
}

/**
 * The shell around a command, when a server was killed between its start and the note of its pid: the leader of the
 * session among those that carry its cookie.
 */
export async function findShell(cookie: string): Promise<{ pid: number; pidStart: number } | undefined> {
  const leader = (await membersOf({ cookie })).find((each) => each.session === each.pid);
  return leader && { pid: leader.pid, pidStart: leader.startTime };
}

/** End whatever is left of a command. */
export async function clear(tree: Tree): Promise<void> {
  await endTree({ cookie: tree.cookie, cgroup: tree.cgroup }, { grace });
  if (tree.cgroup !== undefined) await removeCgroup(tree.cgroup);
}

/** Watch a command until its end: time-out, size of the log, the end on request. */
function watch(
  job: Job,
  pid: number,
  exited: Promise<Exit>,
  started: number,
): Pick<Running, "outcome" | "stop" | "leave"> {
  const { cookie, cgroup, timeout } = job;
  let cut: Outcome | undefined;
  let ending: Promise<unknown> | undefined;
  const end = (why?: Outcome) => {
    cut ??= why;
    ending ??= endTree({ pid, cookie, cgroup }, { grace });
  };
  const tooLong = `took longer than ${formatDuration(timeout)} and was ended`;
  const timer = setTimeout(
    () => end({ how: "cut", reason: tooLong }),
    Math.min(Math.max(0, started + timeout - Date.now()), 2 ** 31 - 1),
  );
  const watcher = setInterval(() => {
    void logFull(job).then((full) => full && end(full));
  }, logInterval);
  let onLeft = (_outcome: Outcome) => {};
  const left = new Promise<Outcome>((resolve) => (onLeft = resolve));
  const leave = () => {
    if (ending) return false;
    onLeft({ how: "left" });
    return true;
  };
  const ended = exited.then(async (exit) => {
    // the shell around a command ends by itself, and notes the exit code: who killed it, left the command behind
    if (exit.how === "lost" || (exit.how === "exit" && exit.signal)) end();
    await ending;
    // what was written at the very end counts, too
    const outcome = explain(cut ?? (await logFull(job)) ?? exit, await metBy(job));
    await release(job);
    return outcome;
  });
  const outcome = Promise.race([ended, left]).finally(() => {
    clearTimeout(timer);
    clearInterval(watcher);
  });
  return { outcome, stop: () => end({ how: "stopped" }), leave };
}

/** The end of a command whose log has grown past its cap. */
async function logFull({ logFile, maxLog }: Job): Promise<Outcome | undefined> {
  const most = maxLog();
  if (((await logSize(logFile)) ?? 0) <= most) return undefined;
  return { how: "cut", reason: `wrote more than ${formatSize(most)} of log and was ended` };
}

/** Remove the cgroup of a command that has ended; what it left behind in it is watched. */
async function release(job: Job): Promise<void> {
  if (job.cgroup !== undefined && !(await removeCgroup(job.cgroup))) await watchLeftover(job, job.cgroup);
}

/**
 * What a run started to stay goes on after its normal end, and may hold the run's log open: past `max_log` it is ended.
 * Resolves when the watch has begun.
 */
async function watchLeftover({ logFile, maxLog }: Job, cgroup: string): Promise<void> {
  // opened now: a log with a secret in it is replaced at the run's end
  const log = await open(logFile, "r+").catch(() => undefined);
  const watching = async () => {
    while (await isPopulated(cgroup)) {
      if (log && (await log.stat()).size > maxLog()) {
        await killCgroup(cgroup);
        await log.truncate(maxLog());
      }
      await sleep(1000, undefined, { ref: false });
    }
    await removeCgroup(cgroup);
    await log?.close();
  };
  watching().catch(() => {});
}

async function metBy({ cgroup, limits }: Job): Promise<LimitsMet> {
  return cgroup === undefined ? {} : await limitsMet(cgroup, limits);
}

/** An outcome with the reason in words, which names the limits that were met. Pure. */
export function explain(outcome: Outcome | Exit, met: LimitsMet): Outcome {
  const held = [met.processes, met.cpu];
  const words = (...parts: (string | undefined)[]) => parts.filter(Boolean).join("; ") || undefined;
  if (outcome.how === "cut") return { how: "cut", reason: words(outcome.reason, met.memory, ...held) ?? "" };
  // the kernel killed the shell around it as well: there is no exit code
  if (met.memory !== undefined && outcome.how !== "stopped" && outcome.how !== "left")
    if (outcome.how === "lost" || outcome.code !== 0) return { how: "cut", reason: words(met.memory, ...held) ?? "" };
  if (outcome.how !== "exit") return outcome;
  const { code } = outcome;
  const signal = "signal" in outcome ? outcome.signal : undefined;
  const why = signal ? `its process was ended by ${signal}` : code === 0 ? undefined : `exit code ${code}`;
  return { how: "exit", code, reason: words(why, met.memory, ...held) };
}

async function exitOf(command: ProcessPromise): Promise<Exit> {
  const { exitCode, signal } = await command;
  return exitCode === null ? { how: "exit", code: 128, signal: String(signal) } : { how: "exit", code: exitCode };
}
