import { exitCodeOf, messageOf, systemCode } from "../../core/errors.ts";
import { cleanLine } from "../../core/clean.ts";
import { firstError } from "../../log/first-error.ts";
import { textOfLine } from "../../log/format.ts";
import { lastLines } from "../../log/tail.ts";
import { builtCommit, notCheckedOut } from "./checkout.ts";
import type { RepoConfig } from "../config/config.ts";
import type { Entry } from "../store/entry.ts";
import { lost } from "../store/store.ts";
import { hasEnded, recordOf, type RunRecord, type RunState } from "./records.ts";
import { failedStage } from "./run-stages.ts";
import { clear, type Outcome, type Running } from "./run-process.ts";
import { isShortage, RunStates, type RunStatesParts } from "./run-states.ts";
import { RunSteps, type RunStepsParts } from "./run-steps.ts";

/** Exit code of `build` and `release` when another process holds the checkout's lock. */
const busyCode = 3;
/** Milliseconds after which a run is tried again that could not be started. */
const retryDelay = 5000;
const maxBusyDelay = 60_000;

/** What an attempt at a run came to. */
export type Result =
  /** The run has ended, and its record on disk says how. */
  | { readonly ended: RunRecord }
  /** It waits for another attempt, which must not be before this time (ms). */
  | { readonly notBefore: number }
  /** It goes on without this server, and the next one takes it over. */
  | { readonly left: true };

/** So much of a failed stage's output is searched for its error, in bytes from its end. */
const searchedBytes = 1024 * 1024;

/** Why a run is ended before its time, and the state that it has then. */
interface Stop {
  readonly why: string;
  readonly state: RunState;
  readonly by?: string | undefined;
  readonly cancelledBy?: string;
}

/** A run that is worked on. `stop` came before there was a process, or is on its way to it. */
type Active = { running?: Running; stop?: Stop };

interface ExecutorParts extends RunStepsParts, RunStatesParts {
  /** An entry's payload; what the entry superseded is on disk as superseded before this resolves. */
  payloadOf: (entry: Entry) => Promise<Uint8Array>;
  /** Told of each run that succeeded, before its record says so. */
  onSuccess: (record: RunRecord) => Promise<void>;
}

/**
 * Takes a run through its commands, the script and then the repo's `then` commands, from its start to its end. Every
 * step is on disk before the next: whatever instant the server is killed at, the record tells the next one where to
 * go on.
 */
export class Executor {
  readonly #parts: ExecutorParts;
  readonly #states: RunStates;
  readonly #steps: RunSteps;
  readonly #active = new Map<string, Active>();
  /** How often a run found its checkout busy. */
  readonly #busy = new Map<string, number>();
  /** What becomes of runs under way when the server ends. */
  #closing: "stop" | "leave" | undefined;

  constructor(parts: ExecutorParts) {
    this.#parts = parts;
    this.#states = new RunStates(parts);
    this.#steps = new RunSteps(parts, this.#states);
  }

  /** Run an entry whose turn it is. */
  run(entry: Entry, repo: RepoConfig): Promise<Result> {
    const record = this.recordOf(entry);
    return this.attempt(record, async () => {
      await this.#states.starting(record, await this.#parts.payloadOf(entry), repo.user);
      const end = record.onlyIfCheckedOut && (await notCheckedOut(record, repo));
      if (end) return { ended: await this.end(record, end.state, { reason: end.reason }) };
      const stop = this.#active.get(record.id)?.stop;
      if (stop) return await this.endAsAsked(record, stop);
      const running = await this.#steps.startScript(record, repo);
      const what = [record.kind, record.ref, record.sha ?? ""].join(" ").trimEnd();
      this.#parts.log.info(`run ${record.id} of ${record.repo} started: ${what}`);
      return await this.follow(record, repo, running);
    });
  }

  /**
   * Go on with a run that a former server left.
   * @param isOrphan its delivery is gone: it does not run again.
   * @returns undefined: it waits for its turn; `ended`: its record has its end; `result`: it is under way, or its
   * process has exited since.
   */
  async recover(
    entry: Entry,
    isOrphan = false,
  ): Promise<{ ended: RunRecord } | { result: Promise<Result> } | undefined> {
    const record = this.#parts.records.get(entry.id);
    const repo = this.#parts.settings.config.repos.get(entry.repo);
    if (!record) return undefined;
    if (record.state === "waiting") return isOrphan ? { ended: await this.lose(record, lost) } : undefined;
    if (hasEnded(record.state)) return { ended: record };
    if (!repo) {
      await clear(record);
      return { ended: await this.lose(record, `lost: ${record.repo} is not configured any more`) };
    }
    const running = await this.#steps.takeOver(record, repo);
    if (running) {
      this.#parts.log.info(`run ${record.id} of ${record.repo} outlived the former server; it goes on`);
      // the former server may have been killed before it could note that the run had started
      if (record.state === "starting") await this.#states.running(record, running);
      return { result: this.attempt(record, () => this.follow(record, repo, running)) };
    }
    const outcome = await this.#steps.outcomeLeft(record, repo);
    if (outcome.how !== "lost") {
      record.state = "running";
      return { result: this.attempt(record, () => this.goOn(record, repo, outcome)) };
    }
    await clear(record);
    if (isOrphan) return { ended: await this.lose(record, lost) };
    await this.#states.interrupted(record);
    return undefined;
  }

  /** End a run that is under way, or about to be; false when there is none of that id. */
  stop(id: string, stop: Stop): boolean {
    const active = this.#active.get(id);
    if (!active) return false;
    active.stop ??= stop;
    active.running?.stop();
    return true;
  }

  /** End all that is under way; it runs again at the next start. */
  stopAll(): void {
    this.#closing = "stop";
    this.#states.close();
    for (const { running } of this.#active.values()) running?.stop();
  }

  /** The server ends: leave what is under way to the next one, where it can go on; else end it. */
  async leaveAll(): Promise<void> {
    if (this.#active.size === 0) return;
    const { outlives } = await this.#parts.cgroups.find();
    if (!outlives || this.#parts.guard) return this.stopAll();
    this.#closing ??= "leave";
    for (const [id, { running, stop }] of this.#active)
      if (!stop && running?.leave() !== false) this.#parts.log.warn(`run ${id} goes on; the next server takes it over`);
  }

  /** Make the folder of a run that waits, with its payload: then it can end without having been started. */
  async makeFolder(entry: Entry): Promise<void> {
    const owner = this.#parts.settings.config.repos.get(entry.repo)?.user;
    await this.#parts.records.create(this.recordOf(entry), await this.#parts.payloadOf(entry), owner);
  }

  /** Cancel a run that waits and has a folder. */
  async cancel(entry: Entry, reason: string, cancelledBy: string): Promise<RunRecord> {
    return await this.end({ ...this.recordOf(entry), cancelledBy }, "cancelled", { reason });
  }

  /** End a run of which nothing can come any more. It can be run again. */
  async lose(record: RunRecord, reason: string): Promise<RunRecord> {
    return await this.end(record, "failed", { reason });
  }

  /** A run that waits gave way to a newer one. */
  supersede(old: Entry, by: { id: string }): void {
    this.#states.superseded(old, by.id);
  }

  private recordOf(entry: Entry): RunRecord {
    return this.#parts.records.get(entry.id) ?? recordOf(entry);
  }

  /** Work on a run that is under way. */
  private async attempt(record: RunRecord, work: () => Promise<Result>): Promise<Result> {
    const active: Active = {};
    this.#active.set(record.id, active);
    try {
      const result = await this.resultOf(record, work);
      // whoever asked for its end was told that it comes
      if ("notBefore" in result && active.stop) return await this.endAsAsked(record, active.stop);
      return result;
    } finally {
      this.#active.delete(record.id);
    }
  }

  /** Whatever goes wrong in a run ends that run or lets it wait, not the server. */
  private async resultOf(record: RunRecord, work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      let reason = messageOf(error);
      if (record.state !== "running" && isShortage(error)) {
        this.#parts.log.warn(`run ${record.id} of ${record.repo} cannot start: ${reason}; it waits`);
        record.state = "waiting";
        record.reason = reason;
        return { notBefore: Date.now() + retryDelay };
      }
      if (exitCodeOf(error) === undefined && systemCode(error) === undefined) {
        this.#parts.log.bug(error);
        reason = "an error of hook-server; see its log";
      }
      return { ended: await this.end(record, "failed", { reason }) };
    }
  }

  /** Follow the command under way to its end, and the run with it. */
  private async follow(record: RunRecord, repo: RepoConfig, running: Running): Promise<Result> {
    const active = this.#active.get(record.id);
    if (active) active.running = running;
    if (active?.stop || this.#closing === "stop") running.stop();
    else if (this.#closing === "leave") running.leave();
    return await this.goOn(record, repo, await running.outcome);
  }

  /** A command has ended: start the next one, or end the run. */
  private async goOn(record: RunRecord, repo: RepoConfig, outcome: Outcome): Promise<Result> {
    if (outcome.how === "left") return { left: true };
    const stop = this.#active.get(record.id)?.stop;
    if (outcome.how === "exit") record.exit = outcome.code;
    if (outcome.how === "stopped" && stop) return await this.endAsAsked(record, stop);
    if (outcome.how === "stopped" || outcome.how === "lost") {
      await this.#states.interrupted(record);
      return { notBefore: 0 };
    }
    if (outcome.how === "exit" && outcome.code === busyCode && record.phase !== "then")
      return await this.retryLater(record);
    if (outcome.how === "cut" || outcome.code !== 0)
      return { ended: await this.end(record, "failed", { reason: await this.whyFailed(record, outcome) }) };
    record.met = outcome.reason ?? record.met;
    const next = record.phase === "then" ? (record.step ?? 0) + 1 : 0;
    if (record.kind === "push" && next < repo.afterwards.length)
      return await this.follow(record, repo, await this.#steps.startThen(record, repo, next));
    await this.#parts.onSuccess(record);
    return { ended: await this.end(record, "succeeded", { reason: record.met }) };
  }

  /** The stage and why it failed, and the line of its output that tells more: `test: exit code 1: TypeError: …`. */
  private async whyFailed(record: RunRecord, outcome: Outcome & { reason?: string | undefined }): Promise<string> {
    const stages = await this.#states.stagesOf(record);
    const stage = failedStage(stages) ?? stages.find(({ result }) => result === undefined);
    const isPlain = outcome.how === "exit" && outcome.reason === `exit code ${outcome.code}`;
    const why = (isPlain ? stage?.why : undefined) ?? outcome.reason ?? "";
    const name = record.phase === "then" ? "on_success" : stage?.name;
    const printed = await lastLines(this.#parts.records.path(record.id, "log"), stage, searchedBytes);
    const lines = printed.map(textOfLine);
    const error = lines[firstError(lines)]?.trim().slice(0, 200);
    const parts = [name, why, error === undefined || why.includes(error) ? undefined : error];
    return cleanLine(this.#parts.settings.mask(parts.filter((part) => part !== undefined && part !== "").join(": ")));
  }

  private async endAsAsked(record: RunRecord, { state, why, by, cancelledBy }: Stop) {
    record.cancelledBy = cancelledBy;
    return { ended: await this.end(record, state, { reason: why, by }) };
  }

  private async end(
    record: RunRecord,
    state: RunState,
    why: { reason?: string | undefined; by?: string | undefined },
  ): Promise<RunRecord> {
    // most forges name a branch with a release; what its tag is, the checkout knows once it was fetched
    record.built = await builtCommit(record, this.#parts.settings.config);
    const ended = await this.#states.ended(record, state, why);
    this.#busy.delete(record.id);
    return ended;
  }

  /** The checkout was busy: the run waits, longer each time. */
  private async retryLater(record: RunRecord): Promise<Result> {
    const tries = (this.#busy.get(record.id) ?? 0) + 1;
    this.#busy.set(record.id, tries);
    await this.#states.waits(record, "the checkout is busy: another build holds its lock");
    this.#parts.log.info(`run ${record.id} of ${record.repo} waits: the checkout is busy`);
    return { notBefore: Date.now() + Math.min(maxBusyDelay, 500 * 2 ** Math.min(tries, 10)) };
  }
}
