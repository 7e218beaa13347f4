import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, messageOf } from "../../core/errors.ts";
import { HttpError } from "../../http/server.ts";
import type { Settings } from "../config/config.ts";
import type { Entry } from "../store/entry.ts";
import { hasEnded, type RunRecord, type Records, recordOf } from "../runs/records.ts";
import { type RunView, viewOf } from "../runs/runs.ts";
import { readStages } from "../runs/run-stages.ts";
import type { Builder } from "./builder.ts";
import type { SharedRun } from "./documents.ts";
import { LogCopies, type LogPiece, type LogPlace, nextPiece } from "./logs.ts";
import { entryIn, removeWanted } from "./wanted.ts";

/** Milliseconds between two looks at a log that is followed. */
const followEvery = 300;
interface SharedRunsParts {
  builder: Builder;
  home: string;
  settings: Settings;
  records: Records;
  /** Cancel a run that is under way here; false when there is none. */
  cancelHere: (id: string, by: string) => Promise<boolean>;
  /** End a run that was not begun: its record, for those who are to be told. */
  cancelWaiting: (entry: Entry, by: string) => Promise<RunRecord>;
}

/** What others ask a builder, as JSON under the subject of its state folder. */
type Question =
  | { readonly what: "run"; readonly id: string }
  | { readonly what: "cancel"; readonly id: string; readonly by: string }
  | { readonly what: "log"; readonly id: string; readonly place: LogPlace };

/**
 * The runs of all builders, as each of them shows and steers them. Logs stay where they were written: what is asked for
 * is copied from the builder that has it, or from the bus when that is gone, into `logs-of-others` of the state folder.
 */
export class SharedRuns {
  readonly #parts: SharedRunsParts;
  readonly #copies: LogCopies;

  constructor(parts: SharedRunsParts) {
    this.#parts = parts;
    this.#copies = new LogCopies(join(parts.settings.config.state, "logs-of-others"), {
      ask: async (run, place) => (await this.ask(run, { what: "log", id: run.id, place })) as unknown as LogPiece,
      kept: async (id) => await parts.builder.shared?.logs.get(id),
      max: () => parts.settings.config.maxLog,
    });
  }

  /** Answer other builders. What was copied before is of no use. */
  async start(): Promise<void> {
    await this.#copies.clear();
    await this.#parts.builder.connected;
    this.#parts.builder.shared?.bus.serve(subjectOf(this.#parts.home), async (text) =>
      JSON.stringify(
        await this.answer(JSON.parse(text) as Question).catch((error: unknown) => ({
          error: messageOf(error),
        })),
      ),
    );
  }

  private async answer(question: Question): Promise<object> {
    const { records, settings } = this.#parts;
    if (question.what === "cancel") return { cancelled: await this.cancelBegun(question.id, String(question.by)) };
    const record = records.get(question.id);
    if (!record) return { error: "this builder knows no such run" };
    if (question.what === "run") return { ...viewOf(record), stages: await this.stagesOf(record) };
    const isEnd = hasEnded(record.state);
    const path = records.path(record.id, "log");
    return await nextPiece(path, question.place, { mask: settings.mask, isEnd });
  }

  private async stagesOf(record: RunRecord): Promise<RunView["stages"]> {
    return record.stages ?? (await readStages(this.#parts.records.path(record.id, "stages")));
  }

  /** Grows with each change of what lists show. */
  get changes(): number {
    return this.#parts.builder.shared?.documents.changes ?? 0;
  }

  /** All runs that are on the bus. */
  *views(): Iterable<RunView> {
    const { builder, settings } = this.#parts;
    const documents = builder.shared?.documents;
    if (!documents) return;
    for (const run of documents.runs()) yield this.viewOf(run);
    for (const run of builder.acceptance.entries()) {
      const runsOn = settings.config.repos.get(run.repo)?.runsOn;
      const reason = runsOn && `for a builder of ${runsOn.join(", ")}`;
      yield { ...recordOf(entryIn(run)), reason };
    }
  }

  view(id: string): RunView | undefined {
    const { builder } = this.#parts;
    const run = builder.shared?.documents.run(id);
    if (run) return this.viewOf(run);
    const waiting = builder.acceptance.waitingRun(id);
    return waiting && recordOf(entryIn(waiting));
  }

  private viewOf(run: SharedRun): RunView {
    const local = this.localOf(run);
    if (local) return viewOf(local);
    const { home: _home, payload: _payload, ...view } = run;
    return view;
  }

  /** The record of a run that this builder has. */
  private localOf(run: SharedRun): RunRecord | undefined {
    const { home, builder, records } = this.#parts;
    return run.home === home && !builder.underWay.isLost(run.id) ? records.get(run.id) : undefined;
  }

  /** The builder elsewhere that has a run. */
  private elsewhere(id: string): SharedRun | undefined {
    const run = this.#parts.builder.shared?.documents.run(id);
    return run?.home !== undefined && !this.localOf(run) ? run : undefined;
  }

  /** A run elsewhere with its stages as they are now; undefined: it is here, or was not begun. */
  async whole(id: string): Promise<RunView | undefined> {
    const run = this.elsewhere(id);
    if (!run) return undefined;
    await this.copyLog(id);
    const view = this.viewOf(run);
    if (hasEnded(run.state)) return view;
    const now = await this.ask(run, { what: "run", id }).catch(() => ({}));
    return { ...view, ...now };
  }

  /** @throws {HttpError} when its builder does not answer. */
  private async ask(run: SharedRun, question: Question): Promise<Record<string, unknown>> {
    const { builder } = this.#parts;
    try {
      const answer = await builder.shared?.bus.request(subjectOf(run.home ?? ""), JSON.stringify(question));
      const value = JSON.parse(answer ?? "{}") as Record<string, unknown>;
      if (value["error"] !== undefined) throw new Failure(JSON.stringify(value["error"]));
      return value;
    } catch (error) {
      throw new HttpError(503, `builder ${run.builder} does not answer: ${messageOf(error)}`);
    }
  }

  /** Cancel a run that was begun here; false when it has ended. @throws {HttpError} another builder has it, or will. */
  private async cancelBegun(id: string, by: string): Promise<boolean> {
    const { builder, records, cancelHere } = this.#parts;
    await builder.begun(id);
    if (!builder.underWay.isLost(id)) {
      if (await cancelHere(id, by)) return true;
      if (hasEnded(records.get(id)?.state ?? "waiting")) return false;
    }
    throw new HttpError(503, "another builder is about to take the run over; try again");
  }

  /** Cancel a run, wherever it is; false when it has ended. @throws {HttpError} */
  async cancel(id: string, by: string): Promise<boolean> {
    const { builder, home } = this.#parts;
    const open = builder.shared;
    if (!open) throw new HttpError(503, "the bus was not reached yet");
    const begun = open.documents.run(id);
    if (begun && hasEnded(begun.state)) return false;
    const waiting = builder.acceptance.waitingRun(id);
    if (begun && begun.state !== "waiting") {
      if (begun.home === home) return await this.cancelBegun(id, by);
      return (await this.ask(begun, { what: "cancel", id, by }))["cancelled"] === true;
    }
    if (!waiting) return false;
    const entry = entryIn(waiting);
    const end = { state: "cancelled", reason: "cancelled by hand", cancelledBy: by } as const;
    const ended = new Date().toISOString();
    const changed = await open.documents.changeRun(id, (run) =>
      run && run.state !== "waiting"
        ? undefined
        : { ...viewOf(recordOf(entry)), ...run, ...end, ended, payload: waiting.payload },
    );
    // its turn has come meanwhile
    if (!changed) return await this.cancel(id, by);
    await open.documents.changeWanted(entry.repo, (wanted) => removeWanted(wanted, id));
    await this.#parts.cancelWaiting(entry, by);
    return true;
  }

  /** The payload of a run that ended elsewhere. */
  async payload(id: string): Promise<Buffer | undefined> {
    const { builder } = this.#parts;
    return await builder.acceptance.payload(builder.shared?.documents.run(id)?.payload);
  }

  /** The file of a run's log: a copy, where the run is another builder's. */
  logFile(id: string): string {
    return this.elsewhere(id) ? this.#copies.path(id) : this.#parts.records.path(id, "log");
  }

  /** Bring the copy of a log up to date; those that ask at the same time share it. */
  async copyLog(id: string): Promise<void> {
    const run = this.elsewhere(id);
    if (!run) return;
    await this.#copies.update(run);
  }

  /** Follow a log that is elsewhere, or will be: its copy grows until the answer has ended. */
  keepCopying(id: string, request: IncomingMessage, response: ServerResponse): void {
    const going = async () => {
      while (!response.destroyed && !response.writableEnded && !request.destroyed) {
        await this.copyLog(id);
        await sleep(followEvery);
      }
    };
    void going();
  }

  /** How a run elsewhere ended, once all of its log is here; undefined while more may come, or it is not elsewhere. */
  endState(id: string): string | undefined {
    const run = this.elsewhere(id);
    if (!run || !hasEnded(run.state)) return undefined;
    return this.#copies.isBehind(id) ? undefined : run.state;
  }

  isElsewhere(id: string): boolean {
    return this.elsewhere(id) !== undefined;
  }
}

function subjectOf(home: string): string {
  return `builders.${home}`;
}
