import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../cli/terminal.ts";
import { atEnd } from "../core/at-exit.ts";
import { exitCodeOf, UsageError } from "../core/errors.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { isSafeRef } from "../core/names.ts";
import { findScript } from "../exec/scripts.ts";
import { acquireLock } from "../files/lock.ts";
import { type Checkout, excludeFromGit, findCheckout, stateFolder } from "../git/checkout.ts";
import type { Result } from "../log/format.ts";
import { stageEnvironment } from "../run/environment.ts";
import { createOutput, type Output } from "../run/output.ts";
import type { RunSummary } from "../run/report.ts";
import { runStage, type StageResult } from "../run/stage.ts";
import { planBuild, planPublishing, readTree, type ReleaseContext, type Stage } from "./stages.ts";
import { withWorktree } from "./worktree.ts";

export { list, refresh, withdraw } from "./folder.ts";
export { pack } from "./pack.ts";
export { keygen, openSigner, type Signer } from "./signer.ts";
export { verifyFolder } from "./verify.ts";

export interface ReleaseOptions {
  /** The checkout; it is not disturbed. */
  dir: string;
  tag: string;
  /** The commit that the event named; the tag decides. */
  sha?: string | undefined;
  /** Wait for another release of the repo to end. */
  wait: boolean;
  terminal: Terminal;
  signal: AbortSignal;
}

export interface ReleaseResult extends RunSummary {
  tag: string;
  sha?: string | undefined;
}

/**
 * Release a tag: build it in a worktree of its own and run the repo's release.sh there; where there is
 * none, `release pack` and `uploads`. The worktree is removed whatever happens.
 * @throws {UsageError} when it cannot start; then nothing was touched.
 * @throws {Busy} when another release of the repo is under way.
 */
export async function releaseTag(options: ReleaseOptions): Promise<ReleaseResult> {
  const started = performance.now();
  const { tag, sha: named, wait, signal } = options;
  const { checkout, build, run } = await openRelease(options);
  const state = stateFolder(checkout);
  await mkdir(state, { recursive: true });
  const path = join(state, "release.lock");
  const lock = await acquireLock(path, { what: `release ${tag}`, wait, signal });
  try {
    await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
    const log = await startLog(checkout, run, options, started);
    const env = stageEnvironment();
    const stages = await withWorktree(checkout, env, async (dir) => {
      const context: ReleaseContext = { checkout, dir, env, tag, named, output: log.output };
      const results = await runStages(planBuild(context, build), context, signal);
      if (results.some(isBad)) return results;
      const publishing = planPublishing(context, await readTree(dir));
      return [...results, ...(await runStages(publishing, context, signal))];
    });
    const { result, code } = await log.finish(stages.find(isBad));
    const sha = stages.find(({ outcome }) => outcome?.sha)?.outcome?.sha;
    const seconds = (performance.now() - started) / 1000;
    return { run, tag, sha, result, code, seconds, stages };
  } finally {
    lock.release();
  }
}

/** What must be known before anything is touched. */
async function openRelease({ dir, tag }: ReleaseOptions) {
  if (!isSafeRef(tag)) throw new UsageError(`--tag: "${tag}" is not the name of a tag`);
  const checkout = await findCheckout(resolve(dir));
  if (!checkout)
    throw new UsageError(`${resolve(dir)} is not a git checkout; clone the repository there`);
  const build = await findScript("build");
  const given = process.env.HOOK_RUN ?? "";
  return { checkout, build, run: isRunId(given) ? given : newRunId() };
}

interface RunLog {
  output: Output;
  /** Write the end of the run. */
  finish(failure: StageResult | undefined): Promise<{ result: Result; code: number }>;
}

/** Open the log with the run's first line; a signal that ends the script leaves the last line. */
async function startLog(
  { dir }: Checkout,
  run: string,
  { tag, sha, terminal }: ReleaseOptions,
  started: number,
): Promise<RunLog> {
  const output = createOutput(join(dir, "logs.txt"), run, terminal);
  await output.open();
  const { HOOK_EVENT: event = "release", HOOK_REPO: repo } = process.env;
  output.mark({ kind: "start", event, ref: `tag ${tag}`, sha, repo });
  let ended = false;
  const end = async (result: Result, code: number, why?: string) => {
    // a signal and the work itself may come to an end at once
    if (ended) return;
    ended = true;
    output.mark({ kind: "end", result, code, seconds: (performance.now() - started) / 1000, why });
    await output.close();
  };
  const forget = atEnd(() => end("cancelled", 1, "ended by a signal"));
  return {
    output,
    async finish(failure) {
      forget();
      // a refusal keeps its own exit code; everything else that a stage ends with is 1
      const code = failure ? (exitCodeOf(failure.error) === 4 ? 4 : 1) : 0;
      const result = failure?.result ?? "ok";
      await end(result, code, failure && `${failure.name}: ${failure.note}`);
      return { result, code };
    },
  };
}

/** Run the stages up to the first that fails. */
async function runStages(
  stages: readonly Stage[],
  context: ReleaseContext,
  signal: AbortSignal,
): Promise<StageResult[]> {
  const results: StageResult[] = [];
  for (const { name, work } of stages) {
    const plan = async () => ({ does: name, work });
    const done = await runStage(name, plan, context, context.output, { signal });
    const { result, seconds, note } = done;
    results.push(done);
    const why = isBad(done) ? note : undefined;
    context.output.mark({ kind: "stage", name, result, seconds, why });
    if (isBad(done)) break;
  }
  return results;
}

function isBad({ result }: StageResult): boolean {
  return result !== "ok" && result !== "skipped";
}
