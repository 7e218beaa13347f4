import { randomInt } from "node:crypto";
import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { newRunId } from "../core/id.ts";
import { exists } from "../files/files.ts";
import { type Entry, isEntry, type KnownRun, type Source } from "./entry.ts";
import { takeOverFormerStore } from "./former-store.ts";
import { LineFile } from "./line-file.ts";
import type { Place } from "./lines.ts";
import type { Change } from "./payload.ts";

/** The line of a delivery. */
interface Line {
  readonly place: Place;
  /** How many of its runs wait. */
  waiting: number;
}

/** A run that is known, as the store keeps it. */
interface Kept extends KnownRun {
  line: Line;
  /** Whether it superseded others. */
  supersedes?: boolean;
}

/** Why a run fails whose delivery is gone. */
export const lost = "lost: its delivery is not in deliveries.jsonl any more; rerun it";

interface StoreOptions {
  readonly warn: (text: string) => void;
  /** So many of the newest runs are known after their end. */
  readonly remember?: number;
  /** Bytes that must be settled before the file is rewritten. */
  readonly minSettled?: number;
}

/**
 * What has been accepted: STATE/deliveries.jsonl. A line is a delivery (`runs`, `payload`), the end of a run (`run`,
 * `state`, `by`), or the end of a server (`stopped`); of a delivery whose runs have ended a rewrite keeps each run in
 * a line of `runs` without a payload, with its `state`. A delivery is on disk when `accept` resolves.
 */
export class Store {
  readonly #remember: number;
  /** By id, the oldest first. */
  readonly #known = new Map<string, Kept>();
  /** By repo and delivery id. Of a delivery that reports several refs the first run stands for it. */
  readonly #byDelivery = new Map<string, Map<string, Kept>>();
  readonly #file: LineFile;
  #lastOrder = 0;
  #digits = randomInt(2 ** 24);

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
    const hasFormer = await takeOverFormerStore(state, { path, warn });
    // every server makes the folder of its runs at its first start
    const isNew = hasFormer || !(await exists(join(state, "runs")));
    const kept = () => store.kept();
    const { file, lines } = await LineFile.open(path, { isNew, warn, minSettled, kept });
    const store = new Store(file, remember);
    for (const { head, place, number } of lines)
      if (!store.replay(head, place)) warn(`${path}:${number}: not a line of a delivery or a run`);
    const waiting = [...store.#known.values()].filter(isWaiting).map(({ entry }) => entry);
    if (lines.length > 0 && lines.at(-1)?.head["stopped"] === undefined)
      warn(
        `${path}: the former server was killed, or the end of the file is missing; runs without an end: ${waiting.length}`,
      );
    // a full disk: tried again by the first delivery
    await store.flush().catch(() => {});
    return { store, waiting: waiting.sort((a, b) => a.order - b.order) };
  }

  /** Take in what a line says; false when it says nothing. */
  private replay(
    { runs, run, state, by, stopped }: Record<string, unknown>,
    place: Place,
  ): boolean {
    if (typeof run === "string" && typeof state === "string") {
      this.end(run, state, typeof by === "string" ? by : undefined);
      return true;
    }
    if (!Array.isArray(runs) || !runs.every(isEntry)) return stopped !== undefined;
    const line = { place, waiting: 0 };
    for (const { state: end, by: newer, ...entry } of runs as (Entry & Partial<KnownRun>)[]) {
      this.know(entry, line);
      if (end !== undefined) this.end(entry.id, end, newer);
    }
    return true;
  }

  /** Know a run from now on. */
  private know(entry: Entry, line: Line): void {
    const before = this.#known.get(entry.id);
    if (before) {
      // a rewrite told of its end first: then it is known as long as another run of its delivery waits
      if (!isWaiting(before)) before.line = line;
      return;
    }
    const run: Kept = { entry, state: "waiting", line };
    line.waiting += 1;
    this.#known.set(entry.id, run);
    const { delivery = "" } = entry;
    const ofRepo = this.#byDelivery.get(entry.repo) ?? new Map<string, Kept>();
    this.#byDelivery.set(entry.repo, ofRepo);
    // one that is sent again has a new time
    if (ofRepo.get(delivery)?.entry.accepted !== entry.accepted) ofRepo.set(delivery, run);
    this.#lastOrder = Math.max(this.#lastOrder, entry.order);
    // many at once: a Map whose first entries are deleted is slow to walk
    if (this.#known.size > this.#remember * 1.25) this.forgetOldest();
  }

  private forgetOldest(): void {
    for (const [id, known] of this.#known) {
      if (this.#known.size <= this.#remember) return;
      // what waits is known for as long as it waits, and so are the other runs of its delivery: their line stays
      if (known.line.waiting > 0) continue;
      this.#known.delete(id);
      const { repo, delivery = "" } = known.entry;
      const ofRepo = this.#byDelivery.get(repo);
      if (ofRepo?.get(delivery) === known) ofRepo.delete(delivery);
    }
  }

  /** Nothing more comes of a run. */
  private end(id: string, state: string, by: string | undefined): void {
    const known = this.#known.get(id);
    if (!known) return;
    if (isWaiting(known)) known.line.waiting -= 1;
    Object.assign(known, { state, by });
  }

  /** What a rewrite keeps: the lines of what waits, and how each other run ended. */
  private kept() {
    this.forgetOldest();
    const waiting = [...this.#known.values()].filter(isWaiting);
    return { places: new Set(waiting.map(({ line }) => line.place)), heads: this.ends() };
  }

  private *ends(): Iterable<object> {
    for (const run of this.#known.values())
      if (!isWaiting(run))
        yield { runs: [Object.assign({}, run.entry, { state: run.state, by: run.by })] };
  }

  /** All runs that are known, the oldest first. */
  known(): Iterable<KnownRun> {
    return this.#known.values();
  }

  /** The run of a repo's delivery. */
  runOf(repo: string, delivery: string): KnownRun | undefined {
    return this.#byDelivery.get(repo)?.get(delivery);
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
      return { id: this.freshId(now), ...source, ...change, order: this.#lastOrder, accepted };
    });
    return this.#file.append({ runs: entries }, payload, (place) => {
      const line = { place, waiting: 0 };
      for (const entry of entries) this.know(entry, line);
      return entries;
    });
  }

  /**
   * An id that no other run has. Six random digits for each would meet too soon when thousands come in one second:
   * from a random start, an odd step leads through all of their values.
   */
  private freshId(now: number): string {
    for (;;) {
      this.#digits = (this.#digits + 0x9e3779) % 0x1000000;
      const id = newRunId(now, this.#digits.toString(16).padStart(6, "0"));
      if (!this.#known.has(id)) return id;
    }
  }

  /**
   * The payload of an entry that has no end. It may be about to start: what it superseded is on disk, too, when this
   * resolves.
   * @throws {Failure} when it is damaged or lost; else what the file system threw.
   */
  async payload({ id }: Entry): Promise<Buffer> {
    const known = this.#known.get(id);
    if (!known || !isWaiting(known)) throw new Failure(lost);
    if (known.supersedes) await this.flush();
    return await this.#file.payload(known.line.place);
  }

  /** An entry gave way to a newer one. */
  supersede(old: Entry, by: Entry): void {
    this.settle(old, "superseded", by.id);
    const known = this.#known.get(by.id);
    if (known) known.supersedes = true;
  }

  /** The run of an entry has ended with `state`, or gave way to the run `by`: it goes to disk with the next write. */
  settle(entry: Entry, state: string, by?: string): void {
    this.#file.note({ run: entry.id, state, by });
    this.end(entry.id, state, by);
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
