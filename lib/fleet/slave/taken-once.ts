import { mkdir, open, readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf, UsageError } from "../../core/errors.ts";
import { Mutex } from "../../core/mutex.ts";
import { isShortName } from "../../core/names.ts";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";
import type { SignedOrder } from "../order.ts";
import { allowedSkew } from "../signature.ts";

/** The nonces of requests signed with a shared secret, kept while their time is valid; also across a restart. */
export class Nonces {
  readonly #file: string;
  /** nonce → seconds since 1970 after which its request is too old anyway. */
  readonly #until = new Map<string, number>();
  #lines = 0;
  readonly #turns = new Mutex();

  constructor(file: string) {
    this.#file = file;
  }

  async open(): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    for (const line of ((await readIfThere(this.#file)) ?? "").split("\n")) {
      const [until = "", nonce] = line.split(" ");
      if (nonce?.length === 32) this.#until.set(nonce, Number(until));
    }
    await this.compact();
  }

  /**
   * Take a nonce; false when it was taken before. It is on disk when this resolves.
   * @throws {HttpError} 429 when more came than can be remembered, 503 when it cannot be written
   */
  take(nonce: string, time: number): Promise<boolean> {
    return this.#turns.run(async () => {
      if (this.#until.has(nonce)) return false;
      if (this.#until.size >= maxNonces) this.forget();
      if (this.#until.size >= maxNonces) throw new HttpError(429, "too many requests", { "retry-after": "60" });
      const until = time + 2 * allowedSkew;
      try {
        // a line of its own, also after one of which a full disk took the end
        await this.append(`\n${until} ${nonce}`);
      } catch {
        throw new HttpError(503, "the request could not be recorded: is the disk full?");
      }
      this.#until.set(nonce, until);
      return true;
    });
  }

  private async append(line: string): Promise<void> {
    if (this.#lines >= compactAfter) {
      this.forget();
      if (this.#lines > 2 * this.#until.size) await this.compact();
    }
    const file = await open(this.#file, "a", 0o600);
    try {
      await file.appendFile(line);
      await file.datasync();
    } finally {
      await file.close();
    }
    this.#lines += 1;
  }

  private forget(): void {
    const now = Date.now() / 1000;
    for (const [nonce, until] of this.#until) if (until < now) this.#until.delete(nonce);
  }

  private async compact(): Promise<void> {
    this.forget();
    const lines = [...this.#until].map(([nonce, until]) => `${until} ${nonce}\n`);
    await writeAtomic(this.#file, lines.join(""), { mode: 0o600 });
    this.#lines = lines.length;
  }
}

const maxNonces = 200_000;
/** Fewer lines than this are not worth writing the file anew. */
const compactAfter = 1000;

/** What is remembered of the last order for a repo. */
export interface TakenOrder {
  at: number;
  signature: string;
  /** The job that it started or joined. */
  job: string;
}

/**
 * The last order taken, per repo, on disk, whichever of the master keys signed it: an order is taken once, and none
 * that is older than the last. A file a repo.
 */
export class Orders {
  readonly #dir: string;
  readonly #taken = new Map<string, TakenOrder>();
  readonly #turns = new Mutex();

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** @param jobs orders that are on disk with their jobs, which a crash may have kept from being written here */
  async open(jobs: Iterable<{ repo: string } & TakenOrder>): Promise<void> {
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    for (const name of await readdir(this.#dir)) {
      const repo = name.replace(/\.json$/, "");
      if (!name.endsWith(".json") || !isShortName(repo)) continue;
      this.#taken.set(repo, await readTaken(join(this.#dir, name)));
    }
    for (const { repo, at, signature, job } of jobs)
      if ((this.#taken.get(repo)?.at ?? -1) < at) this.#taken.set(repo, { at, signature, job });
  }

  /**
   * Take an order, and start its job; the very order last taken gives its job again and starts nothing.
   * @returns the id of its job; the order is on disk then
   * @throws {HttpError} 401 for an order that is not newer than the last one
   */
  take(signed: SignedOrder, start: () => Promise<{ job: string }>): Promise<string> {
    const { signature, order } = signed;
    const { repo, at } = order;
    return this.#turns.run(async () => {
      const last = this.#taken.get(repo);
      if (last?.signature === signature) return last.job;
      if (last !== undefined && at <= last.at)
        throw new HttpError(
          401,
          `the order is not newer than the last one taken (${new Date(last.at).toISOString()}); ` +
            "is the master's clock right?",
        );
      const { job } = await start();
      const taken = { at, signature, job };
      this.#taken.set(repo, taken);
      const text = `${JSON.stringify(taken, undefined, 2)}\n`;
      try {
        await writeAtomic(join(this.#dir, `${repo}.json`), text, { mode: 0o600 });
      } catch {
        // it is on disk with its job
        throw new HttpError(503, "the order could not be recorded: is the disk full?");
      }
      return job;
    });
  }
}

/** A damaged file must not count as an empty one: all old orders would be new again. */
async function readTaken(file: string): Promise<TakenOrder> {
  try {
    const taken = JSON.parse(await readFile(file, "utf8")) as TakenOrder;
    if (!Number.isSafeInteger(taken.at)) throw new Error("it has no time");
    return taken;
  } catch (error) {
    throw new UsageError(
      `${file} cannot be read (${messageOf(error)}): it says which orders are old; ` +
        "put it back, or remove it and give the master a new key",
    );
  }
}
