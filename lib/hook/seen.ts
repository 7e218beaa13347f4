import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { exists, fsyncFolder, readIfThere } from "../files/files.ts";

/** What is remembered of a run, also after its delivery has left the journal. */
export interface SeenRun {
  readonly run: string;
  readonly repo: string;
  readonly delivery?: string | undefined;
  readonly ref: string;
  readonly sha?: string | undefined;
  readonly accepted: string;
  /** How it went on; `waiting` while it has no end. */
  state: string;
  /** The run that superseded it. */
  by?: string | undefined;
}

/**
 * Which deliveries were taken, so that one that comes again gives the same run: the newest `max` of them,
 * over restarts too. The files have one JSON object a line.
 */
export class Seen {
  readonly #path: string;
  readonly #max: number;
  readonly #runs = new Map<string, SeenRun>();
  readonly #byDelivery = new Map<string, SeenRun>();
  #lines = 0;
  /** Whether a crash cut the last line short. */
  #torn = false;

  constructor(path: string, max = 10_000) {
    this.#path = path;
    this.#max = max;
  }

  /** Read the files. */
  async load(): Promise<void> {
    const paths = [`${this.#path}.old`, this.#path];
    const [old = "", text = ""] = await Promise.all(paths.map((path) => readIfThere(path)));
    this.#read(old);
    this.#lines = 0;
    this.#read(text);
    this.#torn = text !== "" && !text.endsWith("\n");
  }

  #read(text: string): void {
    for (const line of text.split("\n")) {
      if (line === "") continue;
      this.#lines += 1;
      try {
        const seenRun = JSON.parse(line) as SeenRun;
        if (typeof seenRun.run === "string" && typeof seenRun.repo === "string") this.add(seenRun);
      } catch {
        // a line that a crash cut short: its delivery stands in the journal still
      }
    }
  }

  /** Remember a run that was accepted. */
  add(seenRun: SeenRun): void {
    this.#runs.set(seenRun.run, seenRun);
    // of a delivery that reports several refs the first run stands for it
    const { run, repo, delivery, accepted } = seenRun;
    if (delivery !== undefined) {
      const key = deliveryKey(repo, delivery);
      const known = this.#byDelivery.get(key);
      if (known?.accepted !== accepted || known.run === run) this.#byDelivery.set(key, seenRun);
    }
    this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [run, seenRun] of this.#runs) {
      if (this.#runs.size <= this.#max) return;
      // what still waits is remembered for as long as it waits
      if (seenRun.state === "waiting") continue;
      this.#runs.delete(run);
      if (seenRun.delivery === undefined) continue;
      const key = deliveryKey(seenRun.repo, seenRun.delivery);
      if (this.#byDelivery.get(key) === seenRun) this.#byDelivery.delete(key);
    }
  }

  /** What is remembered of a run. */
  get(run: string): SeenRun | undefined {
    return this.#runs.get(run);
  }

  /** The run of a delivery. */
  delivery(repo: string, id: string): SeenRun | undefined {
    return this.#byDelivery.get(deliveryKey(repo, id));
  }

  /** A run has come to an end. */
  settle(run: string, state: string, by: string | undefined): void {
    const seenRun = this.#runs.get(run);
    if (!seenRun) return;
    seenRun.state = state;
    seenRun.by = by;
  }

  /** All runs that are remembered, the oldest first. */
  all(): Iterable<SeenRun> {
    return this.#runs.values();
  }

  /**
   * Write down settled runs for good. A file that is full becomes the old one: the two of them hold
   * the newest, and neither is ever rewritten.
   */
  async keep(runs: readonly string[]): Promise<void> {
    const seenRuns = runs
      .map((run) => this.#runs.get(run))
      .filter((each) => each !== undefined)
      .filter((each) => each.state !== "waiting");
    if (this.#lines >= this.#max) {
      if (await exists(this.#path)) await rename(this.#path, `${this.#path}.old`);
      this.#lines = 0;
    }
    const file = await open(this.#path, "a", 0o600);
    const { size } = await file.stat();
    try {
      if (this.#torn) await file.appendFile("\n");
      await file.appendFile(seenRuns.map((each) => `${JSON.stringify(each)}\n`).join(""));
      await file.sync();
      this.#torn = false;
    } catch (error) {
      this.#torn = true;
      await file.truncate(size).catch(() => {});
      throw error;
    } finally {
      await file.close();
    }
    if (this.#lines === 0) await fsyncFolder(dirname(this.#path));
    this.#lines += seenRuns.length;
  }
}

/** No name of a repo has a blank in it. */
function deliveryKey(repo: string, id: string): string {
  return `${repo} ${id}`;
}
