import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { exists, fsyncFolder, readIfThere } from "../files/files.ts";
import { DeliveryMap } from "./delivery-map.ts";

/** What is remembered of a run after its delivery has left the journal. */
export interface Memory {
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
 * Which deliveries were taken, so that one that comes again gives the same run: the newest `most` of them,
 * over restarts too. The files have one JSON object a line.
 */
export class Seen {
  readonly #path: string;
  readonly #most: number;
  readonly #runs = new Map<string, Memory>();
  readonly #byDelivery = new DeliveryMap<Memory>();
  #lines = 0;
  /** Whether a crash cut the last line short. */
  #torn = false;

  constructor(path: string, most = 10_000) {
    this.#path = path;
    this.#most = most;
  }

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
        const memory = JSON.parse(line) as Memory;
        if (typeof memory.run === "string" && typeof memory.repo === "string") this.add(memory);
      } catch {
        // a line that a crash cut short: its delivery stands in the journal still
      }
    }
  }

  add(memory: Memory): void {
    this.#runs.set(memory.run, memory);
    // of a delivery that reports several refs the first run stands for it
    const { run, repo, delivery, accepted } = memory;
    if (delivery !== undefined) {
      const known = this.#byDelivery.get(repo, delivery);
      if (known?.accepted !== accepted || known.run === run)
        this.#byDelivery.set(repo, delivery, memory);
    }
    // many at once: each walk from the oldest passes over what was deleted before
    if (this.#runs.size > this.#most * 1.125) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [run, memory] of this.#runs) {
      if (this.#runs.size <= this.#most) return;
      // what still waits stays in memory for as long as it waits
      if (memory.state === "waiting") continue;
      this.#runs.delete(run);
      if (memory.delivery === undefined) continue;
      if (this.#byDelivery.get(memory.repo, memory.delivery) === memory)
        this.#byDelivery.delete(memory.repo, memory.delivery);
    }
  }

  has(run: string): boolean {
    return this.#runs.has(run);
  }

  get(run: string): Memory | undefined {
    return this.#runs.get(run);
  }

  /** The run of a delivery. */
  delivery(repo: string, id: string): Memory | undefined {
    return this.#byDelivery.get(repo, id);
  }

  /** A run has come to an end. */
  settle(run: string, state: string, by: string | undefined): void {
    const memory = this.#runs.get(run);
    if (!memory) return;
    memory.state = state;
    memory.by = by;
  }

  all(): Iterable<Memory> {
    return this.#runs.values();
  }

  /**
   * Write memories of settled runs down for good. A file that is full becomes the old one: the two of them hold
   * the newest, and neither is ever written anew.
   */
  async keep(runs: readonly string[]): Promise<void> {
    const memories = runs
      .map((run) => this.#runs.get(run))
      .filter((each) => each !== undefined)
      .filter((each) => each.state !== "waiting");
    if (this.#lines >= this.#most) {
      if (await exists(this.#path)) await rename(this.#path, `${this.#path}.old`);
      this.#lines = 0;
    }
    const file = await open(this.#path, "a", 0o600);
    const { size } = await file.stat();
    try {
      if (this.#torn) await file.appendFile("\n");
      for await (const some of lines(memories)) await file.appendFile(some);
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
    this.#lines += memories.length;
  }
}

/** In pieces: ten thousand at once would keep deliveries waiting. */
async function* lines(memories: readonly Memory[]): AsyncGenerator<string> {
  for (let at = 0; at < memories.length; at += 250) {
    const some = memories.slice(at, at + 250);
    yield some.map((memory) => `${JSON.stringify(memory)}\n`).join("");
    await new Promise((resolve) => setImmediate(resolve));
  }
}
