import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { overlook, readHead } from "../git/checkout.ts";
import { atEnd } from "../core/at-exit.ts";
import { exitCodeOf, messageOf } from "../core/errors.ts";
import { acquireLock } from "../files/lock.ts";
import type { Result } from "../log/format.ts";
import { shortRef } from "../core/names.ts";
import { createOutput, type Output } from "../run/output.ts";
import { type StagePlan, runStage, type StageResult } from "../run/stage.ts";
import type { RunSummary } from "../run/report.ts";
import type { Terminal } from "../cli/terminal.ts";
import { type BuildConfig, readBuildConfig } from "./config.ts";
import { isPull, planStages, type Stage } from "./plan.ts";
import { type PlanOptions, type Prepared, prepare } from "./prepare.ts";
import { type LastBuild, readLastBuild, writeLastBuild } from "./record.ts";
import type { BuildContext } from "./stage.ts";
import { lookAt } from "./stages.ts";

export interface BuildOptions extends PlanOptions {
  /** Do nothing when the last good build was of the same commit. */
  ifChanged: boolean;
  /** Wait for another build of the folder to end. */
  wait: boolean;
  terminal: Terminal;
  signal: AbortSignal;
}

/** How a build ended. */
export interface BuildResult extends RunSummary {
  dir: string;
  ref?: string | undefined;
  sha?: string | undefined;
}

/**
 * Build a folder: run its stages in their order, up to the first that fails; all they print goes to the log.
 * @throws {UsageError} when it cannot begin; then nothing was touched.
 * @throws {Busy} when another build of the folder is under way.
 */
export async function build(options: BuildOptions): Promise<BuildResult> {
  const started = performance.now();
  const prepared = await prepare(options);
  const { run, state } = prepared.context;
  await mkdir(state, { recursive: true });
  // Beside the taking of the lock, unless that may last: what a build that ends at this very moment
  // changes does no harm, at worst its commit is built again.
  const early = options.wait ? undefined : lookFirst(options, prepared);
  early?.catch(() => {}); // told below, once there is a lock to release
  const lock = await acquireLock(join(state, "build.lock"), {
    what: `build ${run}`,
    wait: options.wait,
    signal: options.signal,
  });
  try {
    return await buildAlone(
      options,
      prepared,
      started,
      await (early ?? lookFirst(options, prepared)),
    );
  } finally {
    lock.release();
  }
}

/** What a build sees before it begins. */
interface Seen {
  /** The last build of all stages. */
  recorded: LastBuild | undefined;
  /** Do nothing when the remote is at this commit. */
  unlessAt: string | undefined;
  /** Start what the pull can do before its turn. */
  begin: (signal: AbortSignal) => void;
  /** What a stage has to do; of the pull it is known already. */
  look: (stage: Stage, at: BuildContext) => Promise<StagePlan>;
  /** The full name of the branch or tag, as far as it is known. */
  ref: string | undefined;
}

/** What is wrong with the wish itself, or a script that is missing, shows before anything is touched. */
async function lookFirst(options: BuildOptions, { context, stages }: Prepared): Promise<Seen> {
  const head = context.checkout && readHead(context.checkout).catch(() => undefined);
  const recorded = await readLastBuild(context.state);
  const last = options.ifChanged && !options.force ? recorded : undefined;
  const unlessAt = last?.good ? last.sha : undefined;
  const target = { ref: options.ref, sha: options.sha, unlessAt };
  const plans = stages
    .filter((stage) => isPull(stage) || isScript(stage))
    .map(async (stage) => [stage, await lookAt(stage, context, target)] as const);
  const pull = (await Promise.all(plans)).find(([stage]) => isPull(stage))?.[1];
  const branch = (await head)?.branch;
  return {
    recorded,
    unlessAt,
    begin: (signal) => pull && "does" in pull && pull.begin?.(signal),
    look: async (stage, at) => (isPull(stage) && pull) || lookAt(stage, at, target),
    ref: options.ref ?? (branch === undefined ? undefined : `refs/heads/${branch}`),
  };
}

/** What a run has come to so far. */
interface Progress {
  results: StageResult[];
  sha?: string | undefined;
  /** Why the stages that are left have nothing to do. */
  stopped?: string | undefined;
  failure?: StageResult;
  /** What is wrong with a build.yml that was pulled. */
  error?: unknown;
}

async function buildAlone(
  options: BuildOptions,
  prepared: Prepared,
  started: number,
  { recorded, unlessAt, begin, look, ref }: Seen,
): Promise<BuildResult> {
  begin(options.signal);
  const { run, dir, checkout, state } = prepared.context;
  if (checkout) await overlook(checkout, ["/logs.txt", "/logs.txt.*"]);
  const { HOOK_EVENT: event = "manual", HOOK_REPO: repo } = process.env;
  const output = createOutput(join(dir, "logs.txt"), run, options.terminal);
  output.mark({ kind: "start", event, ref: ref && shortRef(ref), sha: options.sha, repo });
  // a run that finds nothing new shall leave no trace
  if (unlessAt === undefined) await output.open();
  let finished = false;
  const finish = async (result: Result, code: number, why?: string) => {
    // a signal and the work itself may come to an end at once
    if (finished) return;
    finished = true;
    await output.open();
    output.mark({ kind: "end", result, code, seconds: (performance.now() - started) / 1000, why });
    await output.close();
  };
  const forget = atEnd(() => finish("cancelled", 1, "ended by a signal"));
  const ended = (result: BuildResult["result"], code: number): BuildResult => {
    const seconds = (performance.now() - started) / 1000;
    return { run, dir, ref, sha: progress.sha, result, code, seconds, stages: progress.results };
  };

  const progress = await runStages(options, prepared, output, started, look);
  const { failure, error, stopped, sha } = progress;
  forget();
  if (stopped === "unchanged") return ended("unchanged", 0);
  const result: Result = failure?.result ?? (error === undefined ? "ok" : "failed");
  const code = failure ? codeOf(failure) : error === undefined ? 0 : (exitCodeOf(error) ?? 1);
  if (error !== undefined) output.line("build", messageOf(error));
  const why = failure ? `${failure.name}: ${failure.note}` : firstLine(error);
  await finish(result, code, why && output.mask(why));
  const complete = stopped === undefined && options.only.length === 0 && !options.from;
  const known = recorded?.good === true && code === 0 && recorded.sha === sha;
  if (complete && sha !== undefined && !known)
    await writeLastBuild(state, { run, sha, ref, good: code === 0 });
  if (error !== undefined && exitCodeOf(error) === undefined) throw error;
  return ended(result, code);
}

async function runStages(
  options: BuildOptions,
  prepared: Prepared,
  output: Output,
  started: number,
  look: Seen["look"],
): Promise<Progress> {
  let { context, config, stages } = prepared;
  const progress: Progress = { results: [], sha: options.sha };
  const take = (fresh: BuildConfig) => {
    config = fresh;
    output.hide(config.secrets);
    context = { ...prepared.context, env: { ...prepared.context.env, ...config.env } };
  };
  take(config);
  const limits = (name: string) => ({
    timeout: Object.hasOwn(config.timeout.stages, name) ? config.timeout.stages[name] : undefined,
    deadline: config.timeout.run === undefined ? undefined : started + config.timeout.run,
    signal: options.signal,
  });
  for (let index = 0; index < stages.length; index++) {
    const stage = stages[index] as Stage;
    const { name } = stage;
    if (progress.stopped !== undefined) {
      progress.results.push({ name, result: "skipped", seconds: 0, note: progress.stopped });
      continue;
    }
    const result = await runStage(name, () => look(stage, context), context, output, limits(name));
    progress.results.push(result);
    progress.sha = result.outcome?.sha ?? progress.sha;
    progress.stopped = result.outcome?.stop;
    if (progress.stopped === "unchanged") return progress;
    await output.open();
    markStage(output, result);
    if (result.result !== "ok" && result.result !== "skipped") {
      return { ...progress, failure: result };
    }
    if (!isPull(stage) || progress.stopped !== undefined) continue;
    try {
      // what was pulled may bring another build.yml
      take(await readBuildConfig(context.dir));
      stages = [stage, ...planStages(config, options).filter(({ name }) => name !== "pull")];
    } catch (error) {
      return { ...progress, error };
    }
  }
  return progress;
}

function isScript({ name, kind }: Stage): boolean {
  return kind === "built-in" && (name === "downloads" || name === "uploads");
}

function firstLine(error: unknown): string | undefined {
  return error === undefined ? undefined : messageOf(error).split("\n")[0];
}

function markStage(output: Output, { name, result, seconds, note }: StageResult): void {
  const bad = result !== "ok";
  output.mark({ kind: "stage", name, result, seconds, why: bad ? note : undefined });
}

/** A refusal keeps its own exit code; everything else that a stage ends with is 1. */
function codeOf({ error }: StageResult): number {
  return exitCodeOf(error) === 4 ? 4 : 1;
}
