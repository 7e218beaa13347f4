import { nameOnBus } from "../../bus/address.ts";
import type { Bucket } from "../../bus/bus.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import { isEntry } from "../store/entry.ts";
import type { RunView } from "../runs/runs.ts";
import { hasEnded } from "../runs/records.ts";
import { parseWanted, type Wanted } from "./wanted.ts";

/**
 * The bucket in which builders keep what they share, each value changed by compare-and-set:
 * `want.REPO` the accepted runs without an end, `claim.REPO` who may run it (claims.ts), `done.REPO` the commit of
 * each branch that was built last, `run.ID` what is known of a run that was begun or has ended.
 */
export const bucketName = "builds";

/** `run.ID`: what lists and pages show, and what builders need besides. */
export interface SharedRun extends RunView {
  /** The state folder, and by it the builder, that runs or ran it. */
  readonly home?: string | undefined;
  /** The object that holds its payload. */
  readonly payload?: string | undefined;
}

/** `done.REPO`: by branch the last commit that was built well. */
export interface Done {
  readonly repo: string;
  readonly refs: Readonly<Record<string, { sha: string; run: string; builder: string; fence: number }>>;
}

/** How often a value is changed again that others change at the same time. */
const maxRounds = 100;
/** A run with more than that of stages is kept without them: a value on the bus is 1 MB at most. */
const maxRun = 256 * 1024;

export interface DocumentEvents {
  /** What is wanted of a repo has changed, or, with an empty name, a claim. */
  onWanted: (repo: string) => void;
  onDone: (done: Done) => void;
}

interface DocumentsParts extends DocumentEvents {
  bucket: Bucket;
  warn: (text: string) => void;
}

/** What builders share, as it was last seen, and how it is changed. */
export class Documents {
  readonly #parts: DocumentsParts;
  readonly #wanted = new Map<string, Wanted>();
  readonly #runs = new Map<string, SharedRun>();
  /** The keys of values that do not read: a later version may have written them. */
  readonly #unread = new Set<string>();
  /** Grows with each change of what lists show. */
  changes = 0;

  constructor(parts: DocumentsParts) {
    this.#parts = parts;
  }

  /** Resolves when all that is there has been read. */
  async follow(): Promise<void> {
    await this.#parts.bucket.follow((key, text) => {
      try {
        this.#unread.delete(key);
        this.take(key, text);
      } catch (error) {
        this.#unread.add(key);
        this.#parts.warn(`${key} on the bus: ${messageOf(error)}`);
      }
    });
  }

  /** Whether there are values that do not read: nobody knows then which payloads they name. */
  get isUnclear(): boolean {
    return this.#unread.size > 0;
  }

  private take(key: string, text: string | undefined): void {
    const [kind = "", ...rest] = key.split(".");
    const name = rest.join(".");
    if (kind === "run") {
      this.changes += 1;
      if (text === undefined) this.#runs.delete(name);
      else this.#runs.set(name, parseRun(text));
    } else if (kind === "want") {
      this.changes += 1;
      if (text === undefined) return this.forget(name);
      const wanted = parseWanted(name, text);
      this.#wanted.set(name, wanted);
      this.#parts.onWanted(wanted.repo);
    } else if (kind === "claim") this.#parts.onWanted("");
    else if (kind === "done" && text !== undefined) this.#parts.onDone(JSON.parse(text) as Done);
  }

  /** What is wanted of a repo is never removed: the bus has lost its disk. */
  private forget(name: string): void {
    const { repo = name, runs = [] } = this.#wanted.get(name) ?? {};
    this.#wanted.delete(name);
    if (runs.length > 0)
      this.#parts.warn(
        `the bus has lost ${runs.map(({ id }) => id).join(", ")} of ${repo}; ` +
          "what does not run yet is to be pushed again, if no look for missed pushes finds it",
      );
  }

  /** What is wanted of each repo, as it was last seen. */
  wanted(): Iterable<Wanted> {
    return this.#wanted.values();
  }

  wantedOf(repo: string): Wanted {
    return this.#wanted.get(nameOnBus(repo)) ?? parseWanted(repo, undefined);
  }

  runs(): Iterable<SharedRun> {
    return this.#runs.values();
  }

  run(id: string): SharedRun | undefined {
    return this.#runs.get(id);
  }

  /** What is wanted of a repo now. @throws {Failure} when the bus does not answer. */
  async readWanted(repo: string): Promise<Wanted> {
    return parseWanted(repo, (await this.#parts.bucket.get(`want.${nameOnBus(repo)}`))?.text);
  }

  /**
   * Change what is wanted of a repo.
   * @param plan is asked again when somebody else was faster; undefined: nothing is to change.
   * @throws {Failure} when the bus does not answer: it may be changed all the same.
   */
  async changeWanted(repo: string, plan: (wanted: Wanted) => Wanted | undefined): Promise<Wanted | undefined> {
    const name = nameOnBus(repo);
    const changed = await this.change(`want.${name}`, (text) => plan(parseWanted(repo, text)));
    if (changed) this.#wanted.set(name, changed);
    this.changes += 1;
    return changed;
  }

  /** Change what is known of a run; see `changeWanted`. */
  async changeRun(
    id: string,
    plan: (run: SharedRun | undefined) => SharedRun | undefined,
  ): Promise<SharedRun | undefined> {
    const changed = await this.change(`run.${id}`, (text) => {
      const next = plan(text === undefined ? undefined : parseRun(text));
      return next && JSON.stringify(next).length > maxRun ? { ...next, stages: undefined } : next;
    });
    if (changed) this.#runs.set(id, changed);
    this.changes += 1;
    return changed;
  }

  /** A commit was built well, under a claim with this fencing number: one that is older changes nothing. */
  async built(repo: string, ref: string, what: Done["refs"][string]): Promise<void> {
    await this.change(`done.${nameOnBus(repo)}`, (text): Done | undefined => {
      const refs = text === undefined ? {} : (JSON.parse(text) as Done).refs;
      const before = refs[ref];
      if (before && before.fence > what.fence) return undefined;
      return { repo, refs: { ...refs, [ref]: what } };
    });
  }

  async removeRun(id: string): Promise<void> {
    await this.#parts.bucket.remove(`run.${id}`);
    this.#runs.delete(id);
    this.changes += 1;
  }

  private async change<T>(key: string, plan: (text: string | undefined) => T | undefined): Promise<T | undefined> {
    const { bucket } = this.#parts;
    for (let round = 0; round < maxRounds; round++) {
      const entry = await bucket.get(key);
      const next = plan(entry?.text);
      if (!next) return undefined;
      const text = JSON.stringify(next);
      if ((await bucket.put(key, text, entry?.revision ?? 0)) !== undefined) return next;
    }
    throw new Failure(`${key} on the bus is changed by others all the time`);
  }

  /** Ended runs of a repo beyond its newest, and those that are too old. */
  old(repo: string, { keep, maxAge, now = Date.now() }: { keep: number; maxAge: number; now?: number }): SharedRun[] {
    const when = (run: SharedRun) => run.ended ?? run.accepted;
    return [...this.#runs.values()]
      .filter((run) => run.repo === repo && hasEnded(run.state))
      .sort((a, b) => when(b).localeCompare(when(a)))
      .filter((run, index) => index >= keep || now - Date.parse(when(run)) > maxAge);
  }
}

/** @throws {Error} for what no builder wrote. */
function parseRun(text: string): SharedRun {
  const run = JSON.parse(text) as SharedRun;
  if (!isEntry({ order: 0, ...run }) || typeof run.state !== "string") throw new Error("is not what is known of a run");
  return run;
}
