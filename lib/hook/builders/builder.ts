import { setTimeout as sleep } from "node:timers/promises";
import type { Objects } from "../../bus/bus.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import { findRepo, type RepoConfig, type Settings } from "../config.ts";
import type { Entry } from "../entry.ts";
import type { Problems } from "../problems.ts";
import type { RunRecord } from "../records.ts";
import type { ServerLog } from "../telemetry.ts";
import { Acceptance } from "./acceptance.ts";
import { type Claim, guardAfter } from "./claims.ts";
import { type BuilderSettings, mayRun } from "./config.ts";
import { connect, type Connected } from "./connection.ts";
import { type Guard, startGuard } from "./guard.ts";
import { closeLeft, noteBegin, noteState, tidyRuns } from "./run-documents.ts";
import { removeWanted, type WantedRun } from "./wanted.ts";

/** Milliseconds between two tries to tell the bus that a run has ended. */
const retryDelay = 500;

export interface BuilderParts {
  settings: Settings;
  builder: BuilderSettings;
  /** Names the state folder for ever. */
  home: string;
  log: ServerLog;
  problems: Problems;
  /** Run an entry under a claim that is ours. */
  start: (entry: Entry) => void;
  /** End a run that is under way. */
  stop: (id: string, why: { why: string; by?: string }) => void;
  /** Whether runs may be begun: not before what a former server left is cleared, and not at the server's end. */
  mayBegin: () => boolean;
  recordOf: (id: string) => RunRecord | undefined;
  onSuperseded: (old: Entry, by: string) => void;
  /** A branch's commit was built, here or elsewhere. */
  onBuilt: (what: { repo: string; ref: string; sha: string }) => Promise<void>;
  /** The log of a run that has ended, to be kept on the bus. */
  keepLog: (objects: Objects, id: string) => Promise<void>;
}

/**
 * One of several builders. What is accepted is kept on the bus (`want.REPO`); a builder with room takes the claim of a
 * repo, runs what is wanted of it, and says on the bus how that ended before it gives the claim back. Whatever instant
 * a builder is killed at, or cut off, its claim ends, and another one goes on from what stands on the bus.
 */
export class Builder {
  readonly #parts: BuilderParts;
  /** What is accepted for all builders. */
  readonly acceptance: Acceptance;
  /** Resolves when the bus was reached, or never will be. */
  readonly connected: Promise<void>;
  #open: Connected | undefined;
  /** The runs under way here, with their claims. */
  readonly #running = new Map<string, { claim: Claim; payload: Buffer; guards: Set<Guard> }>();
  /** Runs that were ended here since their claim was lost: how they end elsewhere counts. */
  readonly #lost = new Set<string>();
  readonly #finishing = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #closed = false;
  readonly #closing = new AbortController();

  constructor(parts: BuilderParts) {
    this.#parts = parts;
    const { builder, home, log, problems } = parts;
    this.acceptance = new Acceptance({
      log,
      open: () => this.#open,
      onAccepted: () => this.look(),
      pollOf: (repo) => parts.settings.config.repos.get(repo)?.poll || 0,
      onSuperseded: parts.onSuperseded,
    });
    this.connected = connect(
      {
        ...{ builder, home, log, problems },
        onConnect: () => this.look(),
        onWanted: (repo) => this.#onWanted(repo),
        onDone: ({ repo, refs }) => {
          for (const [ref, { sha }] of Object.entries(refs))
            parts.onBuilt({ repo, ref, sha }).catch((error: unknown) => log.warn(messageOf(error)));
        },
        onLost: (claim) => this.#lose(claim),
        onRenewed: ({ run = "" }) => {
          for (const guard of this.#running.get(run)?.guards ?? []) guard.beat();
        },
      },
      this.#closing.signal,
    )
      .then((open) => {
        this.#open = open;
        this.look();
      })
      .catch((error: unknown) => log.bug(error));
    this.#timer = setInterval(() => this.look(), parts.builder.lease / 5);
  }

  /** What builders share; undefined before the bus was reached. */
  get shared(): Connected | undefined {
    return this.#open;
  }

  /** Look for something to run, now or when the present look is over. */
  look(): void {
    this.#lookAgain = true;
    this.#looking ??= this.#lookWhileAsked()
      .catch((error: unknown) => this.#parts.log.warn(messageOf(error)))
      .finally(() => {
        this.#looking = undefined;
      });
  }

  async #lookWhileAsked(): Promise<void> {
    while (this.#lookAgain && this.#open && this.#parts.mayBegin() && !this.#closed) {
      this.#lookAgain = false;
      const { documents, claims } = this.#open;
      const { config } = this.#parts.settings;
      const waiting = [...documents.wanted()]
        .filter(({ runs }) => runs.length > 0)
        .sort((a, b) => (a.runs[0]?.order ?? 0) - (b.runs[0]?.order ?? 0));
      for (const wanted of waiting) {
        const repo = findRepo(config, wanted.repo);
        if (!repo || !mayRun(this.#parts.builder, repo.runsOn)) continue;
        if (claims.held.size >= config.concurrency) break;
        // one whose claim was lost may still be ending
        const isBusy = [...this.#running.values()].some(({ claim }) => claim.repo === repo.name);
        if (!isBusy && !claims.held.has(repo.name)) await this.#take(repo, this.#open);
      }
    }
  }

  /** Take a repo's claim, if that can be had, and begin what is wanted of it. */
  async #take(repo: RepoConfig, open: Connected): Promise<void> {
    const claim = await open.claims.take(repo.name);
    if (!claim) return;
    try {
      const wanted = await open.documents.readWanted(repo.name);
      await this.acceptance.tellSuperseded(wanted);
      if (claim.left !== undefined) await closeLeft(open.documents, claim.left, wanted);
      for (const run of wanted.runs) {
        if (claim.isLost) return;
        if (await this.#begin(claim, repo, run, open)) return;
      }
    } catch (error) {
      this.#parts.log.warn(`${repo.name} is left to other builders: ${messageOf(error)}`);
    }
    await open.claims.release(claim);
  }

  /** Begin a run under a claim; false when there is nothing to begin. */
  async #begin(claim: Claim, repo: RepoConfig, run: WantedRun, open: Connected): Promise<boolean> {
    const { documents, claims } = open;
    const { builder, home } = this.#parts;
    const payload = await this.acceptance.payload(run.payload);
    const isLost = payload === undefined;
    const by = { builder: builder.name, home, fence: claim.fence };
    const shared = await noteBegin(documents, run, by, isLost);
    if (!shared || isLost) {
      await documents.changeWanted(repo.name, (wanted) => removeWanted(wanted, run.id));
      return false;
    }
    if (!(await claims.begin(claim, run.id))) return false;
    this.#lost.delete(run.id);
    this.#running.set(run.id, { claim, payload, guards: new Set() });
    const { payload: _payload, ...entry } = run;
    const { interrupted, fence, attempt } = shared;
    const claimed = { builder: builder.name, fence, interrupted };
    const former = this.#parts.recordOf(run.id);
    // it was begun here before, and lost
    if (former) Object.assign(former, claimed, { attempt, state: "waiting", tell: undefined });
    this.#parts.start({ ...entry, ...claimed, attempts: attempt, repo: repo.name });
    return true;
  }

  /** The payload of a run that was begun here. @throws {Failure} */
  async payload(entry: Entry): Promise<Buffer> {
    const known = this.#running.get(entry.id)?.payload;
    if (known) return known;
    const name =
      this.#open?.documents.wantedOf(entry.repo).runs.find(({ id }) => id === entry.id)?.payload ??
      this.#open?.documents.run(entry.id)?.payload;
    const payload = await this.acceptance.payload(name);
    if (!payload) throw new Failure("its payload is not on the bus any more");
    return payload;
  }

  /**
   * A guard for a command of a run that is about to start.
   * @throws {Failure} when the run's claim is not ours any more: it must not start.
   */
  async guard(id: string, tree: { cookie: string; cgroup: string | undefined }): Promise<Guard> {
    const running = this.#running.get(id);
    const claims = this.#open?.claims;
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
    if (isValid()) return { ...guard, end };
    end();
    throw refuse();
  }

  /** Whether how a run ends here means nothing: another builder has it, or will. */
  isLost(id: string): boolean {
    return this.#lost.has(id);
  }

  /** A run that a former server left is not ours until it is begun again. */
  leave(id: string): void {
    this.#lost.add(id);
  }

  #lose(claim: Claim): void {
    const { run } = claim;
    this.#parts.log.warn(`the claim of ${claim.repo} is lost`);
    if (run === undefined || this.#running.get(run)?.claim !== claim) return;
    this.#lost.add(run);
    this.#parts.stop(run, { why: lostClaim });
  }

  /** A newer push came, and the repo may say that it ends the one under way. */
  #onWanted(name: string): void {
    this.look();
    const repo = findRepo(this.#parts.settings.config, name);
    if (!repo?.cancel) return;
    for (const [id, { claim }] of this.#running) {
      const current = this.#parts.recordOf(id);
      if (claim.repo !== repo.name || current?.kind !== "push") continue;
      const newer = this.#open?.documents
        .wantedOf(name)
        .runs.find((run) => run.id !== id && run.kind === "push" && run.ref === current.ref);
      if (!newer) continue;
      const why = "a newer push came, and the repo says cancel: true";
      this.#parts.stop(id, { why, by: newer.id });
    }
  }

  /** A run here goes on: others may see it. */
  progress(record: RunRecord): void {
    const claim = this.#running.get(record.id)?.claim;
    if (!claim) return;
    void this.#write(claim, record).catch(() => {});
  }

  async #write(claim: Claim, record: RunRecord): Promise<boolean> {
    const { home } = this.#parts;
    const documents = this.#open?.documents;
    return documents !== undefined && (await noteState(documents, record, home, claim.fence));
  }

  /** A run that was begun here has ended. */
  ended(record: RunRecord): void {
    const running = this.#running.get(record.id);
    if (!running) return;
    const finishing = this.#finish(running.claim, record)
      .catch((error: unknown) => this.#parts.log.bug(error))
      .finally(() => this.#finishing.delete(finishing));
    this.#finishing.add(finishing);
  }

  /** Say on the bus how a run has ended, then give the claim back. */
  async #finish(claim: Claim, record: RunRecord): Promise<void> {
    const { log, builder } = this.#parts;
    const open = this.#open;
    if (!open) return;
    const { id, repo, ref, sha, state } = record;
    for (let isSaid = false; !this.#lost.has(id) && !this.#closed; ) {
      try {
        if (!(await this.#write(claim, record))) {
          log.warn(
            `run ${id} of ${repo} was taken over by another builder; how it ended here is not told`,
          );
          break;
        }
        if (state === "succeeded" && sha !== undefined && ref.startsWith("refs/heads/"))
          await open.documents.built(repo, ref, {
            ...{ sha, run: id, builder: builder.name, fence: claim.fence },
          });
        await open.documents.changeWanted(repo, (wanted) => removeWanted(wanted, id));
        break;
      } catch (error) {
        if (!isSaid) log.warn(`the end of run ${id} is not on the bus yet: ${messageOf(error)}`);
        isSaid = true;
        await sleep(retryDelay);
      }
    }
    this.#running.delete(id);
    const isOurs = !this.#lost.has(id);
    await open.claims
      .release(claim)
      .catch((error: unknown) => log.warn(`the claim of ${repo}: ${messageOf(error)}`));
    this.look();
    if (!isOurs) return;
    await this.#parts
      .keepLog(open.logs, id)
      .catch((error: unknown) =>
        log.warn(`the log of ${id} is not on the bus: ${messageOf(error)}`),
      );
    await tidyRuns(open, repo, this.#parts.settings.config).catch((error: unknown) =>
      log.warn(`old runs stay on the bus for now: ${messageOf(error)}`),
    );
  }

  /** The server ends, and nothing runs any more: what was begun waits for another builder. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closed = true;
    const open = this.#open;
    await Promise.race([
      Promise.all([...this.#finishing, this.#looking]),
      sleep(5000, undefined, { ref: false }),
    ]);
    for (const [id, { claim }] of this.#running) {
      const record = this.#parts.recordOf(id);
      try {
        if (record && !this.#lost.has(id)) await this.#write(claim, record);
        await open?.claims.release(claim);
      } catch (error) {
        this.#parts.log.warn(`the claim of ${claim.repo} ends by itself: ${messageOf(error)}`);
      }
    }
    open?.claims.close();
    this.#closing.abort();
    await open?.bus.close();
  }
}

const lostClaim =
  "the claim of the repo was lost, or could not be renewed on the bus in time; another builder may run it";
