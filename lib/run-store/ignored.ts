import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";

/** A genuine delivery of which no run came: answered 200 with a reason. */
export interface IgnoredDelivery {
  /** ISO. */
  readonly time: string;
  readonly reason: string;
  readonly repo?: string | undefined;
  readonly forge: string;
  readonly event: string;
  readonly ref?: string | undefined;
  readonly delivery?: string | undefined;
}

/** Milliseconds in which ignored deliveries gather for one write. */
const writeDelay = 100;

/**
 * The newest ignored deliveries: they answer why a push did not run. Their file, a line each, is written behind the
 * answers: what a crash takes of it is missed, not waited for.
 */
export class Ignored {
  readonly #path: string;
  readonly #warn: (text: string) => void;
  readonly #max: number;
  /** The oldest first. */
  readonly #deliveries: IgnoredDelivery[] = [];
  #writing: Promise<void> | undefined;
  #isBroken = false;

  private constructor(path: string, warn: (text: string) => void, max: number) {
    this.#path = path;
    this.#warn = warn;
    this.#max = max;
  }

  /** Read what a former server of this state folder ignored; the newest `max` are remembered. */
  static async open(
    state: string,
    { warn, max = 1000 }: { warn: (text: string) => void; max?: number },
  ): Promise<Ignored> {
    const ignored = new Ignored(join(state, "ignored.jsonl"), warn, max);
    await ignored.read().catch((error: unknown) => warn(`${ignored.#path} cannot be read: ${messageOf(error)}`));
    return ignored;
  }

  private async read(): Promise<void> {
    const lines = ((await readIfThere(this.#path)) ?? "").split("\n").filter((line) => line !== "");
    for (const line of lines.slice(-this.#max)) {
      try {
        const delivery = JSON.parse(line) as IgnoredDelivery | null;
        if (typeof delivery?.time === "string" && typeof delivery.reason === "string") this.#deliveries.push(delivery);
      } catch {
        // an editor's work: what is missing is one line of a list
      }
    }
  }

  /** Remember one. */
  add(delivery: Omit<IgnoredDelivery, "time">): void {
    this.#deliveries.push({ time: new Date().toISOString(), ...delivery });
    if (this.#deliveries.length > this.#max) this.#deliveries.shift();
    this.#writing ??= this.writeSoon();
  }

  /** The newest first. */
  list({ repo, limit }: { repo: string | undefined; limit: number }): IgnoredDelivery[] {
    return this.#deliveries
      .filter((each) => repo === undefined || each.repo === repo)
      .slice(-limit)
      .reverse();
  }

  /** Wait until all are written. */
  async close(): Promise<void> {
    while (this.#writing) await this.#writing;
  }

  private async writeSoon(): Promise<void> {
    await sleep(writeDelay);
    const newest = this.#deliveries.at(-1);
    const text = this.#deliveries.map((each) => `${JSON.stringify(each)}\n`).join("");
    try {
      await writeAtomic(this.#path, text, { mode: 0o600, durable: false });
      this.#isBroken = false;
    } catch (error) {
      if (!this.#isBroken) this.#warn(`ignored deliveries cannot be written: ${messageOf(error)}`);
      this.#isBroken = true;
    }
    this.#writing = this.#deliveries.at(-1) === newest ? undefined : this.writeSoon();
  }
}
