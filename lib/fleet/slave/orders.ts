import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, UsageError } from "../../core/errors.ts";
import { isShortName } from "../../core/names.ts";
import { writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";
import type { SignedOrder } from "../order.ts";

/** What is remembered of the last order of a master for a repo. */
export interface TakenOrder {
  at: number;
  signature: string;
  /** The job that it started or joined. */
  job: string;
}

/**
 * The last order taken, per repo and master key, on disk: an order is taken once, and none that is older than the last.
 * A file a repo: `{ KEY: { at, signature, job } }`.
 */
export class Orders {
  readonly #dir: string;
  readonly #taken = new Map<string, Record<string, TakenOrder>>();
  #turn: Promise<unknown> = Promise.resolve();

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** @param jobs orders that are on disk with their jobs, which a crash may have kept from being written here */
  async open(jobs: Iterable<{ repo: string; key: string } & TakenOrder>): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#dir)) {
      const repo = name.replace(/\.json$/, "");
      if (!name.endsWith(".json") || !isShortName(repo)) continue;
      this.#taken.set(repo, await readTaken(join(this.#dir, name)));
    }
    for (const { repo, key, at, signature, job } of jobs) {
      const last = this.#taken.get(repo)?.[key];
      if (last === undefined || last.at < at) this.#set(repo, key, { at, signature, job });
    }
  }

  #set(repo: string, key: string, taken: TakenOrder): void {
    this.#taken.set(repo, { ...this.#taken.get(repo), [key]: taken });
  }

  /**
   * Take an order, and start its job; the very order last taken gives its job again and starts nothing.
   * @returns the id of its job; the order is on disk then
   * @throws {HttpError} 401 for an order that is not newer than the last one
   */
  take(signed: SignedOrder, start: () => Promise<{ job: string }>): Promise<string> {
    const turn = this.#turn.then(() => this.#takeInTurn(signed, start));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #takeInTurn(
    { order: { repo, at }, key, signature }: SignedOrder,
    start: () => Promise<{ job: string }>,
  ): Promise<string> {
    const last = this.#taken.get(repo)?.[key];
    if (last?.signature === signature) return last.job;
    if (last !== undefined && at <= last.at)
      throw new HttpError(
        401,
        `the order is not newer than the last one taken (${new Date(last.at).toISOString()}); is the master's clock right?`,
      );
    const { job } = await start();
    this.#set(repo, key, { at, signature, job });
    const text = `${JSON.stringify(this.#taken.get(repo), undefined, 2)}\n`;
    try {
      await writeAtomic(join(this.#dir, `${repo}.json`), text, { mode: 0o600 });
    } catch {
      // it is on disk with its job
      throw new HttpError(503, "the order could not be recorded: is the disk full?");
    }
    return job;
  }
}

/** A damaged file must not count as an empty one: all old orders would be new again. */
async function readTaken(file: string): Promise<Record<string, TakenOrder>> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Record<string, TakenOrder>;
  } catch (error) {
    throw new UsageError(
      `${file} cannot be read (${messageOf(error)}): it says which orders are old; put it back, or remove it and give the master a new key`,
    );
  }
}
