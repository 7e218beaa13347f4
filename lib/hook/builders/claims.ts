import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { nameOnBus } from "../../bus/address.ts";
import type { Bucket } from "../../bus/bus.ts";
import { messageOf } from "../../core/errors.ts";
import { formatDuration } from "../../core/units.ts";
import { type ClaimValue, judgeClaim, nextFence, type Seen } from "./wanted.ts";

/**
 * Who may run a repo: `claim.REPO` on the bus, changed by compare-and-set only, so that one builder has it at a time.
 * It is a lease: its holder writes it again and again, and another builder takes it over once it has seen no change for
 * as long as the lease. Each goes by its own monotonic clock, from before its own write to after its own read: no
 * builder needs to know what time it is for another.
 *
 * A holder that cannot write it any more ends its run before that: at `stopAfter` of the lease it asks for it, and at
 * 0.8 nothing of the run lives (guard.ts).
 */

/** Parts of the lease since the start of the last write that got through. */
const stopAfter = 0.6;
/** How long after a sign of life the guard of a run kills it; the sign is given at most `writeLimit` late. */
export const guardAfter = 0.65;
/** How often a claim is written, and how long that may take to count. */
const writeEvery = 0.2;
const writeLimit = 0.15;

/** Says whether the bucket is `new` or has been there for a lease. */
const ageKey = "bucket";

/** A claim that is ours. */
export interface Claim {
  readonly repo: string;
  /** Grows with each claim of the repo. */
  readonly fence: number;
  readonly token: string;
  /** The run that is under way. */
  run: string | undefined;
  revision: number;
  /** When the last write that got through was started, by `performance.now()`. */
  since: number;
  isLost: boolean;
}

export interface ClaimEvents {
  /** Told when the claim of a run is lost, or cannot be written in time. */
  onLost: (claim: Claim) => void;
  /** Told of each write that got through. */
  onRenewed: (claim: Claim) => void;
}

interface ClaimsParts extends ClaimEvents {
  bucket: Bucket;
  home: string;
  /** Milliseconds. */
  lease: number;
  warn: (text: string) => void;
}

export class Claims {
  readonly #parts: ClaimsParts;
  readonly #held = new Map<string, Claim>();
  readonly #seen = new Map<string, Seen>();
  readonly #timer: NodeJS.Timeout;
  readonly #writing = new Set<Claim>();
  /** When we first saw that the bucket is a new one. */
  #newSince: number | undefined;

  constructor(parts: ClaimsParts) {
    this.#parts = parts;
    this.#timer = setInterval(() => this.renewAll(), (parts.lease * writeEvery) / 2);
  }

  get held(): ReadonlyMap<string, Claim> {
    return this.#held;
  }

  /** Take a repo's claim; undefined while somebody else has it. @throws {Failure} when the bus does not answer. */
  async take(repo: string): Promise<Claim | undefined> {
    const { home, lease } = this.#parts;
    const there = await this.read(repo);
    const now = performance.now();
    const seen = this.saw(repo, there.revision, now);
    if (judgeClaim(there.value, { seen, home, lease, now }) === "held") return undefined;
    if (!there.value && !(await this.mayCreate())) return undefined;
    const token = randomUUID();
    const since = performance.now();
    const fence = nextFence(there.value, Date.now());
    const revision = await this.put({ repo, fence, home, token }, there.revision);
    if (revision === undefined) return undefined;
    const claim: Claim = { repo, fence, token, run: undefined, revision, since, isLost: false };
    // it took so long that nobody knows whether it still counts
    if (performance.now() - since > lease * writeLimit) return undefined;
    this.#held.set(repo, claim);
    return claim;
  }

  /** What stands on the bus of a repo's claim; 0: nothing. */
  private async read(repo: string): Promise<{ value?: ClaimValue; revision: number }> {
    const entry = await this.#parts.bucket.get(keyOf(repo));
    if (!entry) return { revision: 0 };
    return { value: JSON.parse(entry.text) as ClaimValue, revision: entry.revision };
  }

  private async put(value: ClaimValue, revision: number): Promise<number | undefined> {
    return await this.#parts.bucket.put(keyOf(value.repo), JSON.stringify(value), revision);
  }

  /**
   * Whether a repo that nobody has claimed may be. In a bucket that was made a moment ago, since the bus has lost its
   * disk, say, a claim may be missing whose holder still runs: it writes it again within a lease, or ends its run.
   */
  private async mayCreate(): Promise<boolean> {
    const { bucket, lease, warn } = this.#parts;
    const entry = await bucket.get(ageKey);
    if (entry?.text === "old") return true;
    if (!entry && (await bucket.put(ageKey, "new", 0)) !== undefined)
      warn(
        `the bus is new, or has lost its disk: nothing starts before ${formatDuration(lease)} are over, in which ` +
          "builders write the claims of what they run",
      );
    if (!entry || this.#newSince === undefined) this.#newSince = performance.now();
    if (!entry || performance.now() - this.#newSince <= lease) return false;
    this.#newSince = undefined;
    return (await bucket.put(ageKey, "old", entry.revision)) !== undefined;
  }

  private saw(repo: string, revision: number, now: number): Seen {
    const before = this.#seen.get(repo);
    if (before?.revision === revision) return before;
    const seen = { revision, at: now };
    this.#seen.set(repo, seen);
    return seen;
  }

  /** Whether a claim still counts: it was written recently enough. */
  isValid(claim: Claim): boolean {
    return !claim.isLost && performance.now() - claim.since < this.#parts.lease * stopAfter;
  }

  /** Write what runs under a claim. @throws {Failure} */
  async begin(claim: Claim, run: string): Promise<boolean> {
    claim.run = run;
    return await this.write(claim);
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

  /** Give a claim back; others may take it at once. Whether that gets through or not, it is ours no more. */
  async release(claim: Claim): Promise<void> {
    this.forget(claim);
    if (claim.isLost) return;
    await this.settled(claim);
    const { repo, fence, revision } = claim;
    await this.put({ repo, fence }, revision);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  private forget(claim: Claim): void {
    if (this.#held.get(claim.repo) === claim) this.#held.delete(claim.repo);
  }

  private renewAll(): void {
    const { lease } = this.#parts;
    for (const claim of this.#held.values()) {
      const age = performance.now() - claim.since;
      if (age > lease * stopAfter) this.lose(claim);
      else if (age > lease * writeEvery && !this.#writing.has(claim))
        void this.write(claim).catch((error: unknown) =>
          this.#parts.warn(`the claim of ${claim.repo} cannot be written: ${messageOf(error)}`),
        );
    }
  }

  /** Write a claim again; false when it is lost. */
  private async write(claim: Claim): Promise<boolean> {
    const { home, lease } = this.#parts;
    const { repo, fence, token, run } = claim;
    await this.settled(claim);
    this.#writing.add(claim);
    try {
      for (;;) {
        const since = performance.now();
        const revision = await this.put({ repo, fence, home, token, run }, claim.revision);
        if (revision !== undefined) {
          claim.revision = revision;
          // an answer that comes late must not keep alive what is being ended
          if (performance.now() - since > lease * writeLimit || claim.isLost) return !claim.isLost;
          claim.since = since;
          this.#parts.onRenewed(claim);
          return true;
        }
        // a write whose answer was lost may have come through
        const there = await this.read(repo);
        if (there.value && there.value.token !== token) break;
        if (performance.now() - claim.since > lease * stopAfter) break;
        // the bus may have lost it: nobody else takes it yet, see mayCreate
        claim.revision = there.revision;
      }
      this.lose(claim);
      return false;
    } finally {
      this.#writing.delete(claim);
    }
  }

  private async settled(claim: Claim): Promise<void> {
    while (this.#writing.has(claim)) await sleep(10);
  }

  private lose(claim: Claim): void {
    if (claim.isLost) return;
    claim.isLost = true;
    this.forget(claim);
    this.#parts.onLost(claim);
  }
}

function keyOf(repo: string): string {
  return `claim.${nameOnBus(repo)}`;
}
