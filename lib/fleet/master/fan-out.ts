import { messageOf } from "../../core/errors.ts";
import type { Target } from "./list.ts";
import { pause } from "./send.ts";
import {
  type Outcome,
  type Result,
  type Rollout,
  servesCommit,
  type Transport,
} from "./transport.ts";

/** A run over the fleet: many slaves at once, in steps, each followed to its end. */

export interface FanOutOptions extends Rollout {
  transportFor: (target: Target) => Transport;
  /** The signed order for a slave, where orders are signed with a key. */
  orderFor?: ((target: Target) => string) | undefined;
  jobs: number;
  /** Follow every slave to its end. */
  wait: boolean;
  /** Ask each one first what it serves, and leave those alone that serve the commit. */
  onlyOthers?: boolean | undefined;
  /** How many are asked after each step, rising; the last is all of them. */
  batches: readonly number[];
  /** Milliseconds between two steps. */
  pause: number;
  /** The run stops once more than so many have failed; undefined: never. */
  maxFailures?: number | undefined;
  onOutcome?: (outcome: Outcome) => void;
  /** A step is done: how many were asked. */
  onStep?: (asked: number) => void;
}

/** Ask every target; the outcomes are in the order of the targets. */
export async function fanOut(
  targets: readonly Target[],
  options: FanOutOptions,
): Promise<Outcome[]> {
  const outcomes = new Map<Target, Outcome>();
  let failed = 0;
  const stopped = () =>
    options.signal?.aborted === true ||
    (options.maxFailures !== undefined && failed > options.maxFailures);

  function record(outcome: Outcome): void {
    outcomes.set(outcome.target, outcome);
    if (!outcome.ok) failed += 1;
    options.onOutcome?.(outcome);
  }
  async function ask(target: Target): Promise<void> {
    record(await updateOne(target, options));
  }

  let next = 0;
  for (const [step, end] of options.batches.entries()) {
    if (step > 0 && next < end && !stopped()) {
      options.onStep?.(next);
      await pause(options.pause, options.signal);
    }
    const worker = async () => {
      while (next < end && !stopped()) {
        const target = targets[next++];
        if (target) await ask(target);
      }
    };
    await Promise.all(Array.from({ length: Math.min(options.jobs, end - next) }, worker));
  }
  const why = options.signal?.aborted ? "the run was interrupted" : `${failed} failed before it`;
  const skipped = { ok: false, skipped: true, answer: "not asked", seconds: 0 };
  return targets.map(
    (target) => outcomes.get(target) ?? { target, ...skipped, error: `not asked: ${why}` },
  );
}

async function updateOne(target: Target, options: FanOutOptions): Promise<Outcome> {
  const started = performance.now();
  const result = await attempt().catch((error: unknown) => failure(messageOf(error)));
  return { target, ...result, seconds: (performance.now() - started) / 1000 };

  async function attempt(): Promise<Result> {
    const { sha, orderFor, wait } = options;
    const transport = options.transportFor(target);
    if (options.onlyOthers && (await servesCommit(transport, target, options)))
      return { ok: true, answer: "up to date", before: sha, sha };
    const job = await transport.start(target, options, orderFor?.(target));
    if (!wait) return { ok: true, answer: "accepted" };
    if (job === undefined)
      return failure("it accepted the request, but did not name a job to follow");
    return await transport.follow(target, job, options);
  }
}

function failure(error: string): Result {
  return { ok: false, answer: error, error };
}
