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

/** A push that gave way to a newer one. */
interface Superseded<Entry> {
  readonly superseded: Entry;
  readonly by: Entry;
}

interface Lane<Entry> {
  /** In order. */
  readonly waiting: Entry[];
  running: Entry | undefined;
  /** When this repo last had its turn, counted in turns. */
  served: number;
  /** Not before this time (ms): a busy folder or a full disk is tried again later. */
  notBefore: number;
}

/** The entries that wait, and the one of each repo that runs. */
export class Queue<Entry extends Waiting> {
  readonly #lanes = new Map<string, Lane<Entry>>();
  #turn = 0;
  /** Grows with each change. */
  changes = 0;

  /** How many entries run. */
  get running(): number {
    return [...this.#lanes.values()].filter((lane) => lane.running).length;
  }

  /** How many entries wait. */
  get waiting(): number {
    return [...this.#lanes.values()].reduce((sum, lane) => sum + lane.waiting.length, 0);
  }

  /** How many of a repo's entries wait. */
  waitingOf(repo: string): number {
    return this.lane(repo).waiting.length;
  }

  /** The entry of a repo that runs. */
  runningOf(repo: string): Entry | undefined {
    return this.lane(repo).running;
  }

  /**
   * Let an entry wait, in its place: one that comes back is older than others. Of the pushes to one branch only the
   * newest stays: returns the one that is superseded, which is `entry` itself when a newer one waits already. Releases
   * and tags are never superseded.
   */
  add(entry: Entry): Superseded<Entry> | undefined {
    const { waiting } = this.lane(entry.repo);
    const other = isBranchPush(entry) ? waiting.find((each) => each.ref === entry.ref) : undefined;
    if (other && other.order > entry.order) return { superseded: entry, by: other };
    if (other) this.remove(other);
    waiting.splice(waiting.findLastIndex(({ order }) => order < entry.order) + 1, 0, entry);
    this.changes += 1;
    return other && { superseded: other, by: entry };
  }

  /** Take an entry out that waits; false when it does not. */
  remove(entry: Entry): boolean {
    const { waiting } = this.lane(entry.repo);
    const at = waiting.findIndex(({ id }) => id === entry.id);
    if (at < 0) return false;
    waiting.splice(at, 1);
    this.changes += 1;
    return true;
  }

  /** The entry whose turn it is, now running; undefined when none may start. `may` says which repos can run at all. */
  next(concurrency: number, now: number, may: (repo: string) => boolean): Entry | undefined {
    if (this.running >= concurrency) return undefined;
    const [best] = [...this.#lanes]
      .filter(([repo, lane]) => isReady(lane) && lane.notBefore <= now && may(repo))
      .map(([, lane]) => lane)
      .sort((a, b) => a.served - b.served || firstOrder(a) - firstOrder(b));
    const entry = best?.waiting.shift();
    if (best && entry) this.take(best, entry);
    return entry;
  }

  /** An entry that runs already: a build that outlived the server. */
  adopt(entry: Entry): void {
    this.take(this.lane(entry.repo), entry);
  }

  private take(lane: Lane<Entry>, entry: Entry): void {
    this.changes += 1;
    lane.running = entry;
    lane.notBefore = 0;
    lane.served = ++this.#turn;
  }

  /** A run has ended. `again`: it waits again, not before that time. */
  finish(entry: Entry, again?: { notBefore: number }): Superseded<Entry> | undefined {
    const lane = this.lane(entry.repo);
    lane.running = undefined;
    this.changes += 1;
    if (!again) return undefined;
    lane.notBefore = again.notBefore;
    return this.add(entry);
  }

  /** When the next postponed repo may run again; undefined: none is postponed. */
  nextTime(): number | undefined {
    const times = [...this.#lanes.values()]
      .filter((lane) => isReady(lane) && lane.notBefore > 0)
      .map((lane) => lane.notBefore);
    return times.length > 0 ? Math.min(...times) : undefined;
  }

  /** What runs and waits. */
  *entries(): Iterable<Entry> {
    for (const lane of this.#lanes.values()) {
      if (lane.running) yield lane.running;
      yield* lane.waiting;
    }
  }

  private lane(repo: string): Lane<Entry> {
    let lane = this.#lanes.get(repo);
    if (!lane) {
      lane = { waiting: [], running: undefined, served: 0, notBefore: 0 };
      this.#lanes.set(repo, lane);
    }
    return lane;
  }
}

/** Whether something waits and nothing of the same repo runs. */
function isReady({ waiting, running }: Lane<unknown>): boolean {
  return waiting.length > 0 && !running;
}

function firstOrder({ waiting }: Lane<Waiting>): number {
  return waiting[0]?.order ?? 0;
}

/** Whether a newer push to the same ref takes an entry's place. */
export function isBranchPush({ kind, ref }: Waiting): boolean {
  return kind === "push" && ref.startsWith("refs/heads/");
}
