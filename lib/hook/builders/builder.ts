import { Failure, messageOf } from "../../core/errors.ts";
import { findRepo, type RepoConfig } from "../config/config.ts";
import type { Entry } from "../store/entry.ts";
import type { Problems } from "../telemetry/overview.ts";
import { Acceptance } from "./acceptance.ts";
import { answerClaims, claimSocketOf } from "../runs/guard.ts";
import type { Claim } from "./claims.ts";
import { mayRun } from "../config/builders.ts";
import { connect, type Connected } from "./connection.ts";
import { closeLeft, noteBegin } from "./run-documents.ts";
import { RunsUnderWay, type UnderWayParts } from "./under-way.ts";
import { entryIn, removeWanted, type WantedRun } from "./wanted.ts";

interface BuilderParts extends UnderWayParts {
  problems: Problems;
  /** Run an entry under a claim that is ours. */
  start: (entry: Entry) => void;
  /** Whether runs may be begun: not before what a former server left is cleared, and not at the server's end. */
  mayBegin: () => boolean;
  onSuperseded: (old: Entry, by: string) => void;
  /** A branch's commit was built, here or elsewhere. */
  onBuilt: (what: { repo: string; ref: string; sha: string }) => Promise<void>;
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
  /** What runs here. */
  readonly underWay: RunsUnderWay;
  /** Resolves when the bus was reached, or never will be. */
  readonly connected: Promise<void>;
  #open: Connected | undefined;
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  /** The run that is being begun: on the bus it is, here not yet. */
  #beginning: { readonly id: string; readonly over: Promise<unknown> } | undefined;
  #stopAnswering = () => {};
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
    this.underWay = new RunsUnderWay(
      parts,
      () => this.#open,
      () => this.look(),
    );
    this.connected = connect(
      {
        ...{ builder, home, log, problems },
        onConnect: () => this.look(),
        onWanted: (repo) => {
          this.look();
          this.underWay.giveWay(repo);
        },
        onDone: ({ repo, refs }) => {
          for (const [ref, { sha }] of Object.entries(refs))
            parts.onBuilt({ repo, ref, sha }).catch((error: unknown) => log.warn(messageOf(error)));
        },
        onLost: (claim) => this.underWay.lose(claim),
        onRenewed: (claim) => this.underWay.renewed(claim),
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

  /** Let the commands of runs ask for their claim. @throws {UsageError} */
  async listen(): Promise<void> {
    const { settings, log } = this.#parts;
    this.#stopAnswering = await answerClaims(
      claimSocketOf(settings.config.state),
      (run, fence) => this.underWay.mayPublish(run, fence),
      (error) => log.bug(error),
    );
  }

  /** Look for something to run, now or when the present look is over. */
  look(): void {
    this.#lookAgain = true;
    this.#looking ??= this.lookWhileAsked()
      .catch((error: unknown) => this.#parts.log.warn(messageOf(error)))
      .finally(() => {
        this.#looking = undefined;
      });
  }

  private async lookWhileAsked(): Promise<void> {
    while (this.#lookAgain && this.#open && this.#parts.mayBegin()) {
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
        if (!this.underWay.isBusy(repo.name) && !claims.held.has(repo.name)) await this.take(repo, this.#open);
      }
    }
  }

  /** Take a repo's claim, if that can be had, and begin what is wanted of it. */
  private async take(repo: RepoConfig, open: Connected): Promise<void> {
    const claim = await open.claims.take(repo.name);
    if (!claim) return;
    try {
      const wanted = await open.documents.readWanted(repo.name);
      await this.acceptance.tellSuperseded(wanted);
      await closeLeft(open.documents, wanted, claim.fence);
      for (const run of wanted.runs) {
        if (claim.isLost) return;
        const over = this.begin(claim, repo, run, open);
        this.#beginning = { id: run.id, over };
        if (await over) return;
      }
    } catch (error) {
      this.#parts.log.warn(`${repo.name} is left to other builders: ${messageOf(error)}`);
    }
    await open.claims.release(claim);
  }

  /** Begin a run under a claim; false when there is nothing to begin. */
  private async begin(claim: Claim, repo: RepoConfig, run: WantedRun, open: Connected): Promise<boolean> {
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
    this.underWay.add(run.id, claim, payload);
    const { interrupted, fence, attempt } = shared;
    const claimed = { builder: builder.name, fence, interrupted };
    const former = this.#parts.recordOf(run.id);
    // it was begun here before, and lost
    if (former) Object.assign(former, claimed, { attempt, state: "waiting", tell: undefined });
    this.#parts.start({ ...entryIn(run), ...claimed, attempts: attempt, repo: repo.name });
    return true;
  }

  /** Resolves when a run is under way here that is begun on the bus, or when it could not be begun. */
  async begun(id: string): Promise<void> {
    if (this.#beginning?.id === id) await this.#beginning.over.catch(() => {});
  }

  /** The payload of a run that was begun here. @throws {Failure} */
  async payload(entry: Entry): Promise<Buffer> {
    const known = this.underWay.payload(entry.id);
    if (known) return known;
    const name =
      this.#open?.documents.wantedOf(entry.repo).runs.find(({ id }) => id === entry.id)?.payload ??
      this.#open?.documents.run(entry.id)?.payload;
    const payload = await this.acceptance.payload(name);
    if (!payload) throw new Failure("its payload is not on the bus any more");
    return payload;
  }

  /** The server ends, and nothing runs any more. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.underWay.close(this.#looking);
    this.#stopAnswering();
    this.#open?.claims.close();
    this.#closing.abort();
    await this.#open?.bus.close();
  }
}
