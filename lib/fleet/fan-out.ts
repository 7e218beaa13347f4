import { messageOf } from "../core/errors.ts";
import { pause, refusalOf, withRetries, wordsOf } from "./answer.ts";
import { addressesOf, type Target } from "./list.ts";
import type { Sender } from "./send.ts";

/** A run over the fleet: many at once, in steps, each slave to its end. */

/** What became of one slave. */
export interface Outcome {
  target: Target;
  ok: boolean;
  /** For the table: `done`, `accepted`, or why not. */
  answer: string;
  before?: string | undefined;
  sha?: string | undefined;
  /** Seconds from the first request to the last answer. */
  seconds: number;
  error?: string | undefined;
  /** It was never asked, since the run was stopped before. */
  skipped?: boolean;
}

export interface FanOutOptions {
  repo: string;
  sha?: string | undefined;
  jobs: number;
  retries: number;
  /** Follow every slave to its end, and pin the commit to the first one's. */
  wait: boolean;
  /** Milliseconds after which a slave that is still at work is given up. */
  waitLimit: number;
  /** How many are asked after each step, rising; the last is all of them. */
  batches: readonly number[];
  /** Milliseconds between two steps. */
  pause: number;
  /** The run stops once more than so many have failed; undefined: never. */
  maxFailures?: number | undefined;
  signal?: AbortSignal | undefined;
  onOutcome?: (outcome: Outcome) => void;
  /** A step is done: how many were asked, how many of them failed. */
  onStep?: (asked: number, failed: number) => void;
}

/** Ask every target; the outcomes are in the order of the targets. */
export async function fanOut(
  targets: readonly Target[],
  sender: Sender,
  options: FanOutOptions,
): Promise<Outcome[]> {
  const outcomes = new Map<Target, Outcome>();
  let failed = 0;
  let sha = options.sha;
  const stopped = () =>
    options.signal?.aborted === true ||
    (options.maxFailures !== undefined && failed > options.maxFailures);

  function record(outcome: Outcome): void {
    outcomes.set(outcome.target, outcome);
    if (!outcome.ok) failed += 1;
    options.onOutcome?.(outcome);
  }
  async function ask(target: Target): Promise<void> {
    record(await updateOne(target, sender, { ...options, sha }));
  }

  let next = 0;
  // the first slave that ends well fixes the commit for all the others
  while (options.wait && sha === undefined && next < targets.length && !stopped()) {
    const target = targets[next++];
    if (!target) break;
    await ask(target);
    sha = outcomes.get(target)?.sha;
  }
  for (const [step, end] of options.batches.entries()) {
    if (step > 0 && next < end && !stopped()) {
      options.onStep?.(next, failed);
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
  return targets.map((target) => {
    const why = options.signal?.aborted ? "the run was interrupted" : `${failed} failed before it`;
    return (
      outcomes.get(target) ?? {
        target,
        ok: false,
        skipped: true,
        answer: "not asked",
        seconds: 0,
        error: `not asked: ${why}`,
      }
    );
  });
}

type OneOptions = Pick<FanOutOptions, "repo" | "sha" | "retries" | "wait" | "waitLimit" | "signal">;

async function updateOne(target: Target, sender: Sender, options: OneOptions): Promise<Outcome> {
  const started = performance.now();
  const result = await attempt().catch((error: unknown) => failure(messageOf(error)));
  return { target, ...result, seconds: (performance.now() - started) / 1000 };

  async function attempt(): Promise<Omit<Outcome, "target" | "seconds">> {
    const addresses = addressesOf(target);
    const { repo, sha } = options;
    const answer = await withRetries(() => sender.get(addresses.update({ repo, sha })), options);
    const refusal = refusalOf(answer);
    if (refusal !== undefined) return failure(refusal);
    if (!options.wait) return { ok: true, answer: "accepted" };
    const job = answer.json?.["job"];
    if (typeof job !== "string") {
      return failure("it takes the request, but names no job that could be followed");
    }
    return await follow(job);
  }

  async function follow(job: string): Promise<Omit<Outcome, "target" | "seconds">> {
    const addresses = addressesOf(target);
    const end = performance.now() + options.waitLimit;
    for (;;) {
      const asked = performance.now();
      const url = addresses.job(job, { wait: `${heldBack / 1000}s` });
      const answer = await withRetries(() => sender.get(url, heldBack), options);
      const refusal = refusalOf(answer);
      if (refusal !== undefined) return failure(refusal);
      const { state, before, sha, error } = answer.json ?? {};
      const known = { before: wordsOf(before), sha: wordsOf(sha) };
      if (state === "failed") return { ...failure(wordsOf(error) ?? "it failed"), ...known };
      if (state === "done") {
        if (options.sha !== undefined && known.sha !== options.sha) {
          return {
            ...failure(`it serves ${known.sha ?? "nothing"}, not ${options.sha}`),
            ...known,
          };
        }
        return { ok: true, answer: known.sha === known.before ? "up to date" : "done", ...known };
      }
      if (performance.now() > end) {
        return failure(`still ${wordsOf(state) ?? "at work"} after ${options.waitLimit / 1000} s`);
      }
      // one that does not hold its answer back must not be asked without end
      const rest = leastPause - (performance.now() - asked);
      if (rest > 0) await pause(rest, options.signal);
    }
  }
}

/** How long a slave is asked to hold back its answer about a job; short, so that a cut line is noticed soon. */
const heldBack = 5000;
const leastPause = 250;

function failure(error: string): Omit<Outcome, "target" | "seconds"> {
  return { ok: false, answer: error, error };
}
