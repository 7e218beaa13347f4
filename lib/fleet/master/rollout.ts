import type { KeyObject } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Failure, messageOf } from "../../core/errors.ts";
import { forEachOf } from "../../core/pool.ts";
import { allowedSkew, contentOf, digestOf, seal } from "../letter.ts";
import type { OrderState, Report } from "../report.ts";
import type { Target } from "./list.ts";

/** A run over the fleet: many slaves at once, in steps, each followed to its end, however it is reached. */

/** How slaves are reached. What they refuse, and what cannot be done, is an error with the reason. */
export interface Transport {
  /** What letters are signed with. */
  readonly key: KeyObject | undefined;
  /** Milliseconds in which an order counts that nobody has taken. */
  readonly goodFor: number;
  /** What a slave serves: a repo, or with none all of them. */
  report(target: Target, question: { repo?: string | undefined; verify?: boolean }): Promise<Report>;
  /** Hand an order over, for this slave or for many. */
  send(target: Target, repo: string, order: string): Promise<void>;
  /**
   * What is known of an order, again and again, whenever there may be news; an error is what keeps us from knowing.
   * @throws {Failure} when there is no use in going on
   */
  follow(target: Target, repo: string, order: string): AsyncIterable<OrderState | Error | undefined>;
}

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

type Result = Omit<Outcome, "target" | "seconds">;

/** The commit that all of them get, and its branch. */
export interface Commit {
  sha: string;
  branch?: string | undefined;
}

/** Write a letter: good for as long as the way to its reader needs, and saying whose signature its answer must have. */
export function letterFor(
  { key, goodFor }: Pick<Transport, "key" | "goodFor">,
  { slave, key: slaveKey }: Pick<Target, "slave" | "key">,
  content: Record<string, unknown> & { kind: "order" | "question"; at?: number },
): string {
  const at = content.at ?? Date.now();
  const until = at + (content.kind === "order" ? goodFor : allowedSkew);
  const own = slaveKey === undefined ? undefined : true;
  return seal({ own, ...content, to: slave, at, until }, key);
}

/** Whether a slave says that it serves what it should. */
export async function servesCommit(
  transport: Transport,
  target: Target,
  repo: string,
  { sha, branch }: Commit,
): Promise<boolean> {
  try {
    const { repos } = await transport.report(target, { repo });
    const served = repos.find((each) => each.repo === repo);
    return served?.sha === sha && served.pending !== true && (branch === undefined || served.branch === branch);
  } catch (error) {
    if (error instanceof Failure) return false;
    throw error;
  }
}

/** Pure: how an order ended, if it did. */
export function resultOf(
  order: { digest: string; at: number },
  told: OrderState | undefined,
  { sha: desired }: Commit,
): Result | undefined {
  if (told === undefined) return undefined;
  const { state, before, sha, error = "it failed" } = told;
  const failed = (why: string): Result => ({ ...failure(why), before, sha });
  const isOther = told.digest !== order.digest;
  // one that we did not write, or to another name of this slave: it may want the same
  if (isOther && told.at < order.at) return undefined;
  if (isOther && state === "done" && sha !== desired) return failed("a newer order took its place");
  if (state === "failed" || state === "refused") return failed(error);
  if (state !== "done") return undefined;
  if (sha !== desired) return failed(`it serves ${sha ?? "nothing"}, not ${desired}`);
  return { ok: true, answer: sha === before ? "up to date" : "done", before, sha };
}

export interface FanOutOptions extends Commit {
  repo: string;
  transportFor: (target: Target) => Transport;
  /** The order for a slave. */
  orderFor: (target: Target) => string;
  jobs: number;
  /** Follow every slave to its end. */
  wait: boolean;
  /** Milliseconds after which a slave that is still at work counts as failed. */
  waitLimit: number;
  /** Ask each one first what it serves, and leave those alone that serve the commit. */
  onlyOthers?: boolean | undefined;
  /** How many are asked after each step, rising; the last is all of them. */
  batches: readonly number[];
  /** Milliseconds between two steps. */
  pause: number;
  /** The run stops once more than so many have failed; undefined: never. */
  maxFailures?: number | undefined;
  signal: AbortSignal;
  onOutcome?: (outcome: Outcome) => void;
  /** A step is done: how many were asked. */
  onStep?: (asked: number) => void;
}

/** Ask every target; the outcomes are in the order of the targets. */
export async function fanOut(targets: readonly Target[], options: FanOutOptions): Promise<Outcome[]> {
  const { signal, maxFailures } = options;
  const outcomes = new Map<Target, Outcome>();
  let failed = 0;
  const stopped = () => signal.aborted || (maxFailures !== undefined && failed > maxFailures);

  async function ask(target: Target): Promise<void> {
    if (stopped()) return;
    const started = performance.now();
    const result = await updateOne(target, options).catch((error: unknown) => failure(messageOf(error)));
    const outcome = { target, ...result, seconds: (performance.now() - started) / 1000 };
    outcomes.set(target, outcome);
    if (!outcome.ok) failed += 1;
    options.onOutcome?.(outcome);
  }

  let next = 0;
  for (const [step, end] of options.batches.entries()) {
    if (step > 0 && !stopped()) {
      options.onStep?.(next);
      await pause(options.pause, signal);
    }
    await forEachOf(targets.slice(next, end), options.jobs, ask);
    next = end;
  }
  const why = signal.aborted ? "the run was interrupted" : `${failed} failed before it`;
  const skipped = { ok: false, skipped: true, answer: "not asked", seconds: 0 };
  return targets.map((target) => outcomes.get(target) ?? { target, ...skipped, error: `not asked: ${why}` });
}

/** The one way of an order: handed over, then followed until the slave says what became of it. */
async function updateOne(target: Target, options: FanOutOptions): Promise<Result> {
  const { repo, sha, wait, waitLimit, signal } = options;
  const transport = options.transportFor(target);
  if (options.onlyOthers && (await servesCommit(transport, target, repo, options)))
    return { ok: true, answer: "up to date", before: sha, sha };
  const order = options.orderFor(target);
  await transport.send(target, repo, order);
  if (!wait) return { ok: true, answer: "accepted" };
  const started = performance.now();
  const sent = { digest: digestOf(order), at: contentOf(order).at };
  for await (const told of transport.follow(target, repo, order)) {
    const state = told instanceof Error ? undefined : told;
    const result = resultOf(sent, state, options);
    if (result) return result;
    if (signal.aborted) break;
    if (performance.now() - started <= waitLimit) continue;
    const at = state?.digest === sent.digest ? state.state : "at work";
    throw told instanceof Error ? told : new Failure(`still ${at} after ${waitLimit / 1000} s`);
  }
  throw new Failure("interrupted");
}

function failure(error: string): Result {
  return { ok: false, answer: error, error };
}

/** Wait, but not for longer than the run lasts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal }).catch(() => {});
}
