import { closeSync, existsSync, openSync } from "node:fs";
import { readFile, rm, stat } from "node:fs/promises";
import process from "node:process";
import { asUser, userEnvironment } from "../exec/as-user.ts";
import { type Child, start } from "../exec/exec.ts";
import { endTree, isAlive, membersOf, newCookie, startTimeOf } from "../exec/process-tree.ts";
import { currentUser } from "../exec/users.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import type { RepoConfig, Settings } from "./config.ts";
import { planArgv, planEnvironment, scriptOf, withExitFile } from "./plan.ts";
import type { Records, RunRecord } from "./records.ts";
import { noteInLog } from "./run-log.ts";

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
/** Deno 2.9 opens Unix sockets so that children inherit them. */
const leaks = process.versions["deno"] !== undefined && existsSync("/bin/bash");

/** Starts runs and watches them: time-out, size of the log, the end on request. */
export class Runner {
  readonly #settings: Settings;
  readonly #records: Records;

  constructor({ settings, records }: { settings: Settings; records: Records }) {
    this.#settings = settings;
    this.#records = records;
  }

  /**
   * Start a run whose folder is there; `onPid` is told when its process is known.
   * @throws what kept it from starting.
   */
  async start(record: RunRecord, repo: RepoConfig, onPid: () => Promise<void>): Promise<Running> {
    const argv = planArgv(await scriptOf(repo, record.kind), repo.dir, record);
    const env = planEnvironment(repo.user, record, this.#records.path(record.id, "payload.json"));
    record.argv = argv;
    record.user = repo.user.name;
    record.phase = "run";
    await rm(this.#records.path(record.id, "exit"), { force: true });
    return await this.#spawn(record, repo, asUser(argv, repo.user), env, onPid);
  }

  /** Start one of the repo's `then` commands, as the server's user. */
  async startThen(
    record: RunRecord,
    repo: RepoConfig,
    command: string,
    onPid: () => Promise<void>,
  ): Promise<Running> {
    const env = {
      ...planEnvironment(repo.user, record, this.#records.path(record.id, "payload.json")),
      ...userEnvironment(currentUser()),
    };
    record.phase = "then";
    // what the run left behind on purpose (nohup) must not be ended with these
    record.cookie = newCookie();
    await rm(this.#records.path(record.id, "exit"), { force: true });
    noteInLog(this.#records.path(record.id, "log"), record.id, `then: ${command}`);
    return await this.#spawn(record, repo, ["/bin/sh", "-c", command], env, onPid);
  }

  async #spawn(
    record: RunRecord,
    repo: RepoConfig,
    argv: readonly string[],
    env: Record<string, string>,
    onPid: () => Promise<void>,
  ): Promise<Running> {
    const exitFile = this.#records.path(record.id, "exit");
    const fd = openSync(this.#records.path(record.id, "log"), "a", 0o600);
    const cookie = record.cookie ?? newCookie();
    record.cookie = cookie;
    let child: Child;
    try {
      const cwd = (await isFolder(repo.dir)) ? repo.dir : "/";
      child = start(withExitFile(argv, exitFile, { bash: leaks }), {
        cwd,
        env,
        output: { fd },
        cookie,
      });
    } finally {
      closeSync(fd);
    }
    if (child.pid === 0) await child.exited;
    record.pid = child.pid;
    record.pidStart = await startTimeOf(child.pid);
    const exited = child.exited.then(({ code, signal }): Outcome => {
      if (code !== null) return { how: "exit", code };
      return { how: "exit", code: 128, reason: `its process was ended by ${signal}` };
    });
    await onPid();
    return this.#watch(record, repo, exited, () => child.end(grace), Date.now());
  }

  /** Watch over a run that outlived a former server. */
  adopt(record: RunRecord, repo: RepoConfig): Running {
    const tree = { pid: record.pid, cookie: record.cookie };
    const gone = async (): Promise<Outcome> => {
      while (record.pid !== undefined && (await isAlive(record.pid, record.pidStart)))
        await pause(100);
      return await this.exitLeft(record);
    };
    const started = Date.parse(record.started ?? record.accepted);
    return this.#watch(
      record,
      repo,
      gone(),
      () => endTree(tree, { grace }).then(() => {}),
      started,
    );
  }

  /** What a run's exit file says, when no server saw its end. */
  async exitLeft(record: RunRecord): Promise<Outcome> {
    const text = await readFile(this.#records.path(record.id, "exit"), "utf8").catch(() => "");
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

  #watch(
    record: RunRecord,
    repo: RepoConfig,
    exited: Promise<Outcome>,
    end: () => Promise<void>,
    started: number,
  ): Running {
    let cut: Outcome | undefined;
    const cutShort = (why: Outcome) => {
      if (cut) return;
      cut = why;
      void end();
    };
    const timer = setTimeout(
      () => cutShort({ how: "timeout" }),
      Math.min(Math.max(0, started + repo.timeout - Date.now()), 2 ** 31 - 1),
    );
    const logFile = this.#records.path(record.id, "log");
    const watcher = setInterval(() => {
      stat(logFile).then(
        ({ size }) => size > this.#settings.config.maxLog && cutShort({ how: "log" }),
        () => {},
      );
    }, logInterval);
    const outcome = exited
      .then(async (result) => {
        if (!cut) return result;
        await end();
        return cut;
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
      return `wrote more than ${formatSize(this.#settings.config.maxLog)} of log and was ended`;
    if (outcome.how === "stopped") return outcome.why;
    if (outcome.how === "lost") return "its processes ended while no server watched";
    return outcome.reason ?? (outcome.code === 0 ? undefined : `exit code ${outcome.code}`);
  }
}

async function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
