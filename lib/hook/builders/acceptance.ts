import { randomUUID } from "node:crypto";
import { promisify } from "node:util";
import { gunzip as unpack, gzip as pack, type ZlibOptions } from "node:zlib";
import { Failure, messageOf } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { HttpError } from "../../http/server.ts";
import type { Entry, KnownRun, Source } from "../store/entry.ts";
import type { Change } from "../payload/payload.ts";
import { entryOf, maxPayload, recordOf } from "../runs/records.ts";
import { viewOf } from "../runs/runs.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import type { Connected } from "./connection.ts";
import type { SharedRun } from "./documents.ts";
import { addWanted, entryIn, knownRun, nextOrder, type Wanted, type WantedRun, withoutSuperseded } from "./wanted.ts";

const [gzip, gunzip] = [promisify(pack), promisify<Buffer, ZlibOptions, Buffer>(unpack)];

export interface AcceptanceParts {
  log: ServerLog;
  /** Undefined before the bus was reached. */
  open: () => Connected | undefined;
  onAccepted: () => void;
  /** Milliseconds between two looks at a repo's remote; 0: nobody looks. */
  pollOf: (repo: string) => number;
  /** Told of a run that waited and gave way to a newer one. */
  onSuperseded: (old: Entry, by: string) => void;
}

/** What is accepted for all builders: it is on the bus before its sender hears of it. */
export class Acceptance {
  readonly #parts: AcceptanceParts;

  constructor(parts: AcceptanceParts) {
    this.#parts = parts;
  }

  /**
   * Keep a delivery's changes on the bus; resolves when they are there.
   * @throws {HttpError} 503 when they are not: whoever sent them sends them again, and one that came through is known.
   */
  async accept(
    source: Source,
    changes: readonly Change[],
    payload: Buffer,
    known: readonly Entry[] = [],
  ): Promise<Entry[]> {
    const open = this.#parts.open();
    try {
      if (!open) throw new Failure("the bus was not reached yet");
      const name = randomUUID();
      await open.payloads.put(name, await gzip(payload));
      let entries: Entry[] = [];
      const changed = await open.documents.changeWanted(source.repo, (wanted) => {
        entries = [];
        let next = wanted;
        for (const [index, change] of changes.entries()) {
          const given = known[index];
          const isBegun = given !== undefined && open.documents.run(given.id) !== undefined;
          const before = isBegun ? given : this.same(wanted, { ...source, ...change });
          if (before) entries.push(before);
          else {
            const run = given ?? this.entry(source, change, next);
            next = addWanted(next, { ...run, payload: name });
            entries.push(run);
          }
        }
        return next === wanted ? undefined : next;
      });
      if (changed)
        this.tellSuperseded(changed).catch((error: unknown) =>
          this.#parts.log.warn(`${source.repo}: ${messageOf(error)}; told by the next look`),
        );
      else await open.payloads.remove(name).catch(() => {});
      this.#parts.onAccepted();
      return entries;
    } catch (error) {
      if (error instanceof Failure)
        throw new HttpError(503, `not accepted: ${messageOf(error)}`, { "retry-after": "10" });
      throw error;
    }
  }

  private entry(source: Source, change: Change, wanted: Wanted): Entry {
    const now = Date.now();
    const accepted = new Date(now).toISOString();
    return { id: newRunId(now), ...source, ...change, order: nextOrder(wanted, now), accepted };
  }

  /** The run that came of the same before. */
  private same(wanted: Wanted, what: Source & Change): Entry | undefined {
    const looked = what.forge === "poll" ? this.lookedAt(what) : undefined;
    if (looked) return entryOf(looked);
    return knownRun(wanted, what, (id) => {
      const run = this.#parts.open()?.documents.run(id);
      return run && { entry: entryOf(run), state: run.state };
    });
  }

  /** A commit that failed not long ago: each builder looks at the remote, and one of them tries it again. */
  private lookedAt({ repo, ref, sha }: Source & Change): SharedRun | undefined {
    const since = Date.now() - this.#parts.pollOf(repo);
    for (const run of this.#parts.open()?.documents.runs() ?? [])
      if (run.repo === repo && run.ref === ref && run.sha === sha)
        if (run.state === "failed" && Date.parse(run.accepted) > since) return run;
    return undefined;
  }

  /** Say of the runs that gave way to a newer one that they did; whoever comes by does what was left undone. */
  async tellSuperseded({ repo, superseded }: Wanted): Promise<void> {
    const documents = this.#parts.open()?.documents;
    if (!documents || superseded.length === 0) return;
    for (const { run, by } of superseded) {
      const entry = entryIn(run);
      const ended = new Date().toISOString();
      const changed = await documents.changeRun(run.id, (before) =>
        // one that was begun goes on to its end
        before ? undefined : { ...viewOf(recordOf(entry)), state: "superseded", by, ended },
      );
      if (changed) this.#parts.onSuperseded(entry, by);
    }
    const told = new Set(superseded.map(({ run }) => run.id));
    await documents.changeWanted(repo, (wanted) => withoutSuperseded(wanted, told));
  }

  /** The run of a repo's delivery. */
  runOf(repo: string, delivery: string): KnownRun | undefined {
    const documents = this.#parts.open()?.documents;
    if (!documents) return undefined;
    const waiting = documents.wantedOf(repo).runs.find((run) => run.delivery === delivery);
    if (waiting) return { entry: waiting, state: "waiting" };
    for (const run of documents.runs())
      if (run.repo === repo && run.delivery === delivery) return { entry: entryOf(run), state: run.state, by: run.by };
    return undefined;
  }

  /** What is accepted and has no end, here or elsewhere. */
  *entries(): Iterable<WantedRun> {
    for (const { runs } of this.#parts.open()?.documents.wanted() ?? []) yield* runs;
  }

  /** A run that is accepted and has no end. */
  waitingRun(id: string): WantedRun | undefined {
    return [...this.entries()].find((run) => run.id === id);
  }

  /** How many runs of a repo wait or are under way. */
  waitingOf(repo: string): number {
    return this.#parts.open()?.documents.wantedOf(repo).runs.length ?? 0;
  }

  /** The payload of a run, by the object that holds it; undefined when that is gone. */
  async payload(name: string | undefined): Promise<Buffer | undefined> {
    const packed = name === undefined ? undefined : await this.#parts.open()?.payloads.get(name);
    return packed && (await gunzip(packed, { maxOutputLength: maxPayload }));
  }
}
