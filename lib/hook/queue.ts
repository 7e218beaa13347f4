/**
 * Which run is next: one at a time per repo, `concurrency` in all, fair between repos, in order.
 * Pure: no clock, no files; the caller says what the time is and does what is decided.
 */
export interface Waiting {
  readonly id: string;
  readonly repo: string;
  readonly kind: "push" | "release";
  readonly ref: string;
  /** Grows from delivery to delivery. */
  readonly order: number;
}

interface Lane<Entry> {
  readonly waiting: Map<string, Entry>;
  /** The newest waiting push of each branch. */
  readonly newest: Map<string, Entry>;
  running: Entry | undefined;
  /** When this repo last had its turn, counted in turns. */
  served: number;
  /** Not before this time (ms): a busy folder or a full disk is tried again later. */
  notBefore: number;
}

/** The entries that wait, and the one of each repo that runs. */
export class Queue<Entry extends Waiting> {
  readonly #lanes = new Map<string, Lane<Entry>>();
  #running = 0;
  #waiting = 0;
  #turn = 0;

  /** How many entries run. */
  get running(): number {
    return this.#running;
  }

  /** How many entries wait. */
  get waiting(): number {
    return this.#waiting;
  }

  /** How many of a repo's entries wait. */
  waitingOf(repo: string): number {
    return this.#lanes.get(repo)?.waiting.size ?? 0;
  }

  /** The entry of a repo that runs. */
  runningOf(repo: string): Entry | undefined {
    return this.#lanes.get(repo)?.running;
  }

  /**
   * Let an entry wait. Of the pushes to one branch only the newest stays: returns the one that is superseded,
   * which is `entry` itself when a newer one waits already. Releases and tags are never superseded.
   */
  add(entry: Entry): { superseded: Entry; by: Entry } | undefined {
    const lane = this.#lane(entry.repo);
    if (canBeSuperseded(entry)) {
      const other = lane.newest.get(entry.ref);
      if (other && other.order > entry.order) return { superseded: entry, by: other };
      lane.newest.set(entry.ref, entry);
      this.#insert(lane, entry);
      if (other && lane.waiting.delete(other.id)) {
        this.#waiting -= 1;
        return { superseded: other, by: entry };
      }
      return undefined;
    }
    this.#insert(lane, entry);
    return undefined;
  }

  #insert(lane: Lane<Entry>, entry: Entry): void {
    lane.waiting.set(entry.id, entry);
    this.#waiting += 1;
  }

  #sort(lane: Lane<Entry>): void {
    const sorted = [...lane.waiting.values()].sort((a, b) => a.order - b.order);
    lane.waiting.clear();
    for (const each of sorted) lane.waiting.set(each.id, each);
  }

  /** Take an entry out that waits; false when it does not. */
  remove(entry: Entry): boolean {
    const lane = this.#lane(entry.repo);
    if (!lane.waiting.delete(entry.id)) return false;
    if (lane.newest.get(entry.ref) === entry) lane.newest.delete(entry.ref);
    this.#waiting -= 1;
    return true;
  }

  /** The entry whose turn it is, now running; undefined when none may start. `may` says which repos can run at all. */
  next(concurrency: number, now: number, may: (repo: string) => boolean): Entry | undefined {
    if (this.#waiting === 0 || this.#running >= concurrency) return undefined;
    let best: Lane<Entry> | undefined;
    for (const [repo, lane] of this.#lanes) {
      if (lane.running || lane.waiting.size === 0 || lane.notBefore > now || !may(repo)) continue;
      if (
        !best ||
        lane.served < best.served ||
        (lane.served === best.served && first(lane).order < first(best).order)
      )
        best = lane;
    }
    if (!best) return undefined;
    const entry = first(best);
    this.remove(entry);
    this.#take(best, entry);
    return entry;
  }

  /** An entry that runs already: a build that outlived the server. */
  adopt(entry: Entry): void {
    this.#take(this.#lane(entry.repo), entry);
  }

  #take(lane: Lane<Entry>, entry: Entry): void {
    lane.running = entry;
    lane.notBefore = 0;
    lane.served = ++this.#turn;
    this.#running += 1;
  }

  /** A run has ended. `again`: it waits again (the same place as before), not before that time. */
  finish(
    entry: Entry,
    again?: { notBefore: number },
  ): { superseded: Entry; by: Entry } | undefined {
    const lane = this.#lane(entry.repo);
    if (lane.running !== entry) return undefined;
    lane.running = undefined;
    this.#running -= 1;
    if (!again) return undefined;
    lane.notBefore = again.notBefore;
    const result = this.add(entry);
    this.#sort(lane);
    return result;
  }

  /** When the next postponed repo may run again; undefined: none is postponed. */
  nextTime(): number | undefined {
    let earliest: number | undefined;
    for (const { waiting, running, notBefore } of this.#lanes.values()) {
      if (waiting.size === 0 || running || notBefore === 0) continue;
      if (earliest === undefined || notBefore < earliest) earliest = notBefore;
    }
    return earliest;
  }

  /** What runs and waits. */
  *entries(): Iterable<Entry> {
    for (const lane of this.#lanes.values()) {
      if (lane.running) yield lane.running;
      yield* lane.waiting.values();
    }
  }

  #lane(repo: string): Lane<Entry> {
    let lane = this.#lanes.get(repo);
    if (!lane) {
      lane = { waiting: new Map(), newest: new Map(), running: undefined, served: 0, notBefore: 0 };
      this.#lanes.set(repo, lane);
    }
    return lane;
  }
}

function first<Entry>(lane: Lane<Entry>): Entry {
  return lane.waiting.values().next().value as Entry;
}

/** Whether a newer push takes an entry's place: pushes to a branch only. */
function canBeSuperseded(entry: Pick<Waiting, "kind" | "ref">): boolean {
  return entry.kind === "push" && entry.ref.startsWith("refs/heads/");
}
