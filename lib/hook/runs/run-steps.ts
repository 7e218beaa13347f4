import { rm } from "node:fs/promises";
import { type Cgroups, runPrefix } from "../../exec/cgroups.ts";
import { isAlive, newCookie } from "../../exec/process-tree.ts";
import type { RunGuard } from "./guard.ts";
import type { RepoConfig, Settings } from "../config/config.ts";
import type { Records, RunRecord } from "./records.ts";
import { type Command, scriptCommand, scriptOf, afterCommand } from "./run-command.ts";
import { noteInLog } from "./run-log.ts";
import { endVariables } from "./run-news.ts";
import { findShell, type Job, type Outcome, outcomeLeft, type Running, startCommand, takeOver } from "./run-process.ts";
import type { RunStates } from "./run-states.ts";

export interface RunStepsParts {
  settings: Settings;
  records: Records;
  /** Where runs have cgroups of their own. */
  cgroups: Cgroups;
  /** Of several builders: what ends a command that outlasts our claim of it. @throws when it is not ours any more */
  guard: ((id: string, tree: { cookie: string; cgroup: string | undefined }) => Promise<RunGuard>) | undefined;
}

/**
 * The commands of a run, each started in a cgroup of its own, or taken over from a former server. What it is found by
 * is on disk before it starts.
 */
export class RunSteps {
  readonly #parts: RunStepsParts;
  readonly #states: RunStates;

  constructor(parts: RunStepsParts, states: RunStates) {
    this.#parts = parts;
    this.#states = states;
  }

  /** Start the script. @throws what kept it from starting. */
  async startScript(record: RunRecord, repo: RepoConfig): Promise<Running> {
    const script = await scriptOf(repo, record.kind);
    const command = scriptCommand(script, repo, record, {
      payloadFile: this.payloadFile(record),
      stageFile: this.#parts.records.path(record.id, "stages"),
    });
    Object.assign(record, { argv: command.script, user: repo.user.name, phase: "run" });
    return await this.start(record, repo, command);
  }

  /** Start one of the repo's `then` commands, counted from 0. @throws what kept it from starting. */
  async startThen(record: RunRecord, repo: RepoConfig, index: number): Promise<Running> {
    const text = repo.afterwards[index] ?? "";
    // the exit code of the command before must not be taken for this one's
    await rm(this.#parts.records.path(record.id, "exit"), { force: true });
    Object.assign(record, { phase: "then", step: index });
    await this.#states.thenStarts(record, `then: ${text}`);
    noteInLog(this.#parts.records.path(record.id, "log"), record.id, `then: ${text}`);
    const command = afterCommand(text, repo, record, {
      payloadFile: this.payloadFile(record),
      more: endVariables(record, {
        url: this.#parts.settings.config.url,
        logFile: this.#parts.records.path(record.id, "log"),
      }),
    });
    return await this.start(record, repo, command);
  }

  private async start(record: RunRecord, repo: RepoConfig, command: Command): Promise<Running> {
    // marks of its own: what the command before left behind on purpose is not ended with this one
    const cookie = newCookie();
    const name = `${runPrefix}${record.id}-${cookie.slice(0, 8)}`;
    const cgroup = await this.#parts.cgroups.make(name, limitsOf(record, repo));
    await this.#states.marked(record, { cookie, cgroup });
    const { outlives } = await this.#parts.cgroups.find();
    const guard = await this.#parts.guard?.(record.id, { cookie, cgroup });
    const mode = { outlives: outlives && !guard };
    const guarded = { ...command, env: { ...command.env, ...guard?.env } };
    const starting = startCommand(this.jobOf(record, repo), guarded, mode);
    if (guard) void starting.then(({ outcome }) => outcome).then(guard.end, guard.end);
    const running = await starting;
    guard?.watch(running.pid);
    await this.#states.running(record, { pid: running.pid, pidStart: running.pidStart });
    return running;
  }

  /** Watch the command that a former server started, when it is under way. */
  async takeOver(record: RunRecord, repo: RepoConfig): Promise<Running | undefined> {
    const { cookie = "", pid, pidStart } = record;
    const shell = pid === undefined ? await findShell(cookie) : { pid, pidStart };
    if (!shell || !(await isAlive(shell.pid, shell.pidStart))) return undefined;
    const started = Date.parse(record.started ?? record.accepted);
    return takeOver(this.jobOf(record, repo), { ...shell, started });
  }

  /** How the command ended that a former server started. */
  async outcomeLeft(record: RunRecord, repo: RepoConfig): Promise<Outcome> {
    return await outcomeLeft(this.jobOf(record, repo));
  }

  private jobOf(record: RunRecord, repo: RepoConfig): Job {
    const { settings, records } = this.#parts;
    return {
      cookie: record.cookie ?? "",
      cgroup: record.cgroup,
      logFile: records.path(record.id, "log"),
      exitFile: records.path(record.id, "exit"),
      timeout: repo.timeout,
      limits: limitsOf(record, repo),
      maxLog: () => settings.config.maxLog,
    };
  }

  private payloadFile(record: RunRecord): string {
    return this.#parts.records.path(record.id, "hook-payload.json");
  }
}

/** The limits are for what the repo's user starts; `then` commands are the server's own. */
function limitsOf(record: RunRecord, { limits }: RepoConfig): RepoConfig["limits"] {
  return record.phase === "then" ? {} : limits;
}
