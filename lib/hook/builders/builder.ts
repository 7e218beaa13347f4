import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nameOnBus } from "../../bus/address.ts";
import { type Bus, connectBus, type Objects } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import type { Scopes } from "../../exec/scope.ts";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import type { BusStore } from "../../run-store/bus-store.ts";
import { FileStore } from "../../run-store/file-store.ts";
import { hasEnded, type JobMarks, type Run, type RunStage } from "../../run-store/run-store.ts";
import type { BuilderSettings } from "../config/builders.ts";
import type { Settings } from "../config/config.ts";
import type { RunFolders } from "../runs/folders.ts";
import { endJob, type Job, type JobPlan, Jobs } from "../runs/job.ts";
import { readStages } from "../runs/run-stages.ts";
import type { Claimed } from "../runs/scheduler.ts";
import type { Problems } from "../telemetry/overview.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import { type Claim, Claims, guardAfter } from "./claims.ts";
import { answerClaims, claimSocketOf, startGuard } from "./guard.ts";
import { keepLog, LogCopies, type LogPiece, type LogPlace, nextPiece } from "./logs.ts";

interface BuilderParts {
  settings: Settings;
  builder: BuilderSettings;
  store: BusStore;
  folders: RunFolders;
  scopes: Scopes | undefined;
  log: ServerLog;
  problems: Problems;
  /** Told when the bus was reached, or again. */
  onConnect: () => void;
}

/** What is there once the bus was reached. */
interface Connected {
  readonly bus: Bus;
  readonly claims: Claims;
  /** The logs of runs that have ended. */
  readonly logs: Objects;
}

/** What others ask a builder, as JSON under the subject of its state folder. */
type Question = { readonly id: string; readonly place?: LogPlace };

/** Milliseconds between two looks at a log elsewhere that is followed. */
const followEvery = 300;

/**
 * One of several builders: its claims of repos, the guards of its runs, and what it shows of runs that are elsewhere.
 * Their logs stay where they were written: what is asked for is copied from the builder that has it, or from the bus
 * when that is gone, into `logs-of-others` of the state folder.
 */
export class Builder {
  readonly #parts: BuilderParts;
  /** The name of the state folder, which no other has. */
  readonly home: string;
  /** Commands that are ended when they outlast the claim of their run: by a guard, as we may be stopped ourselves. */
  readonly jobs: Jobs;
  readonly #claimed = new Map<string, Claim>();
  readonly #copies: LogCopies;
  readonly #closing = new AbortController();
  readonly #connected: Promise<void>;
  #open: Connected | undefined;
  #stopAnswering = () => {};

  private constructor(parts: BuilderParts, home: string) {
    this.#parts = parts;
    this.home = home;
    const { settings, scopes } = parts;
    this.jobs = new GuardedJobs(scopes, async (plan, marks, command, start) => {
      const claim = this.#claimed.get(plan.run);
      const claims = this.#open?.claims;
      const check = () => {
        if (claim && claims?.isValid(claim)) return;
        if (claim) claims?.lose(claim);
        throw new Failure("the claim of the repo was lost");
      };
      check();
      const { cookie = "", scope = "" } = marks;
      const patience = parts.builder.lease * guardAfter;
      const guard = await startGuard({ cookie, scope, patience, words: scopes?.words() ?? [] });
      claim?.guards.add(guard);
      const end = () => {
        claim?.guards.delete(guard);
        guard.end();
      };
      try {
        check();
        const env = { ...command.env, HOOK_CLAIM: claimSocketOf(settings.config.state) };
        const job = await start(plan, marks, { ...command, env });
        guard.watch(job.marks.pid ?? 0);
        void job.exit.then(end, end);
        return job;
      } catch (error) {
        end();
        throw error;
      }
    });
    this.#copies = new LogCopies(join(settings.config.state, "logs-of-others"), {
      ask: async (run, place) => (await this.ask(run, { id: run.id, place })) as unknown as LogPiece,
      kept: async (id) => await this.#open?.logs.get(id),
      max: () => settings.config.maxLog,
    });
    this.#connected = this.connect().catch((error: unknown) => parts.log.bug(error));
  }

  static async open(parts: BuilderParts): Promise<Builder> {
    const path = join(parts.settings.config.state, "builder");
    let home = (await readIfThere(path))?.trim();
    if (!home) await writeAtomic(path, `${(home = randomUUID())}\n`, { mode: 0o600 });
    return new Builder(parts, home);
  }

  /** Reach the bus, however long that takes, and make the buckets there. */
  private async connect(): Promise<void> {
    const { builder, store, log, problems, onConnect } = this.#parts;
    const warn = (text: string) => log.warn(text);
    warn(`the bus knows this builder by the key ${nkeyOf(builder.bus.key)}`);
    problems.set("bus", `the bus ${builder.bus.servers.join(", ")} was not reached yet`);
    await this.#copies.clear();
    const connecting = connectBus({
      ...builder.bus,
      name: `builder-${nameOnBus(builder.name)}`,
      // a claim must be written well within its lease
      ...{ timeout: Math.min(5000, builder.lease * 0.15), patient: true, onStatus: warn },
    });
    const { signal } = this.#closing;
    const stopped = new Promise<undefined>((resolve) => signal.addEventListener("abort", () => resolve(undefined)));
    const bus = await Promise.race([connecting, stopped]);
    // one that was never reached ends with the process
    if (!bus) return void connecting.then((late) => late.close()).catch(() => {});
    signal.addEventListener("abort", () => void bus.close());
    const [runs, bucket] = [bus.bucket("builds"), bus.bucket("claims")];
    const claims = new Claims({ bucket, home: this.home, lease: builder.lease, warn });
    const make = async () => {
      await bus.makeBucket("builds");
      await bus.makeBucket("claims", { ttl: builder.lease });
      const payloads = await bus.objects("payloads");
      const logs = await bus.objects("logs", { maxBytes: builder.keepLogs });
      await claims.greet(runs);
      return { payloads, logs };
    };
    for (;;) {
      try {
        const { payloads, logs } = await make();
        await store.join({ runs, payloads });
        this.#open = { bus, claims, logs };
        await this.handOver();
        break;
      } catch (error) {
        if (signal.aborted) return;
        problems.set("bus", messageOf(error));
        warn(messageOf(error));
        await sleep(1000);
      }
    }
    bus.serve(subjectOf(this.home), async (text) =>
      JSON.stringify(
        await this.answer(JSON.parse(text) as Question).catch((error: unknown) => ({ error: messageOf(error) })),
      ),
    );
    problems.set("bus", undefined);
    warn(`connected to the bus as builder ${builder.name}`);
    onConnect();
    let isFirst = true;
    bus.onConnect(() => {
      // its disk may have been lost meanwhile
      if (!isFirst) make().then(onConnect, (error: unknown) => warn(messageOf(error)));
      isFirst = false;
    });
  }

  /** Put on the bus what this server accepted while it was alone; it is kept here until it is there. */
  private async handOver(): Promise<void> {
    const { store, folders, settings, log } = this.#parts;
    const alone = await FileStore.open(settings.config.state, (text) => log.warn(text));
    for (const run of alone.open()) {
      if (run.job) await endJob(run.job);
      const payload = (await alone.payload(run.id)) ?? (await folders.payload(run.id)) ?? Buffer.from("{}");
      const { job: _job, step: _step, ...rest } = run;
      await store.adopt({ ...rest, state: "waiting" }, payload);
      const ended = new Date().toISOString();
      await alone.change(run.id, (now) => ({ ...now, state: "superseded", by: run.id, ended }));
    }
    await alone.close();
  }

  /** Let the commands of runs ask for their claim. @throws {UsageError} */
  async listen(): Promise<void> {
    const { settings, log } = this.#parts;
    const mayPublish = async (run: string, fence: number) => {
      const claim = this.#claimed.get(run);
      return claim?.fence === fence && (await this.#open?.claims.confirm(claim)) === true;
    };
    this.#stopAnswering = await answerClaims(claimSocketOf(settings.config.state), mayPublish, (error) =>
      log.bug(error),
    );
  }

  /** Take the claim of a run's repo; undefined: another builder has it, or the run has ended. */
  async claim({ id, repo }: Run): Promise<Claimed | undefined> {
    const { builder, store, log } = this.#parts;
    const claim = await this.#open?.claims.take(repo).catch((error: unknown) => {
      log.warn(`${repo} is left to other builders: ${messageOf(error)}`);
      return undefined;
    });
    const claims = this.#open?.claims;
    if (!claim || !claims) return undefined;
    const mark = { builder: builder.name, home: this.home, fence: claim.fence };
    const run = await store
      .change(id, (now) => (hasEnded(now) ? undefined : { ...now, ...mark }))
      .catch((error: unknown) => {
        log.warn(`run ${id} of ${repo}: ${messageOf(error)}`);
        return undefined;
      });
    if (run) this.#claimed.set(id, claim);
    const release = async () => {
      this.#claimed.delete(id);
      await claims.release(claim);
    };
    if (run)
      return { run, lost: claim.lost, isLost: () => !claims.isValid(claim), release: () => this.free(id, release) };
    await release();
    return undefined;
  }

  private async free(id: string, release: () => Promise<void>): Promise<void> {
    const { store, folders, settings, log } = this.#parts;
    await release();
    const run = store.get(id);
    if (!run || !hasEnded(run) || run.home !== this.home || !this.#open) return;
    const kept = { id, path: folders.path(id, "log"), mask: settings.mask };
    await keepLog(this.#open.logs, kept).catch((error: unknown) =>
      log.warn(`the log of ${id} is not on the bus: ${messageOf(error)}`),
    );
  }

  private async answer({ id, place }: Question): Promise<object> {
    const { store, folders, settings } = this.#parts;
    const run = store.get(id);
    if (!run) return { error: "this builder knows no such run" };
    if (!place) return { stages: await readStages(folders.path(id, "stages")) };
    return await nextPiece(folders.path(id, "log"), place, { mask: settings.mask, isEnd: hasEnded(run) });
  }

  /** @throws {Failure} when the builder of a run does not answer. */
  private async ask(run: Run, question: Question): Promise<Record<string, unknown>> {
    try {
      const answer = await this.#open?.bus.request(subjectOf(run.home ?? ""), JSON.stringify(question));
      const value = JSON.parse(answer ?? "{}") as Record<string, unknown>;
      if (value["error"] !== undefined) throw new Failure(JSON.stringify(value["error"]));
      return value;
    } catch (error) {
      throw new Failure(`builder ${run.builder} does not answer: ${messageOf(error)}`);
    }
  }

  /** Whether a run, and its log, is another builder's. */
  isElsewhere(run: Run): boolean {
    return run.home !== undefined && run.home !== this.home && run.attempt > 0;
  }

  /** The stages as they are now of a run elsewhere. */
  async stagesOf(run: Run): Promise<readonly RunStage[]> {
    const answer: Record<string, unknown> = await this.ask(run, { id: run.id }).catch(() => ({}));
    return (answer["stages"] ?? []) as RunStage[];
  }

  /** The file of a copy of a log that is elsewhere. */
  logFile(run: Run): string {
    return this.#copies.path(run.id);
  }

  /** Whether more of a log elsewhere is known to come. */
  isBehind(run: Run): boolean {
    return this.#copies.isBehind(run.id);
  }

  /** Bring the copy of a log up to date that is elsewhere. */
  async copyLog(id: string): Promise<void> {
    const run = this.#parts.store.get(id);
    if (run && this.isElsewhere(run)) await this.#copies.update(run);
  }

  /** The same until the answer has ended. */
  keepCopying(id: string, request: IncomingMessage, response: ServerResponse): void {
    const going = async () => {
      while (!response.destroyed && !response.writableEnded && !request.destroyed) {
        await this.copyLog(id);
        await sleep(followEvery);
      }
    };
    void going();
  }

  /** The server ends, and nothing runs any more. */
  async close(): Promise<void> {
    this.#closing.abort();
    this.#stopAnswering();
    this.#open?.claims.close();
    await Promise.race([this.#connected, sleep(1000, undefined, { ref: false })]);
    await this.#open?.bus.close();
  }
}

type Guarded = (...given: [...Parameters<Jobs["start"]>, start: Jobs["start"]]) => Promise<Job>;

/** Commands that end with the server, and start as they are told. */
class GuardedJobs extends Jobs {
  readonly #guarded: Guarded;

  constructor(scopes: Scopes | undefined, guarded: Guarded) {
    super(scopes);
    this.#guarded = guarded;
  }

  override get outlive(): boolean {
    return false;
  }

  override start(...given: Parameters<Jobs["start"]>): Promise<Job> {
    return this.#guarded(...given, (...now) => super.start(...now));
  }

  /** Of a former server here, or of another builder, whose guard ends it: it runs again. */
  override async find(_plan: JobPlan, marks: JobMarks): Promise<undefined> {
    await endJob(marks);
  }
}

function subjectOf(home: string): string {
  return `builders.${home}`;
}
