import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { $, type ProcessPromise } from "../../exec/exec.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf } from "../../exec/process-tree.ts";
import { describeLimitsMet, endScope, type Limits, type Scopes } from "../../exec/scope.ts";
import type { JobMarks } from "../../run-store/run-store.ts";
import { type Command, supervised } from "./run-command.ts";
import { prepareLog } from "./run-log.ts";

/** What a command of a run is told apart by, and its files. */
export interface JobPlan {
  readonly run: string;
  /** Unlike any other: the run, its attempt, its step. */
  readonly name: string;
  readonly logFile: string;
  readonly exitFile: string;
  readonly limits: Limits;
}

/** How a command ended. Undefined: nobody knows. */
export type Exit =
  | {
      readonly code: number;
      /** Why it failed, where its code does not say so. */
      readonly reason?: string | undefined;
      /** What of its limits it met. */
      readonly met?: string | undefined;
    }
  | undefined;

/** A command that was started. */
export interface Job {
  readonly marks: JobMarks;
  readonly exit: Promise<Exit>;
  /** End all of it within 3 seconds. */
  end(): Promise<void>;
}

/** After TERM processes have this many ms until KILL. */
export const grace = 1500;

/**
 * The commands of runs as processes: each a child in a session of its own and, where systemd obeys us, in a scope. They
 * are started, found again by a later server, and ended with all that they started.
 */
export class Jobs {
  readonly #scopes: Scopes | undefined;

  constructor(scopes: Scopes | undefined) {
    this.#scopes = scopes;
  }

  /** Whether they go on when the server ends. */
  get outlive(): boolean {
    return this.#scopes !== undefined;
  }

  /** By what a command is found, written down before it starts. */
  marksOf({ name }: JobPlan): JobMarks {
    return { cookie: newCookie(), ...(this.#scopes && { scope: `boatyard-run-${name}.scope` }) };
  }

  /** @throws what kept it from starting */
  async start(plan: JobPlan, marks: JobMarks, { argv, env }: Command): Promise<Job> {
    const { cookie = "", scope } = marks;
    await prepareLog(plan.logFile);
    const log = openSync(plan.logFile, "a", 0o600);
    let command: ProcessPromise;
    try {
      const enter = scope === undefined ? [] : (this.#scopes?.words(scope, plan.limits) ?? []);
      const stdio = ["ignore", log, log] as ["ignore", number, number];
      const start = $({ cwd: "/", env, cookie, stdio, outlives: true, nothrow: true });
      command = start`exec ${[...enter, ...supervised(argv, { ...plan, scope })]}`;
    } finally {
      closeSync(log);
    }
    const { pid } = command;
    if (pid === undefined) throw (await command).cause;
    const exit = async (): Promise<Exit> => {
      const { exitCode, signal } = await command;
      const left = await exitLeft(plan);
      if (left) return left;
      if (signal !== null) return { code: 128, reason: `its process was ended by ${signal}` };
      return { code: exitCode ?? 128, reason: scope && "systemd did not start it; see its log" };
    };
    return jobOf({ ...marks, pid, pidStart: await startTimeOf(pid) }, exit());
  }

  /** One that a former server started, which may have ended since; undefined: it never started. */
  async find(plan: JobPlan, marks: JobMarks): Promise<Job | undefined> {
    const { cookie = "", pid } = marks;
    // killed before the pid was noted: the shell around the command leads a session
    const leader = pid ? undefined : (await membersOf({ cookie })).find((each) => each.session === each.pid);
    const shell = { pid: pid ?? leader?.pid, pidStart: marks.pidStart ?? leader?.startTime };
    if (shell.pid === undefined && !(await exitLeft(plan))) {
      await endJob(marks);
      return undefined;
    }
    const gone = async () => {
      while (shell.pid !== undefined && (await isAlive(shell.pid, shell.pidStart))) await sleep(100);
      return await exitLeft(plan);
    };
    return jobOf({ ...marks, ...shell }, gone());
  }
}

/** End what a command has started, as far as its marks tell. */
export async function endJob({ pid, cookie, scope }: JobMarks): Promise<void> {
  if (scope !== undefined) await endScope(scope);
  await endTree({ pid, cookie }, { grace });
}

function jobOf(marks: JobMarks, exited: Promise<Exit>): Job {
  let ending: Promise<unknown> | undefined;
  const end = async () => {
    ending ??= endJob(marks);
    await ending;
  };
  const exit = exited.then(async (found) => {
    // the shell around a command ends by itself, and notes the exit code: who killed it, left the command behind
    if (!found || found.reason !== undefined) await end();
    await ending;
    return found;
  });
  return { marks, exit, end };
}

/** What the shell around the command has left. */
async function exitLeft({ exitFile, limits }: JobPlan): Promise<Exit> {
  const [first = "", ...rest] = (await readFile(exitFile, "utf8").catch(() => "")).split("\n");
  if (!/^\d+$/.test(first) || rest.length === 0) return undefined;
  const code = Number(first);
  const { memory, processes, cpu } = describeLimitsMet(limits, rest.join("\n"));
  const met = [processes, cpu].filter(Boolean).join("; ") || undefined;
  // also with a good code: something was killed in it, and who started that may not have looked
  return { code, reason: memory, met };
}
