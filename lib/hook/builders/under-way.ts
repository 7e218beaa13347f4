import { setTimeout as sleep } from "node:timers/promises";
import type { Objects } from "../../bus/bus.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import { findRepo, type Settings } from "../config/config.ts";
import type { RunRecord } from "../runs/records.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import { type Claim, guardAfter } from "./claims.ts";
import type { BuilderSettings } from "../config/builders.ts";
import type { Connected } from "./connection.ts";
import { claimSocketOf, type Guard, type RunGuard, startGuard } from "../runs/guard.ts";
import { noteState, tidyPayloads, tidyRuns } from "./run-documents.ts";
import { removeWanted } from "./wanted.ts";

/** Milliseconds between two tries to tell the bus that a run has ended. */
const retryDelay = 500;
/** Milliseconds between two looks for payloads that no run names. */
const tidyEvery = 3_600_000;
const lostClaim =
  "the claim of the repo was lost, or could not be renewed on the bus in time; another builder may run it";

export interface UnderWayParts {
  settings: Settings;
  builder: BuilderSettings;
  /** Names the state folder for ever. */
  home: string;
  log: ServerLog;
  /** End a run that is under way. */
  stop: (id: string, why: { why: string; by?: string }) => void;
  recordOf: (id: string) => RunRecord | undefined;
  /** The log of a run that has ended, to be kept on the bus. */
  keepLog: (objects: Objects, id: string) => Promise<void>;
}

/**
 * The runs under way here, each under a claim: none goes on, starts a command, or publishes once its claim is lost; and
 * how one has ended is on the bus before its claim is given back.
 */
export class RunsUnderWay {
  readonly #parts: UnderWayParts;
  /** Undefined before the bus was reached. */
  readonly #open: () => Connected | undefined;
  readonly #onFree: () => void;
  readonly #runs = new Map<string, { claim: Claim; payload: Buffer; guards: Set<Guard> }>();
  /** Runs that were ended here since their claim was lost: how they end elsewhere counts. */
  readonly #lost = new Set<string>();
  readonly #finishing = new Set<Promise<void>>();
  /** When payloads were tidied last (ms). */
  #tidied = 0;
  #closed = false;

  /** @param onFree told when a claim was given back. */
  constructor(parts: UnderWayParts, open: () => Connected | undefined, onFree: () => void) {
    this.#parts = parts;
    this.#open = open;
    this.#onFree = onFree;
  }

  /** A run is about to be started under a claim. */
  add(id: string, claim: Claim, payload: Buffer): void {
    this.#lost.delete(id);
    this.#runs.set(id, { claim, payload, guards: new Set() });
  }

  payload(id: string): Buffer | undefined {
    return this.#runs.get(id)?.payload;
  }

  /** Whether a repo has a run here, which may be ending since its claim was lost. */
  isBusy(repo: string): boolean {
    return [...this.#runs.values()].some(({ claim }) => claim.repo === repo);
  }

  /** Whether how a run ends here means nothing: another builder has it, or will. */
  isLost(id: string): boolean {
    return this.#lost.has(id);
  }

  /** A run that a former server left is not ours until it is begun again. */
  leave(id: string): void {
    this.#lost.add(id);
  }

  /**
   * A guard for a command of a run that is about to start.
   * @throws {Failure} when the run's claim is not ours any more: it must not start.
   */
  async guard(id: string, tree: { cookie: string; cgroup: string | undefined }): Promise<RunGuard> {
    const running = this.#runs.get(id);
    const claims = this.#open()?.claims;
    const isValid = () => running !== undefined && claims?.isValid(running.claim) === true;
    const refuse = () => {
      // it did not fail: it is begun again under another claim
      this.#lost.add(id);
      return new Failure(lostClaim);
    };
    if (!running || !isValid()) throw refuse();
    const patience = this.#parts.builder.lease * guardAfter;
    const guard = await startGuard({ ...tree, patience });
    running.guards.add(guard);
    const end = () => {
      running.guards.delete(guard);
      guard.end();
    };
    const env = { HOOK_CLAIM: claimSocketOf(this.#parts.settings.config.state) };
    if (isValid()) return { ...guard, end, env };
    end();
    throw refuse();
  }

  /** Whether a run may publish now: the bus itself is asked whether the claim with this fencing number is ours. */
  async mayPublish(id: string, fence: number): Promise<boolean> {
    const [claim, claims] = [this.#runs.get(id)?.claim, this.#open()?.claims];
    if (!claim || !claims || claim.fence !== fence) return false;
    return await claims.confirm(claim);
  }

  /** A claim was written again. */
  renewed({ run = "" }: Claim): void {
    for (const guard of this.#runs.get(run)?.guards ?? []) guard.beat();
  }

  lose(claim: Claim): void {
    const { run } = claim;
    this.#parts.log.warn(`the claim of ${claim.repo} is lost`);
    if (run === undefined || this.#runs.get(run)?.claim !== claim) return;
    this.#lost.add(run);
    this.#parts.stop(run, { why: lostClaim });
  }

  /** What is wanted of a repo has changed: a newer push may have come, which may end the one under way. */
  giveWay(name: string): void {
    const repo = findRepo(this.#parts.settings.config, name);
    if (!repo?.cancel) return;
    for (const [id, { claim }] of this.#runs) {
      const current = this.#parts.recordOf(id);
      if (claim.repo !== repo.name || current?.kind !== "push") continue;
      const newer = this.#open()
        ?.documents.wantedOf(name)
        .runs.find((run) => run.id !== id && run.kind === "push" && run.ref === current.ref);
      if (!newer) continue;
      const why = "a newer push came, and the repo says cancel: true";
      this.#parts.stop(id, { why, by: newer.id });
    }
  }

  /** A run here goes on: others may see it. */
  progress(record: RunRecord): void {
    const claim = this.#runs.get(record.id)?.claim;
    if (claim) void this.write(claim, record).catch(() => {});
  }

  private async write(claim: Claim, record: RunRecord): Promise<boolean> {
    const documents = this.#open()?.documents;
    if (!documents) return false;
    return await noteState(documents, record, this.#parts.home, claim.fence);
  }

  /** A run that was begun here has ended. */
  ended(record: RunRecord): void {
    const [running, open] = [this.#runs.get(record.id), this.#open()];
    if (!running || !open) return;
    const finishing = this.finish(running.claim, record, open)
      .catch((error: unknown) => this.#parts.log.bug(error))
      .finally(() => this.#finishing.delete(finishing));
    this.#finishing.add(finishing);
  }

  /** Say on the bus how a run has ended, then give the claim back. */
  private async finish(claim: Claim, record: RunRecord, open: Connected): Promise<void> {
    const { log } = this.#parts;
    const { id, repo } = record;
    await this.tellEnd(claim, record, open);
    this.#runs.delete(id);
    const isOurs = !this.#lost.has(id);
    await open.claims.release(claim).catch((error: unknown) => log.warn(`the claim of ${repo}: ${messageOf(error)}`));
    this.#onFree();
    if (!isOurs) return;
    await this.#parts
      .keepLog(open.logs, id)
      .catch((error: unknown) => log.warn(`the log of ${id} is not on the bus: ${messageOf(error)}`));
    await this.tidy(repo, open).catch((error: unknown) =>
      log.warn(`old runs stay on the bus for now: ${messageOf(error)}`),
    );
  }

  /** Forget what is old on the bus. */
  private async tidy(repo: string, open: Connected): Promise<void> {
    await tidyRuns(open, repo, this.#parts.settings.config);
    const now = Date.now();
    if (now - this.#tidied < tidyEvery) return;
    this.#tidied = now;
    await tidyPayloads(open, now);
  }

  /** Tell the bus until it has heard, the claim is lost, or the server ends. */
  private async tellEnd(claim: Claim, record: RunRecord, { documents }: Connected): Promise<void> {
    const { log, builder } = this.#parts;
    const { id, repo, ref, sha, state } = record;
    const { fence } = claim;
    for (let isSaid = false; !this.#lost.has(id) && !this.#closed; isSaid = true) {
      try {
        if (!(await this.write(claim, record)))
          return log.warn(`run ${id} of ${repo} was taken over by another builder; how it ended here is not told`);
        if (state === "succeeded" && sha !== undefined && ref.startsWith("refs/heads/"))
          await documents.built(repo, ref, { sha, run: id, builder: builder.name, fence });
        await documents.changeWanted(repo, (wanted) => removeWanted(wanted, id));
        return;
      } catch (error) {
        if (!isSaid) log.warn(`the end of run ${id} is not on the bus yet: ${messageOf(error)}`);
        await sleep(retryDelay);
      }
    }
  }

  /**
   * The server ends, and nothing runs any more: what was begun waits for another builder.
   * @param before what is waited for as well, for a while
   */
  async close(before: Promise<void> | undefined): Promise<void> {
    this.#closed = true;
    await Promise.race([Promise.all([...this.#finishing, before]), sleep(5000, undefined, { ref: false })]);
    for (const [id, { claim }] of this.#runs) {
      const record = this.#parts.recordOf(id);
      try {
        if (record && !this.#lost.has(id)) await this.write(claim, record);
        await this.#open()?.claims.release(claim);
      } catch (error) {
        this.#parts.log.warn(`the claim of ${claim.repo} ends by itself: ${messageOf(error)}`);
      }
    }
  }
}
