import { Failure } from "../../core/errors.ts";
import type { Target } from "./list.ts";

/** How slaves are reached, and what becomes of one: the same over HTTP (by-http.ts) and over a bus (by-bus.ts). */

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
  const failed = (why: string): Result => ({ ok: false, answer: why, error: why, ...known });
  if (state === "failed" || state === "refused") return failed(error ?? "it failed");
  if (state !== "done") return undefined;
  if (sha !== wanted.sha) return failed(`it serves ${sha ?? "nothing"}, not ${wanted.sha}`);
  return { ok: true, answer: sha === before ? "up to date" : "done", ...known };
}

export function tooLong(state: string | undefined, { waitLimit }: Rollout): Failure {
  return new Failure(`still ${state ?? "at work"} after ${waitLimit / 1000} s`);
}
