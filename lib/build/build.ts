import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { findCheckout, overlook, readHead, stateFolder } from "../checkout.ts";
import { atEnd } from "../cleanup.ts";
import { exitCodeOf, messageOf, UsageError } from "../errors.ts";
import { exists } from "../files.ts";
import { acquireLock } from "../lock.ts";
import type { Result } from "../log-format.ts";
import { shortRef } from "../names.ts";
import type { RunSummary } from "../run-table.ts";
import { isRunId, newRunId } from "../run-id.ts";
import type { Terminal } from "../terminal.ts";
import { BadBuildFile, type BuildConfig, defaultConfig, readBuildConfig } from "./config.ts";
import { stageEnvironment } from "../run-environment.ts";
import { createOutput, type Output } from "../run-output.ts";
import { planStages, type Stage, type Wanted } from "./plan.ts";
import { readLastBuild, writeLastBuild } from "./record.ts";
import { runStage, type StageResult } from "../run-stage.ts";
import type { Site } from "./stage.ts";
import { lookAt } from "./stages.ts";

export interface BuildOptions extends Wanted {
  dir: string;
  ref?: string | undefined;
  sha?: string | undefined;
  /** Do nothing when the last good build was of the same commit. */
  ifChanged: boolean;
  force: boolean;
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

/** What is known before a build begins; `plan` shows it, `build` goes on from it. */
interface Prepared {
  site: Site;
  config: BuildConfig;
  stages: Stage[];
}

/**
 * Look at the folder and its build.yml, without changing anything.
 * @throws {UsageError} when the folder or the file is wrong, or a needed script is missing.
 */
async function prepare(options: BuildOptions): Promise<Prepared> {
  const dir = resolve(options.dir);
  if (!(await exists(dir)))
    throw new UsageError(`there is no folder ${dir}; clone the repository there first`);
  const checkout = await findCheckout(dir);
  const env = stageEnvironment();
  const given = process.env.HOOK_RUN ?? "";
  const site: Site = {
    dir,
    checkout,
    state: checkout ? stateFolder(checkout) : join(dir, ".boatyard"),
    env,
    force: options.force,
    run: isRunId(given) ? given : newRunId(),
  };
  try {
    const config = await readBuildConfig(dir);
    return { site, config, stages: planStages(config, options) };
  } catch (error) {
    // the commit that is about to be pulled may bring a build.yml that is right
    const pulls = planStages(defaultConfig, { ...options, only: [], from: undefined });
    const wanted =
      options.from === undefined && (options.only.length === 0 || options.only.includes("pull"));
    if (!(error instanceof BadBuildFile) || !wanted || pulls[0]?.name !== "pull") throw error;
    return { site, config: defaultConfig, stages: pulls.slice(0, 1) };
  }
}

/** What a build would do now, stage by stage; nothing is fetched or run. */
export async function planBuild(
  options: BuildOptions,
): Promise<{ name: string; does?: string; skip?: string }[]> {
  const { site, stages } = await prepare(options);
  return await Promise.all(
    stages.map(async (stage) => ({
      name: stage.name,
      ...withoutWork(await lookAt(stage, site, options)),
    })),
  );
}

function withoutWork(
  finding: { skip: string } | { does: string },
): { skip: string } | { does: string } {
  return "skip" in finding ? { skip: finding.skip } : { does: finding.does };
}

/**
 * Build a folder: run its stages in their order, up to the first that fails; all they print goes to the log.
 * @throws {UsageError} when it cannot begin.
 * @throws {Busy} when another build of the folder is under way.
 */
export async function build(options: BuildOptions): Promise<BuildResult> {
  const started = performance.now();
  const { terminal, signal } = options;
  let { site, config, stages } = await prepare(options);
  const { run, dir, checkout, state } = site;
  // a script that is missing shows before anything is touched
  for (const stage of stages)
    if (stage.name === "downloads" || stage.name === "uploads") await lookAt(stage, site, options);
  await mkdir(state, { recursive: true });
  const lock = await acquireLock(join(state, "build.lock"), {
    what: `build ${run}`,
    wait: options.wait,
    signal,
  });
  const file = join(dir, "logs.txt");
  if (checkout) await overlook(checkout, ["/logs.txt", "/logs.txt.*"]);
  const output = createOutput(file, run, terminal);
  const last = options.ifChanged && !options.force ? await readLastBuild(state) : undefined;
  const head = checkout ? await readHead(checkout).catch(() => undefined) : undefined;
  const ref = options.ref ?? (head?.branch === undefined ? undefined : `refs/heads/${head.branch}`);
  const event = process.env.HOOK_EVENT ?? "manual";
  output.mark({
    kind: "start",
    event,
    ref: ref && shortRef(ref),
    sha: options.sha,
    repo: process.env.HOOK_REPO,
  });
  if (!last?.good) await output.open();

  const results: StageResult[] = [];
  let sha = options.sha;
  let stopped: string | undefined;
  const finish = async (result: Result, code: number, why?: string) => {
    await output.open();
    output.mark({ kind: "end", result, code, seconds: (performance.now() - started) / 1000, why });
    await output.close();
  };
  const forget = atEnd(() => finish("cancelled", 1, "ended by a signal"));
  const limits = (name: string) => ({
    timeout: Object.hasOwn(config.timeout.stages, name) ? config.timeout.stages[name] : undefined,
    deadline: config.timeout.run === undefined ? undefined : started + config.timeout.run,
    signal,
  });
  const target = {
    ref: options.ref,
    sha: options.sha,
    unlessAt: last?.good ? last.sha : undefined,
  };
  const take = (config: BuildConfig) => {
    output.hide(config.secrets);
    site = { ...site, env: { ...site.env, ...config.env } };
  };
  take(config);

  let failure: StageResult | undefined;
  let error: unknown;
  for (let index = 0; index < stages.length; index++) {
    const stage = stages[index] as Stage;
    const pulls = stage.name === "pull" && stage.kind === "built-in";
    if (stopped !== undefined) {
      results.push({ name: stage.name, result: "skipped", seconds: 0, note: stopped });
      continue;
    }
    const result = await runStage(
      stage.name,
      () => lookAt(stage, site, target),
      site,
      output,
      limits(stage.name),
    );
    if (result.done?.stop === "unchanged") {
      forget();
      lock.release();
      return ended(results.concat(result), "unchanged", 0);
    }
    await output.open();
    results.push(result);
    markStage(output, result);
    sha = result.done?.sha ?? sha;
    stopped = result.done?.stop;
    if (result.result !== "ok" && result.result !== "skipped") {
      failure = result;
      break;
    }
    if (!pulls || stopped !== undefined) continue;
    try {
      // what was pulled may bring another build.yml
      config = await readBuildConfig(dir);
      const fresh = planStages(config, options);
      stages = [stage, ...fresh.filter(({ name }) => name !== "pull")];
      take(config);
    } catch (caught) {
      error = caught;
      break;
    }
  }
  forget();
  // the signal's own handler ends the process
  const why = failure
    ? `${failure.name}: ${failure.note}`
    : error === undefined
      ? undefined
      : messageOf(error).split("\n")[0];
  const result: Result = failure ? failure.result : error === undefined ? "ok" : "failed";
  const code = failure ? codeOf(failure) : error === undefined ? 0 : (exitCodeOf(error) ?? 1);
  if (error !== undefined) output.line("build", messageOf(error));
  await finish(result, code, why);
  const complete =
    sha !== undefined &&
    stopped === undefined &&
    options.only.length === 0 &&
    options.from === undefined;
  if (complete && sha !== undefined)
    await writeLastBuild(state, { run, sha, ref, good: code === 0 });
  lock.release();
  if (error !== undefined && exitCodeOf(error) === undefined) throw error;
  return ended(results, result, code);

  function ended(stages: StageResult[], result: BuildResult["result"], code: number): BuildResult {
    return {
      run,
      dir,
      ref,
      sha,
      result,
      code,
      seconds: (performance.now() - started) / 1000,
      stages,
    };
  }
}

function markStage(output: Output, { name, result, seconds, note }: StageResult): void {
  const bad = result !== "ok";
  output.mark({ kind: "stage", name, result, seconds, why: bad ? note : undefined });
}

/** A refusal keeps its own exit code; everything else that a stage ends with is 1. */
function codeOf({ error }: StageResult): number {
  return exitCodeOf(error) === 4 ? 4 : 1;
}
