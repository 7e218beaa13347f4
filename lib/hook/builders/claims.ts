import { setTimeout as sleep } from "node:timers/promises";
import { nameOnBus } from "../../bus/address.ts";
import type { Bucket } from "../../bus/bus.ts";
import { messageOf } from "../../core/errors.ts";
import { formatDuration } from "../../core/units.ts";
import type { Guard } from "./guard.ts";

/**
 * Who may run a repo: its key in the bucket `claims`, whose values the bus itself removes after a lease unless they are
 * written again. A holder that cannot write it any more ends its run before that: at `stopAfter` of the lease it asks
 * for it, and at 0.8 nothing of the run lives (guard.ts).
 */

/** Parts of the lease since the start of the last write that got through. */
const stopAfter = 0.6;
/** How long after a sign of life the guard of a run kills it; the sign is given at most `writeLimit` late. */
export const guardAfter = 0.65;
/** How often a claim is written, and how long that may take to count. */
const writeEvery = 0.2;
const writeLimit = 0.15;
/** There for a lease when the bus is new: then claims may be missing whose holders still run. */
const newKey = "new";

/** The right to run a repo, until it is given back or lost. */
export class Claim {
  readonly repo: string;
  /** The revision that it was made with: it grows with each claim. */
  readonly fence: number;
  readonly guards = new Set<Guard>();
  readonly #lost = new AbortController();
  revision: number;
  /** When the last write that got through was started, by `performance.now()`. */
  since: number;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(repo: string, revision: number, since: number) {
    this.repo = repo;
    this.fence = revision;
    this.revision = revision;
    this.since = since;
  }

  /** Aborted when it may be another builder's soon. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  lose(): void {
    this.#lost.abort();
  }

  /** One write after the other. */
  async alone<T>(write: () => Promise<T>): Promise<T> {
    const before = this.#writing;
    const writing = before.then(write, write);
    this.#writing = writing.catch(() => {});
    return await writing;
  }
}

interface ClaimsParts {
  readonly bucket: Bucket;
  /** The state folder of this builder, by the name that no other has. */
  readonly home: string;
  /** Milliseconds. */
  readonly lease: number;
  readonly warn: (text: string) => void;
}

/** The claims of this builder. */
export class Claims {
  readonly #parts: ClaimsParts;
  readonly #held = new Map<string, Claim>();
  readonly #timer: NodeJS.Timeout;
  #mayBeNew = true;

  constructor(parts: ClaimsParts) {
    this.#parts = parts;
    this.#timer = setInterval(() => this.renewAll(), (parts.lease * writeEvery) / 2);
  }

  /** The connection was made (again): the bus may have lost its disk, which `shared` knows. */
  async greet(shared: Bucket): Promise<void> {
    const { bucket, lease, warn } = this.#parts;
    this.#mayBeNew = true;
    if (await shared.get("bucket")) return;
    // in this order: whoever sees the second sees the first
    await bucket.put(newKey, "");
    await shared.put("bucket", "known", 0);
    warn(
      `the bus is new, or has lost its disk: nothing starts before ${formatDuration(lease)} are over, in which what ` +
        "ran before ends",
    );
  }

  /** Take a repo's claim; undefined while somebody else has it. @throws {Failure} when the bus does not answer. */
  async take(repo: string): Promise<Claim | undefined> {
    const { bucket, home, lease } = this.#parts;
    if (this.#held.has(repo) || (this.#mayBeNew && (await bucket.get(newKey)))) return undefined;
    this.#mayBeNew = false;
    const key = nameOnBus(repo);
    const since = performance.now();
    let revision = await bucket.put(key, home, 0);
    if (revision === undefined) {
      // given back; or of a former server here, or of a write whose answer was lost
      const there = await bucket.get(key);
      if (!there || (there.text !== "" && there.text !== home)) return undefined;
      revision = await bucket.put(key, home, there.revision);
    }
    // it took so long that nobody knows whether it still counts
    if (revision === undefined || performance.now() - since > lease * writeLimit) return undefined;
    const claim = new Claim(repo, revision, since);
    this.#held.set(repo, claim);
    return claim;
  }

  /** Whether a claim still counts: it was written recently enough. */
  isValid(claim: Claim): boolean {
    return !claim.lost.aborted && performance.now() - claim.since < this.#parts.lease * stopAfter;
  }

  /**
   * Whether a claim is ours now: the bus is asked, by writing it, for as long as it counts here. So a machine that
   * stood still learns that another builder was faster.
   */
  async confirm(claim: Claim): Promise<boolean> {
    while (this.isValid(claim)) {
      try {
        return (await this.write(claim)) && this.isValid(claim);
      } catch {
        // the bus is away; said by the one that renews it
        await sleep(100);
      }
    }
    return false;
  }

  /** Give a claim back; others may take it at once. */
  async release(claim: Claim): Promise<void> {
    if (this.#held.get(claim.repo) === claim) this.#held.delete(claim.repo);
    if (claim.lost.aborted) return;
    await claim
      .alone(() => this.#parts.bucket.put(nameOnBus(claim.repo), "", claim.revision))
      .catch((error: unknown) => this.#parts.warn(`the claim of ${claim.repo} ends by itself: ${messageOf(error)}`));
  }

  /** What runs under it must end. */
  lose(claim: Claim): void {
    if (claim.lost.aborted) return;
    if (this.#held.get(claim.repo) === claim) this.#held.delete(claim.repo);
    this.#parts.warn(`the claim of ${claim.repo} is lost`);
    claim.lose();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  private renewAll(): void {
    const { lease, warn } = this.#parts;
    for (const claim of this.#held.values()) {
      const age = performance.now() - claim.since;
      if (age > lease * stopAfter) this.lose(claim);
      else if (age > lease * writeEvery)
        this.write(claim).catch((error: unknown) =>
          warn(`the claim of ${claim.repo} cannot be written: ${messageOf(error)}`),
        );
    }
  }

  /** Write a claim again; false when it is lost. */
  private async write(claim: Claim): Promise<boolean> {
    const { bucket, home, lease } = this.#parts;
    const key = nameOnBus(claim.repo);
    return await claim.alone(async () => {
      for (;;) {
        if (claim.lost.aborted) return false;
        const since = performance.now();
        const revision = await bucket.put(key, home, claim.revision);
        if (revision !== undefined) {
          claim.revision = revision;
          // an answer that comes late must not keep alive what is being ended
          if (performance.now() - since > lease * writeLimit || claim.lost.aborted) return !claim.lost.aborted;
          claim.since = since;
          for (const guard of claim.guards) guard.beat();
          return true;
        }
        // a write whose answer was lost may have come through
        const there = await bucket.get(key);
        if (there?.text !== home) break;
        claim.revision = there.revision;
      }
      this.lose(claim);
      return false;
    });
  }
}
