import { exitCodeOf, messageOf } from "../core/errors.ts";
import { commandFailure, ProcessOutput, type Shell, shellWith } from "../exec/exec.ts";
import type { Result } from "../log/format.ts";
import type { Output } from "./output.ts";
import { formatDuration } from "../core/units.ts";
import { reportStage } from "./stage-file.ts";

/** What a stage works with: its log, its commands, its time limit. */
export interface StageContext {
  /** A line into the log and onto the terminal. */
  readonly say: (line: string) => void;
  /** `$` in the run's folder and environment: what it prints goes to the log, and the stage's time limit holds. */
  readonly $: Shell;
  /** Aborted when the stage's time is up, or the build is ended. */
  signal: AbortSignal;
}

/** What a stage that succeeded leaves: a few words for the table; with `stop`, the stages after it are skipped. */
export interface Outcome {
  note?: string;
  /** Why the run ends here, without being a failure. */
  stop?: string;
  /** The commit that the checkout stands at. */
  sha?: string;
}

/** What a stage is going to do, or why there is nothing to do. */
export type StagePlan =
  | { skip: string }
  | {
      /** In words, for --dry-run: `npm ci`. */
      does: string;
      /** Find what the work needs, for --check: nothing of the repo is run. @throws {Failure} when something is missing or wrong. */
      needs?(): Promise<void>;
      work(stage: StageContext): Promise<Outcome | void>;
    };

/** How a stage ended. */
export interface StageResult {
  name: string;
  result: Result;
  seconds: number;
  /** Why it was skipped or failed, or what it did, in a few words. */
  note: string;
  outcome?: Outcome | undefined;
  /** What was thrown. */
  error?: unknown;
}

/** Where a run's commands run, and their complete environment. */
export interface RunContext {
  dir: string;
  env: Readonly<Record<string, string>>;
}

export interface StageLimits {
  /** Milliseconds that this stage may take. */
  timeout?: number | undefined;
  /** When the whole run must have ended; as performance.now() counts. */
  deadline?: number | undefined;
  /** Aborted when the build is ended from outside. */
  signal: AbortSignal;
}

/** Run one stage to its end, whatever that is: nothing is thrown. */
export async function runStage(
  name: string,
  makePlan: () => Promise<StagePlan>,
  context: RunContext,
  output: Output,
  limits: StageLimits,
): Promise<StageResult> {
  reportStage(name);
  const result = await work(name, makePlan, context, output, limits);
  reportStage(name, { ...result, note: output.mask(result.note) });
  return result;
}

async function work(
  name: string,
  makePlan: () => Promise<StagePlan>,
  context: RunContext,
  output: Output,
  { timeout = Number.POSITIVE_INFINITY, deadline = Number.POSITIVE_INFINITY, signal }: StageLimits,
): Promise<StageResult> {
  const started = performance.now();
  const limit = Math.min(timeout, deadline - started);
  const abort = new AbortController();
  const timer = Number.isFinite(limit)
    ? setTimeout(
        () => abort.abort(new Error("time limit")),
        Math.min(Math.max(0, limit), 2 ** 31 - 1),
      )
    : undefined;
  const onEnd = () => abort.abort(signal.reason);
  signal.addEventListener("abort", onEnd);
  if (signal.aborted) onEnd();
  const seconds = () => (performance.now() - started) / 1000;
  const say = (line: string) => output.line(name, line);
  try {
    const plan = await makePlan();
    if ("skip" in plan) return { name, result: "skipped", seconds: seconds(), note: plan.skip };
    const { dir: cwd, env } = context;
    const outcome = await plan.work({
      say,
      $: shellWith({ cwd, env, signal: abort.signal, onLine: say }),
      signal: abort.signal,
    });
    abort.signal.throwIfAborted();
    return {
      name,
      result: "ok",
      seconds: seconds(),
      note: outcome?.note ?? "",
      outcome: outcome ?? undefined,
    };
  } catch (error) {
    if (signal.aborted)
      return { name, result: "cancelled", seconds: seconds(), note: "ended from outside", error };
    if (abort.signal.aborted) {
      const what = timeout <= limit ? "its" : "the run's";
      const note = `took longer than ${what} time limit of ${formatDuration(timeout <= limit ? timeout : limit)} and was ended with all it had started`;
      say(note);
      return { name, result: "timeout", seconds: seconds(), note, error };
    }
    const note = describe(error);
    say(note);
    return {
      name,
      result: "failed",
      seconds: seconds(),
      note: output.mask(note.split("\n")[0] ?? ""),
      error,
    };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onEnd);
  }
}

/** Why a stage failed. What a command printed is in the log already, and the stage's name says which it was. */
function describe(error: unknown): string {
  if (!(error instanceof ProcessOutput) || !commandFailure(error)?.printed) return messageOf(error);
  const { exitCode, signal } = error;
  return signal ? `ended by ${signal}` : `exit code ${exitCode}; its lines are above`;
}

/** Write a stage's end into the log. */
export function markStage(output: Output, { name, result, seconds, note }: StageResult): void {
  output.mark({ kind: "stage", name, result, seconds, why: result === "ok" ? undefined : note });
}

/** Whether a run ends here. */
export function isBad({ result }: Pick<StageResult, "result">): boolean {
  return result !== "ok" && result !== "skipped";
}

/** A run's exit code after a stage: a refusal keeps its own; everything else that a stage ends with is 1. */
export function exitCodeAfter(failure: StageResult | undefined): 0 | 1 | 4 {
  if (!failure) return 0;
  return exitCodeOf(failure.error) === 4 ? 4 : 1;
}
