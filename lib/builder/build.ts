import { join } from "node:path";
import type { Terminal } from "../core/terminal.ts";
import { exitCodeOf, messageOf } from "../core/errors.ts";
import { shortRef } from "../core/names.ts";
import { acquireLock } from "../files/lock.ts";
import { excludeFromGit } from "../git/checkout.ts";
import { createOutput, type Output, type RunLog, startRun } from "../run/output.ts";
import type { RunSummary } from "../run/report.ts";
import {
  exitCodeAfter,
  isBad,
  markStage,
  runStage,
  type StagePlan,
  type StageResult,
} from "../run/stage.ts";
import type { Target } from "./branch.ts";
import { type BuildConfig, readBuildConfig } from "./config.ts";
import {
  type BuildContext,
  type BuildRequest,
  type Found,
  openContext,
  readFolder,
  readStages,
  withVariables,
  writeLastBuild,
} from "./context.ts";
import { isPull, selectStages, type Stage } from "./select.ts";
import { planStage } from "./stages.ts";

export { readBuildConfig } from "./config.ts";
export { checkBuild, planBuild } from "./preview.ts";

export interface BuildOptions extends BuildRequest {
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
  const context = await openContext(options);
  // a wrong request or build.yml is refused before even the lock file is made
  await readStages(context, options);
  const { run, dir, checkout, state } = context;
  const { wait, signal } = options;
  const lock = await acquireLock(join(state, "build.lock"), { what: `build ${run}`, wait, signal });
  try {
    const found = await readFolder(context, options);
    const { head, last } = found;
    const skipIfAt =
      options.ifChanged && !options.force && last?.good === true ? last.sha : undefined;
    const target = { ref: options.ref, sha: options.sha, skipIfAt };
    const pull = await planAhead(found, context, target);

    if (checkout) await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
    const ref = options.ref ?? (head?.current && `refs/heads/${head.current}`);
    const output = createOutput(join(dir, "logs.txt"), run, options.terminal);
    const start = { event: "manual", ref: ref && shortRef(ref), sha: options.sha };
    const log = startRun(output, start, started);
    if (skipIfAt === undefined) await output.open();
    const progress = await runStages(options, context, found, output, started, (stage, now) =>
      isPull(stage) ? pull : planStage(stage, now, target, head),
    );

    const { sha, results } = progress;
    const { result, code } = await endRun(log, output, progress);
    const complete =
      progress.stopped === undefined && options.only.length === 0 && options.from === undefined;
    const known = last?.good === true && code === 0 && last.sha === sha;
    if (complete && sha !== undefined && !known)
      await writeLastBuild(state, { run, sha, ref, good: code === 0 });
    if (progress.error !== undefined && exitCodeOf(progress.error) === undefined)
      throw progress.error;
    const seconds = (performance.now() - started) / 1000;
    return { run, dir, ref, sha, result, code, seconds, stages: results };
  } finally {
    lock.release();
  }
}

/**
 * The plan of the pull, the only stage whose plan does not depend on the stages before it. The scripts that
 * other stages call are looked for, too: what is missing shows before anything is done.
 */
async function planAhead(
  { stages, head }: Found,
  context: BuildContext,
  target: Target,
): Promise<StagePlan> {
  const scripts = ["downloads", "uploads"];
  for (const stage of stages)
    if (stage.kind === "built-in" && scripts.includes(stage.name))
      await planStage(stage, context, target, head);
  const pull = stages.find(isPull);
  return pull ? await planStage(pull, context, target, head) : { skip: "not asked for" };
}

/** What a run has come to. */
interface Progress {
  results: StageResult[];
  sha?: string | undefined;
  /** Why the stages that are left have nothing to do. */
  stopped?: string | undefined;
  failure?: StageResult;
  /** What is wrong with a build.yml that was pulled. */
  error?: unknown;
}

/** Write the end of the run into the log; a run that found nothing new leaves no trace there. */
async function endRun(
  log: RunLog,
  output: Output,
  { failure, error, stopped }: Progress,
): Promise<{ result: BuildResult["result"]; code: number }> {
  if (stopped === "unchanged") {
    log.discard();
    return { result: "unchanged", code: 0 };
  }
  if (error !== undefined) {
    const code = exitCodeOf(error) ?? 1;
    output.line("build", messageOf(error));
    await log.end("failed", code, messageOf(error).split("\n")[0]);
    return { result: "failed", code };
  }
  const [result, code] = [failure?.result ?? "ok", exitCodeAfter(failure)];
  await log.end(result, code, failure && `${failure.name}: ${failure.note}`);
  return { result, code };
}

/** Run the stages up to the first that fails. What a pull brings may have another build.yml, which holds from then on. */
async function runStages(
  options: BuildOptions,
  context: BuildContext,
  found: Found,
  output: Output,
  started: number,
  plan: (stage: Stage, context: BuildContext) => StagePlan | Promise<StagePlan>,
): Promise<Progress> {
  let { config, stages } = found;
  output.hide(config.secrets);
  const progress: Progress = { results: [], sha: options.sha };
  for (let index = 0; index < stages.length; index++) {
    const stage = stages[index] as Stage;
    const { name } = stage;
    if (progress.stopped !== undefined) {
      progress.results.push({ name, result: "skipped", seconds: 0, note: progress.stopped });
      continue;
    }
    const now = withVariables(context, config);
    const limits = limitsOf(config, name, started, options.signal);
    const result = await runStage(name, async () => plan(stage, now), now, output, limits);
    progress.results.push(result);
    progress.sha = result.outcome?.sha ?? progress.sha;
    progress.stopped = result.outcome?.stop;
    if (progress.stopped === "unchanged") return progress;
    await output.open();
    markStage(output, result);
    if (isBad(result)) return { ...progress, failure: result };
    if (!isPull(stage) || progress.stopped !== undefined) continue;
    try {
      config = await readBuildConfig(context.dir);
      output.hide(config.secrets);
      stages = [stage, ...selectStages(config, options).filter((each) => each.name !== "pull")];
    } catch (error) {
      return { ...progress, error };
    }
  }
  return progress;
}

function limitsOf(config: BuildConfig, name: string, started: number, signal: AbortSignal) {
  const { run, stages } = config.timeout;
  return {
    timeout: Object.hasOwn(stages, name) ? stages[name] : undefined,
    deadline: run === undefined ? undefined : started + run,
    signal,
  };
}
