import { join } from "node:path";
import { Failure } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { exists } from "../../files/files.ts";
import { type Entry, isEntry, type KnownRun, type Source } from "./entry.ts";
import { LineFile } from "./line-file.ts";
import type { Place } from "./lines.ts";
import type { Change } from "../payload/payload.ts";

/** A run that is known, as the store keeps it. */
interface Run extends KnownRun {
  /** Where the line of its delivery stands, and all runs of that line. */
  place: Place;
  siblings: readonly Run[];
  /** Whether it superseded others. */
  supersedes?: boolean;
}

/** Why a run fails whose delivery is gone. */
export const lost = "lost: its delivery is not in deliveries.jsonl any more; rerun it";

interface StoreOptions {
  readonly warn: (text: string) => void;
  /** So many of the runs that ended last are known. */
  readonly remember?: number;
  /** Bytes that must be settled before the file is rewritten. */
  readonly minSettled?: number;
}

/**
 * What has been accepted: STATE/deliveries.jsonl. A line is a delivery (`runs`, `payload`), the end of a run (`run`,
 * `state`, `by`), or the end of a server (`stopped`); of a run that has ended a rewrite keeps a line of `runs` without
 * a payload, with its `state`. A delivery is on disk when `accept` resolves.
 */
export class Store {
  readonly #file: LineFile;
  readonly #remember: number;
  /** By id, the oldest first. */
  readonly #known = new Map<string, Run>();
  /** By repo and delivery id. Of a delivery that reports several refs the first run stands for it. */
  readonly #byDelivery = new Map<string, Run>();
  /** Those that have ended, with all of their delivery: the first ones are forgotten. */
  readonly #ended = new Set<Run>();
  #lastOrder = 0;

  private constructor(file: LineFile, remember: number) {
    this.#file = file;
    this.#remember = remember;
  }

  /**
   * Open the store of a state folder; `waiting` is what was accepted and has no end, in order. `warn` gets a line for
   * whatever is damaged or missing.
   * @throws {Failure} when it cannot be read.
   */
  static async open(
    state: string,
    { warn, remember = 10_000, minSettled }: StoreOptions,
  ): Promise<{ store: Store; waiting: Entry[] }> {
    const path = join(state, "deliveries.jsonl");
    // every server makes the folder of its runs at its first start
    const isNew = !(await exists(join(state, "runs")));
    const kept = () => store.kept();
    const { file, lines } = await LineFile.open(path, { isNew, warn, minSettled, kept });
    const store = new Store(file, remember);
    for (const { head, place, number } of lines)
      if (!store.replay(head, place)) warn(`${path}:${number}: not a line of a delivery or a run`);
    store.forgetOldest();
    const waiting = [...store.known()].filter(isWaiting).map(({ entry }) => entry);
    if (lines.length > 0 && lines.at(-1)?.head["stopped"] === undefined)
      warn(
        `${path}: the former server was killed, or the end of the file is missing; runs without an end: ` +
          `${waiting.length}`,
      );
    // a full disk: tried again by the first delivery
    await store.flush().catch(() => {});
    return { store, waiting: waiting.sort((a, b) => a.order - b.order) };
  }

  /** Take in what a line says; false when it says nothing. */
  private replay({ runs, run, state, by, stopped }: Record<string, unknown>, place: Place): boolean {
    if (typeof run === "string" && typeof state === "string") {
      this.end(run, state, typeof by === "string" ? by : undefined);
      return true;
    }
    if (!Array.isArray(runs) || !runs.every(isEntry)) return stopped !== undefined;
    this.know(runs, place);
    for (const { id, state: end, by: newer } of runs as (Entry & Partial<KnownRun>)[])
      if (end !== undefined) this.end(id, end, newer);
    return true;
  }

  /** Know the runs of a line from now on. */
  private know(entries: readonly Entry[], place: Place): void {
    const runs = entries.map(
      (entry): Run => this.#known.get(entry.id) ?? { entry, state: "waiting", place, siblings: [] },
    );
    for (const run of runs) {
      run.place = place;
      run.siblings = runs;
      // a rewrite told of its end first: then it is known for as long as another run of its delivery waits
      this.#ended.delete(run);
      const { id, repo, delivery, accepted, order } = run.entry;
      this.#known.set(id, run);
      const key = deliveryKey(repo, delivery);
      // one that is sent again has a new time
      if (this.#byDelivery.get(key)?.entry.accepted !== accepted) this.#byDelivery.set(key, run);
      this.#lastOrder = Math.max(this.#lastOrder, order);
    }
  }

  /** Nothing more comes of a run. */
  private end(id: string, state: string, by: string | undefined): void {
    const run = this.#known.get(id);
    if (!run) return;
    Object.assign(run, { state, by });
    if (run.siblings.some(isWaiting)) return;
    for (const each of run.siblings) this.#ended.add(each);
  }

  private forgetOldest(): void {
    for (const run of this.#ended) {
      if (this.#ended.size <= this.#remember) return;
      this.#ended.delete(run);
      this.#known.delete(run.entry.id);
      const key = deliveryKey(run.entry.repo, run.entry.delivery);
      if (this.#byDelivery.get(key) === run) this.#byDelivery.delete(key);
    }
  }

  /** What a rewrite keeps: the lines of what waits, and how each other run ended. */
  private kept() {
    this.forgetOldest();
    const waiting = [...this.#known.values()].filter(isWaiting);
    return {
      heads: this.ends(),
      places: [...new Set(waiting.map(({ place }) => place))],
    };
  }

  private *ends(): Iterable<object> {
    for (const run of this.#known.values())
      if (!isWaiting(run)) yield { runs: [Object.assign({}, run.entry, { state: run.state, by: run.by })] };
  }

  /** All runs that are known, the oldest first. */
  known(): Iterable<KnownRun> {
    return this.#known.values();
  }

  /** The run of a repo's delivery. */
  runOf(repo: string, delivery: string): KnownRun | undefined {
    return this.#byDelivery.get(deliveryKey(repo, delivery));
  }

  /**
   * Accept a delivery's changes; resolves with their entries when they are on disk.
   * @throws what the file system threw (ENOSPC …): then nothing was accepted.
   */
  accept(source: Source, changes: readonly Change[], payload: Buffer): Promise<Entry[]> {
    const now = Date.now();
    const accepted = new Date(now).toISOString();
    const entries = changes.map((change): Entry => {
      // microseconds; it grows also when the clock is set back
      this.#lastOrder = Math.max(now * 1000, this.#lastOrder + 1);
      return { id: newRunId(now), ...source, ...change, order: this.#lastOrder, accepted };
    });
    return this.#file.append({ runs: entries }, payload, (place) => {
      this.know(entries, place);
      return entries;
    });
  }

  /**
   * The payload of an entry that has no end. It may be about to start: what it superseded is on disk, too, when this
   * resolves.
   * @throws {Failure} when it is damaged or lost; else what the file system threw.
   */
  async payload({ id }: Entry): Promise<Buffer> {
    const run = this.#known.get(id);
    if (!run || !isWaiting(run)) throw new Failure(lost);
    if (run.supersedes) await this.flush();
    return await this.#file.payload(run.place);
  }

  /** An entry gave way to a newer one. */
  supersede(old: Entry, by: Entry): void {
    this.settle(old, "superseded", by.id);
    const run = this.#known.get(by.id);
    if (run) run.supersedes = true;
  }

  /** The run of an entry has ended with `state`, or gave way to the run `by`: it goes to disk with the next write. */
  settle(entry: Entry, state: string, by?: string): void {
    this.#file.note({ run: entry.id, state, by });
    this.end(entry.id, state, by);
    // many at once: a Set whose first entries are deleted is slow to walk
    if (this.#ended.size > this.#remember * 1.25) this.forgetOldest();
  }

  /** Wait until all that was settled is on disk. @throws what the file system threw. */
  flush(): Promise<void> {
    return this.#file.flush();
  }

  async close(): Promise<void> {
    this.#file.note({ stopped: new Date().toISOString() });
    await this.#file.close();
  }
}

function isWaiting({ state }: KnownRun): boolean {
  return state === "waiting";
}

function deliveryKey(repo: string, delivery = ""): string {
  return `${repo} ${delivery}`;
}
