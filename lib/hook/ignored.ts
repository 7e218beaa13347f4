import { appendFile } from "node:fs/promises";
import { join } from "node:path";
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

/**
 * The newest ignored deliveries: they answer why a push did not run. They are a line each in a file that is written
 * behind the answers: what a crash takes of it is missed, not waited for.
 */
export class Ignored {
  readonly #path: string;
  readonly #warn: (text: string) => void;
  readonly #max: number;
  /** The oldest first. */
  readonly #deliveries: IgnoredDelivery[] = [];
  #unwritten: IgnoredDelivery[] = [];
  #linesOnDisk = 0;
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
    await ignored.#read().catch((error: unknown) => warn(messageOf(error)));
    return ignored;
  }

  async #read(): Promise<void> {
    const lines = ((await readIfThere(this.#path)) ?? "").split("\n").filter((line) => line !== "");
    this.#linesOnDisk = lines.length;
    for (const line of lines.slice(-this.#max)) {
      try {
        const delivery = JSON.parse(line) as IgnoredDelivery | null;
        if (typeof delivery?.time === "string" && typeof delivery.reason === "string")
          this.#deliveries.push(delivery);
      } catch {
        // a crash cut it short: what is missing is one line of a list
      }
    }
  }

  /** Remember one. */
  add(delivery: Omit<IgnoredDelivery, "time">): void {
    const added = { time: new Date().toISOString(), ...delivery };
    for (const list of [this.#deliveries, this.#unwritten]) {
      list.push(added);
      if (list.length > this.#max) list.shift();
    }
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
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
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#unwritten.length > 0) {
      const now = this.#unwritten;
      this.#unwritten = [];
      try {
        if (this.#linesOnDisk + now.length > 2 * this.#max) {
          await writeAtomic(this.#path, textOf(this.#deliveries), { mode: 0o600 });
          this.#linesOnDisk = this.#deliveries.length;
        } else {
          // an empty line first: the one before may have been cut short
          await appendFile(this.#path, `\n${textOf(now)}`, { mode: 0o600 });
          this.#linesOnDisk += now.length;
        }
        this.#isBroken = false;
      } catch (error) {
        if (!this.#isBroken)
          this.#warn(`ignored deliveries cannot be written: ${messageOf(error)}`);
        this.#isBroken = true;
      }
    }
  }
}

function textOf(deliveries: readonly IgnoredDelivery[]): string {
  return deliveries.map((each) => `${JSON.stringify(each)}\n`).join("");
}
