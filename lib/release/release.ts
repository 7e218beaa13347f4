import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { UsageError } from "../core/errors.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { isSafeRef } from "../core/names.ts";
import { findScript } from "../exec/scripts.ts";
import { acquireLock } from "../files/lock.ts";
import { excludeFromGit, findCheckout, stateFolder } from "../git/checkout.ts";
import { gitIn } from "../git/git.ts";
import { stageEnvironment } from "../run/environment.ts";
import { createOutput, startRun } from "../run/output.ts";
import type { RunSummary } from "../run/report.ts";
import { exitCodeAfter, isBad, markStage, runStage, type StageResult } from "../run/stage.ts";
import { planBuild, planPublishing, readTree, type ReleaseContext, type Stage } from "./stages.ts";
import { withWorktree } from "./worktree.ts";

export { list, refresh, withdraw } from "./current.ts";
export { readVersion } from "./folder.ts";
export { changeKeys, listKeys } from "./keys.ts";
export { pack } from "./pack.ts";
export { endOf, keygen, openSigner, openSigners, type Signer } from "./signer.ts";
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

/** The newest tags of a checkout, for the shell's completion. */
export async function newestTags(dir: string): Promise<string[]> {
  const { stdout } = await gitIn(dir)`git tag --list --sort=-creatordate`;
  return stdout.split("\n").slice(0, 100);
}

/**
 * Release a tag: build it in a worktree of its own and run the repo's release.sh there; where there is
 * none, `release pack` and `uploads`. The worktree is removed whatever happens.
 * @throws {UsageError} when it cannot start; then nothing was touched.
 * @throws {Busy} when another release of the repo is in progress.
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
    const output = createOutput(join(checkout.dir, "logs.txt"), run, options.terminal);
    await output.open();
    const log = startRun(output, { event: "release", ref: `tag ${tag}`, sha: named }, started);
    const stages = await withWorktree(checkout, async (dir) => {
      const env = stageEnvironment();
      const context: ReleaseContext = { checkout, dir, env, tag, named, output };
      const results = await runStages(planBuild(context, build), context, signal);
      if (results.some(isBad)) return results;
      const publishing = planPublishing(context, await readTree(dir));
      return [...results, ...(await runStages(publishing, context, signal))];
    });
    const failure = stages.find(isBad);
    const [result, code] = [failure?.result ?? "ok", exitCodeAfter(failure)];
    await log.end(result, code, failure && `${failure.name}: ${failure.note}`);
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

/** Run the stages up to the first that fails. */
async function runStages(
  stages: readonly Stage[],
  context: ReleaseContext,
  signal: AbortSignal,
): Promise<StageResult[]> {
  const results: StageResult[] = [];
  for (const { name, work } of stages) {
    const plan = async () => ({ does: name, work });
    const result = await runStage(name, plan, context, context.output, { signal });
    results.push(result);
    markStage(context.output, result);
    if (isBad(result)) break;
  }
  return results;
}
