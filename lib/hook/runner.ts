import { closeSync, existsSync, openSync } from "node:fs";
import { readFile, rm, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, UsageError } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $, type ProcessPromise } from "../exec/exec.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf } from "../exec/process-tree.ts";
import { findScript, withRuntime } from "../exec/scripts.ts";
import { asUser, currentUser, type User, userEnvironment } from "../exec/users.ts";
import type { RepoConfig, Settings } from "./config.ts";
import type { Records, RunRecord } from "./records.ts";
import { noteInLog } from "./run-log.ts";
import type { ServerLog } from "./telemetry.ts";

/** A run's process: its command and environment (planned, pure), its start, and the watch over it. */

/** The argv prefix of the script that a repo's config names for a kind of run. */
export async function scriptOf(
  repo: Pick<RepoConfig, "on">,
  kind: "push" | "release",
): Promise<string[]> {
  const name = repo.on[kind];
  if (name === false) throw new UsageError(`nothing runs on ${kind} any more`);
  return name.startsWith("/") ? withRuntime(name) : await findScript(name);
}

/** The argv of a run: the script, the checkout, and what was pushed or released. Pure. */
function planArgv(
  script: readonly string[],
  dir: string,
  run: Pick<RunRecord, "kind" | "ref" | "sha" | "release">,
): string[] {
  const what = run.kind === "release" ? ["--tag", run.release?.tag ?? ""] : ["--ref", run.ref];
  return [...script, dir, ...what, ...(run.sha === undefined ? [] : ["--sha", run.sha])];
}

/** The whole environment of a run (design, section 4): what a login sets, HOOK_* and RELEASE_*. Pure. */
function planEnvironment(user: User, run: RunRecord, payloadFile: string): Record<string, string> {
  const release = run.release;
  return {
    ...userEnvironment(user),
    HOOK_EVENT: run.event,
    HOOK_REPO: run.repo,
    HOOK_REF: run.ref,
    HOOK_SHA: run.sha ?? "",
    HOOK_DELIVERY: run.delivery ?? "",
    HOOK_RUN: run.id,
    HOOK_PAYLOAD: payloadFile,
    ...(release
      ? {
          RELEASE_TAG: release.tag,
          RELEASE_NAME: release.name,
          RELEASE_SHA: run.sha ?? "",
          RELEASE_URL: release.url,
          RELEASE_PRERELEASE: String(release.prerelease),
        }
      : {}),
  };
}

/** Only bash can close descriptors of any number; every shell those up to 9: systemd hands its sockets over from 3 on. */
const closing = existsSync("/bin/bash")
  ? {
      shell: "/bin/bash",
      script: `for fd in /proc/self/fd/*; do fd=\${fd##*/}; [ "$fd" -gt 2 ] 2>/dev/null && eval "exec $fd<&-"; done`,
    }
  : { shell: "/bin/sh", script: "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-" };

/**
 * A shell around a run that leaves its exit code in a file: the server may be gone when the run ends, and the
 * next one wants to know. It runs as the server's user, so that the run cannot write that file itself.
 *
 * The server's descriptors are not the run's, and are closed: those that the server itself was started with, and
 * what Deno 2.9 lets its children inherit (the Unix socket that steers the server, copies of the log).
 */
function withExitFile(argv: readonly string[], exitFile: string): string[] {
  return [
    closing.shell,
    "-c",
    `${closing.script}; umask 022; "$@"; code=$?; echo $code >"$0"; exit $code`,
    exitFile,
    ...argv,
  ];
}

/** How a run's processes ended. */
export type Outcome =
  | { how: "exit"; code: number; reason?: string }
  | { how: "timeout" }
  | { how: "log" }
  /** Ended on request; `why` is what `stop` was given. */
  | { how: "stopped"; why: string }
  /** It outlived a former server, and left no exit code. */
  | { how: "lost" };

/** A run whose processes are under way. */
export interface Running {
  readonly outcome: Promise<Outcome>;
  /** End its whole tree within 3 seconds. */
  stop(why: string): void;
}

/** After TERM a tree has this many ms until KILL; all of it must be gone within 3 s. */
const grace = 1500;
/** Milliseconds between two looks at the size of a log. */
const logInterval = 200;

interface RunnerParts {
  settings: Settings;
  records: Records;
  log: ServerLog;
}

/** Starts runs and watches them: time-out, size of the log, the end on request. */
export class Runner {
  readonly #parts: RunnerParts;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
  }

  /** Start a run whose folder is there. @throws what kept it from starting. */
  async start(record: RunRecord, repo: RepoConfig): Promise<Running> {
    const argv = planArgv(await scriptOf(repo, record.kind), repo.dir, record);
    const env = planEnvironment(
      repo.user,
      record,
      this.#parts.records.path(record.id, "payload.json"),
    );
    record.argv = argv;
    record.user = repo.user.name;
    record.phase = "run";
    return await this.#spawn(record, repo, asUser(argv, repo.user), env);
  }

  /** Start one of the repo's `then` commands, as the server's user. */
  async startThen(record: RunRecord, repo: RepoConfig, command: string): Promise<Running> {
    const env = {
      ...planEnvironment(repo.user, record, this.#parts.records.path(record.id, "payload.json")),
      ...userEnvironment(currentUser()),
    };
    record.phase = "then";
    // what the run left behind on purpose (nohup) must not be ended with these
    record.cookie = newCookie();
    await rm(this.#parts.records.path(record.id, "exit"), { force: true });
    noteInLog(this.#parts.records.path(record.id, "log"), record.id, `then: ${command}`);
    return await this.#spawn(record, repo, ["/bin/sh", "-c", command], env);
  }

  async #spawn(
    record: RunRecord,
    repo: RepoConfig,
    argv: readonly string[],
    env: Record<string, string>,
  ): Promise<Running> {
    const exitFile = this.#parts.records.path(record.id, "exit");
    const cwd = (await isFolder(repo.dir)) ? repo.dir : "/";
    const { cookie } = record;
    const fd = openSync(this.#parts.records.path(record.id, "log"), "a", 0o600);
    let command: ProcessPromise;
    try {
      const start = $({ cwd, env, cookie, stdio: ["ignore", fd, fd], nothrow: true });
      command = start`${withExitFile(argv, exitFile)}`;
    } finally {
      closeSync(fd);
    }
    const { pid } = command;
    if (pid === undefined) throw (await command).cause;
    record.pid = pid;
    record.pidStart = await startTimeOf(pid);
    record.state = "running";
    // by the cookie, which was saved before, the next server finds the process all the same
    await this.#parts.records
      .save(record, { durable: false })
      .catch((error: unknown) =>
        this.#parts.log.warn(
          `the process of run ${record.id} cannot be noted: ${messageOf(error)}`,
        ),
      );
    return this.#watch(record, repo, outcomeOf(command), Date.now());
  }

  /** Watch over a run that outlived a former server. */
  adopt(record: RunRecord, repo: RepoConfig): Running {
    const gone = async (): Promise<Outcome> => {
      while (record.pid !== undefined && (await isAlive(record.pid, record.pidStart)))
        await sleep(100);
      return await this.exitLeft(record);
    };
    const started = Date.parse(record.started ?? record.accepted);
    return this.#watch(record, repo, gone(), started);
  }

  /** What a run's exit file says, when no server saw its end. */
  async exitLeft(record: RunRecord): Promise<Outcome> {
    const text = await readFile(this.#parts.records.path(record.id, "exit"), "utf8").catch(
      () => "",
    );
    return /^\d+\n$/.test(text) ? { how: "exit", code: Number(text) } : { how: "lost" };
  }

  /** Whether the process of a record still lives; without a pid, whether anything carries its cookie. */
  async outlived(record: RunRecord): Promise<boolean> {
    if (record.pid !== undefined) return await isAlive(record.pid, record.pidStart);
    if (record.cookie === undefined) return false;
    // killed between the start of the process and the record of its pid: the leader of the session is the shell around it
    const members = await membersOf({ cookie: record.cookie });
    const leader = members.find((each) => each.session === each.pid);
    if (!leader) return false;
    record.pid = leader.pid;
    record.pidStart = leader.startTime;
    return true;
  }

  /** End whatever is left of a run's tree. */
  async clear(record: RunRecord): Promise<void> {
    if (record.cookie !== undefined) await endTree({ cookie: record.cookie }, { grace });
  }

  #watch(record: RunRecord, repo: RepoConfig, exited: Promise<Outcome>, started: number): Running {
    const tree = { pid: record.pid, cookie: record.cookie };
    let cut: Outcome | undefined;
    let ending: Promise<unknown> | undefined;
    const cutShort = (why: Outcome) => {
      cut ??= why;
      ending ??= endTree(tree, { grace });
    };
    const timer = setTimeout(
      () => cutShort({ how: "timeout" }),
      Math.min(Math.max(0, started + repo.timeout - Date.now()), 2 ** 31 - 1),
    );
    const logFile = this.#parts.records.path(record.id, "log");
    const watcher = setInterval(() => {
      stat(logFile).then(
        ({ size }) => size > this.#parts.settings.config.maxLog && cutShort({ how: "log" }),
        () => {},
      );
    }, logInterval);
    const outcome = exited
      .then(async (result) => {
        await ending;
        return cut ?? result;
      })
      .finally(() => {
        clearTimeout(timer);
        clearInterval(watcher);
      });
    return { outcome, stop: (why) => cutShort({ how: "stopped", why }) };
  }

  /** What an outcome means, for the record. */
  explain(outcome: Outcome, repo: Pick<RepoConfig, "timeout">): string | undefined {
    if (outcome.how === "timeout")
      return `took longer than ${formatDuration(repo.timeout)} and was ended`;
    if (outcome.how === "log")
      return `wrote more than ${formatSize(this.#parts.settings.config.maxLog)} of log and was ended`;
    if (outcome.how === "stopped") return outcome.why;
    if (outcome.how === "lost") return "its processes ended while no server watched";
    return outcome.reason ?? (outcome.code === 0 ? undefined : `exit code ${outcome.code}`);
  }
}

async function outcomeOf(command: ProcessPromise): Promise<Outcome> {
  const { exitCode, signal } = await command;
  if (exitCode !== null) return { how: "exit", code: exitCode };
  return { how: "exit", code: 128, reason: `its process was ended by ${signal}` };
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
