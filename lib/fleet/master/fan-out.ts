import { messageOf } from "../../core/errors.ts";
import { addressesOf, type Target } from "./list.ts";
import { type Answer, NoAnswer, pause, refusalOf, type Sender, wordsOf } from "./send.ts";

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
  /** The commit that all of them get, and its branch. */
  sha: string;
  branch?: string | undefined;
  /** The signed order for a slave, where orders are signed with a key. */
  orderFor?: ((target: Target) => string) | undefined;
  jobs: number;
  /** Follow every slave to its end. */
  wait: boolean;
  /** Ask each one first what it serves, and leave those alone that serve the commit. */
  onlyOthers?: boolean | undefined;
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
  sender: Sender,
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
    record(await updateOne(target, sender, options));
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

type Result = Omit<Outcome, "target" | "seconds">;

async function updateOne(target: Target, sender: Sender, options: FanOutOptions): Promise<Outcome> {
  const started = performance.now();
  const result = await attempt().catch((error: unknown) => failure(messageOf(error)));
  return { target, ...result, seconds: (performance.now() - started) / 1000 };

  async function attempt(): Promise<Result> {
    const { repo, sha, branch, orderFor } = options;
    if (options.onlyOthers && (await servesIt()))
      return { ok: true, answer: "up to date", before: sha, sha };
    const url = addressesOf(target).update({ repo, sha, branch });
    const answer = await sender.send(target, url, { order: orderFor?.(target) });
    const refusal = refusalOf(answer);
    if (refusal !== undefined) return failure(refusal);
    if (!options.wait) return { ok: true, answer: "accepted" };
    const job = answer.json?.["job"];
    if (typeof job !== "string") {
      return failure("it accepted the request, but did not name a job to follow");
    }
    return await follow(job);
  }

  async function servesIt(): Promise<boolean> {
    const answer = await sender.send(target, addressesOf(target).status({ repo: options.repo }));
    const { sha, branch, pending } = answer.json ?? {};
    if (answer.status !== 200 || pending === true) return false;
    return sha === options.sha && (options.branch === undefined || branch === options.branch);
  }

  async function follow(job: string): Promise<Result> {
    const end = performance.now() + options.waitLimit;
    for (;;) {
      const asked = performance.now();
      const answer = await askJob(job, end);
      // it was followed for longer than the slave remembers jobs
      if (answer.status === 404 && (await servesIt()))
        return { ok: true, answer: "done", sha: options.sha };
      const refusal = refusalOf(answer);
      if (refusal !== undefined) return failure(refusal);
      const { state, before, sha, error } = answer.json ?? {};
      const known = { before: wordsOf(before), sha: wordsOf(sha) };
      if (state === "failed") return { ...failure(wordsOf(error) ?? "it failed"), ...known };
      if (state === "done") {
        const wrong = `it serves ${known.sha ?? "nothing"}, not ${options.sha}`;
        if (known.sha !== options.sha) return { ...failure(wrong), ...known };
        return { ok: true, answer: known.sha === known.before ? "up to date" : "done", ...known };
      }
      if (performance.now() > end) {
        return failure(`still ${wordsOf(state) ?? "at work"} after ${options.waitLimit / 1000} s`);
      }
      await rest(asked);
    }
  }

  /** Ask until there is an answer: a slave that accepted a job finishes it, also when it restarts meanwhile. */
  async function askJob(job: string, end: number): Promise<Answer> {
    for (;;) {
      const asked = performance.now();
      const url = addressesOf(target).job(job, { wait: `${maxWait / 1000}s` });
      try {
        return await sender.send(target, url, { patience: maxWait });
      } catch (error) {
        const over = performance.now() > end || options.signal?.aborted;
        if (!(error instanceof NoAnswer) || over) throw error;
      }
      await rest(asked);
    }
  }

  /** One that does not delay its answer must not be asked without end. */
  async function rest(asked: number): Promise<void> {
    const left = minPause - (performance.now() - asked);
    if (left > 0) await pause(left, options.signal);
  }
}

/** How long a slave is asked to delay its answer about a job, in ms; short, so that a lost connection is noticed soon. */
const maxWait = 5000;
const minPause = 250;

function failure(error: string): Result {
  return { ok: false, answer: error, error };
}
