import { setTimeout as sleep } from "node:timers/promises";
import { cleanLine } from "../../core/clean.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import type { Target } from "./list.ts";

/**
 * A run over the fleet: many slaves at once, in steps, each followed to its end; the same over HTTP (by-http.ts) and
 * over a bus (by-bus.ts).
 */

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

export type Result = Omit<Outcome, "target" | "seconds">;

/** What a run is about. */
export interface Rollout {
  repo: string;
  /** The commit that all of them get, and its branch. */
  sha: string;
  branch?: string | undefined;
  /** Milliseconds after which a slave that is still at work counts as failed. */
  waitLimit: number;
  signal?: AbortSignal | undefined;
}

/** How a slave is reached. What it refuses, and what cannot be done, is an error with the reason. */
export interface Transport {
  /** What it serves: a repo, or with none all of them and the machine. */
  status(
    target: Target,
    query: { repo?: string | undefined; verify?: string | undefined },
  ): Promise<Record<string, unknown>>;
  /** Have it begin; returns what to follow, if it can be followed. */
  start(target: Target, rollout: Rollout, order: string | undefined): Promise<string | undefined>;
  /** Wait for its end. */
  follow(target: Target, job: string, rollout: Rollout): Promise<Result>;
}

/** Whether a slave says that it serves what it should. */
export async function servesCommit(
  transport: Transport,
  target: Target,
  { repo, sha: wanted, branch: wantedBranch }: Rollout,
): Promise<boolean> {
  try {
    const { sha, branch, pending } = await transport.status(target, { repo });
    if (pending === true) return false;
    return sha === wanted && (wantedBranch === undefined || branch === wantedBranch);
  } catch (error) {
    if (error instanceof Failure) return false;
    throw error;
  }
}

/** Pure: how a job ended, if it did. */
export function resultOf(
  state: string | undefined,
  { before, sha, error }: Pick<Result, "before" | "sha" | "error">,
  wanted: Rollout,
): Result | undefined {
  const known = { before, sha };
  const failed = (why: string): Result => ({ ...failure(why), ...known });
  if (state === "failed" || state === "refused") return failed(error ?? "it failed");
  if (state !== "done") return undefined;
  if (sha !== wanted.sha) return failed(`it serves ${sha ?? "nothing"}, not ${wanted.sha}`);
  return { ok: true, answer: sha === before ? "up to date" : "done", ...known };
}

export function tooLong(state: string | undefined, { waitLimit }: Rollout): Failure {
  return new Failure(`still ${state ?? "at work"} after ${waitLimit / 1000} s`);
}

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
export async function fanOut(targets: readonly Target[], options: FanOutOptions): Promise<Outcome[]> {
  const outcomes = new Map<Target, Outcome>();
  let failed = 0;
  const stopped = () =>
    options.signal?.aborted === true || (options.maxFailures !== undefined && failed > options.maxFailures);

  async function ask(target: Target): Promise<void> {
    const outcome = await updateOne(target, options);
    outcomes.set(target, outcome);
    if (!outcome.ok) failed += 1;
    options.onOutcome?.(outcome);
  }

  let next = 0;
  for (const [step, end] of options.batches.entries()) {
    if (step > 0 && !stopped()) {
      options.onStep?.(next);
      await pause(options.pause, options.signal);
    }
    await atOnce(targets.slice(next, end), { jobs: options.jobs, isOver: stopped }, ask);
    next = end;
  }
  const why = options.signal?.aborted ? "the run was interrupted" : `${failed} failed before it`;
  const skipped = { ok: false, skipped: true, answer: "not asked", seconds: 0 };
  return targets.map((target) => outcomes.get(target) ?? { target, ...skipped, error: `not asked: ${why}` });
}

/** Do something with every target, so many at once, in their order, until all are done or it is over. */
export async function atOnce(
  targets: readonly Target[],
  { jobs, isOver }: { jobs: number; isOver: () => boolean },
  work: (target: Target) => Promise<void>,
): Promise<void> {
  const left = targets.values();
  const worker = async () => {
    while (!isOver()) {
      const { value: target } = left.next();
      if (target === undefined) return;
      await work(target);
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, targets.length) }, worker));
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
    if (job === undefined) return failure("it accepted the request, but did not name a job to follow");
    return await transport.follow(target, job, options);
  }
}

function failure(error: string): Result {
  return { ok: false, answer: error, error };
}

/** A stranger's word for the table: one line, without characters that steer a terminal or turn its text round. */
export function wordsOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return cleanLine(value.slice(0, 500));
}

/** Wait, but not for longer than the run lasts. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return sleep(ms, undefined, signal ? { signal } : {}).catch(() => {});
}
