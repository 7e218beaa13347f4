import { randomInt } from "node:crypto";
import { join } from "node:path";
import { newRunId } from "../core/id.ts";
import { Journal } from "./journal.ts";
import type { Change } from "./payload.ts";
import type { Waiting } from "./queue.ts";
import { Seen, type SeenRun } from "./seen.ts";
import type { Found, Place } from "./segment.ts";

export type { SeenRun };

/** Where a change comes from: a forge's delivery, `poll`, or `rerun`. */
export interface Source {
  readonly repo: string;
  readonly forge: string;
  readonly event: string;
  readonly delivery?: string | undefined;
}

/** An accepted change that is to become a run. The journal keeps it as it is before it has a place. */
export interface Entry extends Waiting, Source, Change {
  /** ISO time. */
  readonly accepted: string;
  /** Where its payload lies, once it is on disk. The store's own. */
  place: Place | undefined;
  /** Whether it superseded others. The store's own. */
  supersedes?: boolean;
}

/** Beyond so many segments, those runs that wait long are moved to a newer one. */
const maxSegments = 8;

/**
 * What has been accepted and is not settled yet: STATE/spool. A delivery is on disk when `accept` resolves.
 * It is settled when its run has ended or was superseded; segments whose deliveries are all settled are released.
 * How it is stored (journal, segments, what is remembered) is known to this file alone.
 */
export class Store {
  readonly seen: Seen;
  readonly #journal: Journal;
  /** What is not settled, by run. */
  readonly #unsettled = new Map<string, Entry>();
  /** All runs that a segment of the journal tells of. */
  readonly #runs = new Map<number, string[]>();
  #closing = false;
  #lastOrder = 0;
  #digits = randomInt(2 ** 24);
  #tidying: Promise<void> | undefined;

  private constructor(journal: Journal, seen: Seen) {
    this.#journal = journal;
    this.seen = seen;
  }

  /** Open the store of a state folder; `waiting` is what was accepted and not settled, in order. */
  static async open(
    state: string,
    {
      warn,
      segmentSize,
      remember,
    }: { warn: (text: string) => void; segmentSize?: number; remember?: number },
  ): Promise<{ store: Store; waiting: Entry[] }> {
    const folder = join(state, "spool");
    const { journal, records } = await Journal.open(folder, {
      warn,
      ...(segmentSize === undefined ? {} : { segmentSize }),
    });
    const seen = new Seen(join(folder, "seen.jsonl"), remember);
    await seen.load();
    const store = new Store(journal, seen);
    return { store, waiting: store.#replay(records) };
  }

  /** Go through what the journal holds; returns what is not settled, in order. */
  #replay(records: readonly Found[]): Entry[] {
    for (const { head, place } of records) {
      if (Array.isArray(head.runs))
        for (const run of head.runs as Entry[]) {
          const entry: Entry = { ...run, place };
          // its end is known, though the segment that told it may be gone
          const known = this.seen.get(entry.id);
          if (known && known.state !== "waiting") continue;
          this.#add(entry);
        }
      else if (typeof head.run === "string" && Array.isArray(head.superseded)) {
        // a former version wrote them down together
        for (const old of head.superseded as string[]) this.#end(old, "superseded", head.run);
      } else if (typeof head.run === "string" && typeof head.state === "string") {
        this.#end(head.run, head.state, typeof head.by === "string" ? head.by : undefined);
      }
    }
    return [...this.#unsettled.values()].sort((a, b) => a.order - b.order);
  }

  #add(entry: Entry): void {
    const { id, repo, delivery, ref, sha, accepted } = entry;
    this.#locate(entry);
    this.#unsettled.set(id, entry);
    this.#lastOrder = Math.max(this.#lastOrder, entry.order);
    this.seen.add({ run: id, repo, delivery, ref, sha, accepted, state: "waiting", by: undefined });
  }

  /** Note in which segment an entry stands. */
  #locate(entry: Entry): void {
    const { segment } = placeOf(entry);
    const runs = this.#runs.get(segment) ?? [];
    runs.push(entry.id);
    this.#runs.set(segment, runs);
  }

  /**
   * Accept a delivery's changes; resolves with their entries when they are on disk.
   * @throws what the file system threw (ENOSPC …): then nothing was accepted.
   */
  accept(source: Source, changes: readonly Change[], payload: Uint8Array): Promise<Entry[]> {
    const now = Date.now();
    const entries = changes.map(
      (change): Entry => ({
        id: this.#freshId(now),
        ...source,
        ...change,
        order: this.#nextOrder(now),
        accepted: new Date(now).toISOString(),
        place: undefined,
      }),
    );
    return this.#journal.append({ runs: entries }, payload, (place) => {
      for (const entry of entries) {
        entry.place = place;
        this.#add(entry);
      }
      return entries;
    });
  }

  /**
   * An id that no other run has. Six random digits for each would meet too soon when thousands come in one second:
   * from a random start, an odd step leads through all of their values.
   */
  #freshId(now: number): string {
    for (;;) {
      this.#digits = (this.#digits + 0x9e3779) % 0x1000000;
      const id = newRunId(now, this.#digits.toString(16).padStart(6, "0"));
      if (!this.seen.get(id)) return id;
    }
  }

  /** Microseconds, made to grow also when the clock is set back. */
  #nextOrder(now: number): number {
    this.#lastOrder = Math.max(now * 1000, this.#lastOrder + 1);
    return this.#lastOrder;
  }

  /**
   * Whether so much is there that tidying up cannot wait for the end of a run. What is not settled may take its
   * space twice more: it is moved then, which must not happen again and again.
   */
  get crowded(): boolean {
    const segments = this.#journal.current - this.#journal.oldest;
    if (segments < maxSegments) return false;
    let bytes = 0;
    for (const entry of this.#unsettled.values()) bytes += placeOf(entry).length;
    return segments >= maxSegments + Math.ceil((2 * bytes) / this.#journal.segmentSize);
  }

  /**
   * The payload of an entry that is not settled. It may be about to start: what it superseded is on disk, too, when
   * this resolves.
   * @throws what the file system threw.
   */
  async payload(entry: Entry): Promise<Buffer> {
    if (entry.supersedes) await this.#journal.flush();
    for (;;) {
      const place = placeOf(entry);
      const bytes = await this.#journal.read(place).catch((error: Error) => error);
      // moved meanwhile: where it was, there may be another by now
      if (entry.place !== place) continue;
      if (bytes instanceof Error) throw bytes;
      return bytes;
    }
  }

  /** An entry gave way to a newer one. */
  supersede(old: Entry, by: Entry): void {
    this.settle(old, "superseded", by.id);
    by.supersedes = true;
  }

  /** The run of an entry has ended with `state`, or gave way to the run `by`: it goes to disk with the next write. */
  settle(entry: Entry, state: string, by?: string): void {
    this.#journal.note({ run: entry.id, state, by });
    this.#end(entry.id, state, by);
  }

  /** Nothing more comes of a run. */
  #end(run: string, state: string, by: string | undefined): void {
    this.seen.settle(run, state, by);
    this.#unsettled.delete(run);
  }

  /** Wait until all that was settled is on disk. @throws what the file system threw. */
  flush(): Promise<void> {
    return this.#journal.flush();
  }

  /** Release the segments all of whose runs are settled. One call at a time does it. */
  tidy(): Promise<void> {
    this.#tidying ??= this.#tidy().finally(() => {
      this.#tidying = undefined;
    });
    return this.#tidying;
  }

  async #tidy(): Promise<void> {
    if (this.#journal.oldest < this.#journal.current) await this.#journal.flush();
    const newest = this.#journal.current;
    while (this.#journal.oldest < this.#journal.current && !this.#closing) {
      // all free segments go together: what is remembered of their runs shares one fsync, which new deliveries wait for
      const free = this.#freeSegments();
      if (free.length > 0) {
        await this.seen.keep(free.flatMap((segment) => this.#runs.get(segment) ?? []));
        for (const segment of free) {
          await this.#journal.dropOldest();
          this.#runs.delete(segment);
        }
      } else if (this.crowded && this.#journal.oldest < newest) {
        // a few runs that wait long must not keep the space of many that are settled
        const { oldest } = this.#journal;
        for (const entry of [...this.#unsettled.values()])
          if (placeOf(entry).segment === oldest && !this.#closing) await this.#moveForward(entry);
      } else return;
    }
  }

  /** The oldest segments, as far as all of their runs are settled. */
  #freeSegments(): number[] {
    const used = new Set([...this.#unsettled.values()].map((entry) => placeOf(entry).segment));
    const free: number[] = [];
    for (let at = this.#journal.oldest; at < this.#journal.current && !used.has(at); at++)
      free.push(at);
    return free;
  }

  async #moveForward(entry: Entry): Promise<void> {
    const { place: _, supersedes: _supersedes, ...written } = entry;
    const payload = await this.payload(entry);
    // settled meanwhile: written after its end, it would wait again at the next start
    if (!this.#unsettled.has(entry.id)) return;
    await this.#journal.append({ runs: [written] }, payload, (place) => {
      entry.place = place;
      this.#locate(entry);
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#tidying?.catch(() => {});
    await this.#journal.close();
  }
}

function placeOf({ id, place }: Entry): Place {
  if (!place) throw new Error(`run ${id} is not in the journal`);
  return place;
}
