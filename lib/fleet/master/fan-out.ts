import { messageOf } from "../../core/errors.ts";
import { addressesOf, type Target } from "./list.ts";
import { pause, refusalOf, type Send, wordsOf } from "./send.ts";

/** A run over the fleet: many slaves at once, in steps, each followed to its end. */

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
  /** Follow every slave to its end, and pin the commit to the first one's. */
  wait: boolean;
  /** Milliseconds after which a slave that is still at work counts as failed. */
  waitLimit: number;
  /** How many are asked after each step, rising; the last is all of them. */
  batches: readonly number[];
  /** Milliseconds between two steps. */
  pause: number;
  /** The run stops once more than so many have failed; undefined: never. */
  maxFailures?: number | undefined;
  signal?: AbortSignal | undefined;
  onOutcome?: (outcome: Outcome) => void;
  /** A step is done: how many were asked. */
  onStep?: (asked: number) => void;
}

/** Ask every target; the outcomes are in the order of the targets. */
export async function fanOut(
  targets: readonly Target[],
  send: Send,
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
    record(await updateOne(target, send, { ...options, sha }));
  }

  let next = 0;
  // the first slave that succeeds fixes the commit for all the others
  while (options.wait && sha === undefined && next < targets.length && !stopped()) {
    const target = targets[next++];
    if (!target) break;
    await ask(target);
    sha = outcomes.get(target)?.sha;
  }
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

type OneOptions = Pick<FanOutOptions, "repo" | "sha" | "wait" | "waitLimit" | "signal">;

async function updateOne(target: Target, send: Send, options: OneOptions): Promise<Outcome> {
  const started = performance.now();
  const result = await attempt().catch((error: unknown) => failure(messageOf(error)));
  return { target, ...result, seconds: (performance.now() - started) / 1000 };

  async function attempt(): Promise<Omit<Outcome, "target" | "seconds">> {
    const addresses = addressesOf(target);
    const { repo, sha } = options;
    const answer = await send(addresses.update({ repo, sha }));
    const refusal = refusalOf(answer);
    if (refusal !== undefined) return failure(refusal);
    if (!options.wait) return { ok: true, answer: "accepted" };
    const job = answer.json?.["job"];
    if (typeof job !== "string") {
      return failure("it accepted the request, but did not name a job to follow");
    }
    return await follow(job);
  }

  async function follow(job: string): Promise<Omit<Outcome, "target" | "seconds">> {
    const addresses = addressesOf(target);
    const end = performance.now() + options.waitLimit;
    for (;;) {
      const asked = performance.now();
      const url = addresses.job(job, { wait: `${maxWait / 1000}s` });
      const answer = await send(url, maxWait);
      const refusal = refusalOf(answer);
      if (refusal !== undefined) return failure(refusal);
      const { state, before, sha, error } = answer.json ?? {};
      const known = { before: wordsOf(before), sha: wordsOf(sha) };
      if (state === "failed") return { ...failure(wordsOf(error) ?? "it failed"), ...known };
      if (state === "done") {
        const wrong = `it serves ${known.sha ?? "nothing"}, not ${options.sha}`;
        if (options.sha !== undefined && known.sha !== options.sha)
          return { ...failure(wrong), ...known };
        return { ok: true, answer: known.sha === known.before ? "up to date" : "done", ...known };
      }
      if (performance.now() > end) {
        return failure(`still ${wordsOf(state) ?? "at work"} after ${options.waitLimit / 1000} s`);
      }
      // one that does not delay its answer must not be asked without end
      const rest = minPause - (performance.now() - asked);
      if (rest > 0) await pause(rest, options.signal);
    }
  }
}

/** How long a slave is asked to delay its answer about a job, in ms; short, so that a lost connection is noticed soon. */
const maxWait = 5000;
const minPause = 250;

function failure(error: string): Omit<Outcome, "target" | "seconds"> {
  return { ok: false, answer: error, error };
}
