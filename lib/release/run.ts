import { mkdir, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { findScript } from "../exec/scripts.ts";
import { findCheckout, excludeFromGit, stateFolder } from "../git/checkout.ts";
import { atEnd } from "../core/at-exit.ts";
import { exitCodeOf, Failure, UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import type { Result } from "../log/format.ts";
import { isSafeRef, shortSha } from "../core/names.ts";
import { stageEnvironment } from "../run/environment.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { createOutput, type Output } from "../run/output.ts";
import {
  type StageContext,
  type Outcome,
  runStage,
  type StageResult,
  type RunContext,
} from "../run/stage.ts";
import type { RunSummary } from "../run/report.ts";
import type { Terminal } from "../cli/terminal.ts";
import { packByDefault, uploadByDefault } from "./without-script.ts";
import { checkOut, freshFolder, removeWorktree } from "./worktree.ts";

export interface ReleaseOptions {
  /** The checkout; it is not disturbed. */
  dir: string;
  tag: string;
  /** The commit that the event named; the tag decides. */
  sha?: string | undefined;
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
 * @throws {UsageError} when it cannot begin.
 * @throws {Busy} when another release of the repo is under way.
 */
export async function releaseTag(options: ReleaseOptions): Promise<ReleaseResult> {
  const started = performance.now();
  const { tag, terminal, signal } = options;
  if (!isSafeRef(tag)) throw new UsageError(`--tag: "${tag}" is no name of a tag`);
  const checkout = await findCheckout(resolve(options.dir));
  if (!checkout)
    throw new UsageError(
      `${resolve(options.dir)} is not a git checkout; clone the repository there`,
    );
  const build = await findScript("build");
  const given = process.env.HOOK_RUN ?? "";
  const run = isRunId(given) ? given : newRunId();
  const state = stateFolder(checkout);
  await mkdir(state, { recursive: true });
  const lock = await acquireLock(join(state, "release.lock"), {
    what: `release ${tag}`,
    wait: options.wait,
    signal,
  });
  await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
  const output = createOutput(join(checkout.dir, "logs.txt"), run, terminal);
  await output.open();
  const { HOOK_EVENT: event = "release", HOOK_REPO: repo } = process.env;
  output.mark({ kind: "start", event, ref: `tag ${tag}`, sha: options.sha, repo });
  let finished = false;
  const finish = async (result: Result, code: number, why?: string) => {
    // a signal and the work itself may come to an end at once
    if (finished) return;
    finished = true;
    output.mark({ kind: "end", result, code, seconds: (performance.now() - started) / 1000, why });
    await output.close();
  };
  const forget = atEnd(() => finish("cancelled", 1, "ended by a signal"));

  const env = stageEnvironment();
  const context: RunContext = { dir: await freshFolder(checkout), env };
  // once, also when a signal and the work itself come to an end together: both wait for it
  let removing: Promise<void> | undefined;
  const removeTree = () => (removing ??= removeWorktree(checkout, context.dir, env));
  const forgetTree = atEnd(removeTree);
  const results: StageResult[] = [];
  const step = async (
    name: string,
    work: (stage: StageContext) => Promise<Outcome | void>,
  ): Promise<StageResult | undefined> => {
    if (results.some(isBad)) return undefined;
    const result = await runStage(name, async () => ({ does: name, work }), context, output, {
      signal,
    });
    results.push(result);
    output.mark({
      kind: "stage",
      name,
      result: result.result,
      seconds: result.seconds,
      why: isBad(result) ? result.note : undefined,
    });
    return result;
  };
  let sha: string | undefined;
  try {
    await step("checkout", async (stage) => {
      sha = await checkOut(checkout, context, options, stage);
      Object.assign(env, releaseVariables(tag, sha));
      return { sha, note: `${tag} at ${shortSha(sha)}` };
    });
    await step("build", (stage) => buildTree(build, context, output, stage));
    if (await exists(join(context.dir, "release.sh")))
      await step("release.sh", (stage) => runReleaseScript(context, stage));
    else if (env["RELEASE_PRERELEASE"] === "true")
      await step("pack", async () => ({ note: "a prerelease: built, not published" }));
    else {
      await step("pack", (stage) => packByDefault(checkout, context, tag, stage));
      if (await exists(join(context.dir, "uploads.yml")))
        await step("uploads", (stage) => uploadByDefault(checkout, context, stage));
    }
  } finally {
    await removeTree();
    forgetTree();
  }
  forget();
  const failure = results.find(isBad);
  const code = failure ? (exitCodeOf(failure.error) === 4 ? 4 : 1) : 0;
  const result = failure?.result ?? "ok";
  await finish(result, code, failure && `${failure.name}: ${failure.note}`);
  lock.release();
  return {
    run,
    tag,
    sha,
    result,
    code,
    seconds: (performance.now() - started) / 1000,
    stages: results,
  };
}

function isBad({ result }: StageResult): boolean {
  return result !== "ok" && result !== "skipped";
}

/** What release.sh is told, where the event has not said it already. */
function releaseVariables(tag: string, sha: string): Record<string, string> {
  const { RELEASE_NAME, RELEASE_URL = "", RELEASE_PRERELEASE = "false" } = process.env;
  return {
    RELEASE_TAG: tag,
    RELEASE_NAME: RELEASE_NAME || tag,
    RELEASE_SHA: sha,
    RELEASE_URL,
    RELEASE_PRERELEASE,
  };
}

/** `build` as a child: its lines go into this run's log under the names of its own stages. */
async function buildTree(
  script: readonly string[],
  context: RunContext,
  output: Output,
  stage: StageContext,
): Promise<Outcome> {
  // what a tag holds must not replace what a push has published
  const argv = [...script, context.dir, "--skip", "pull,uploads", "--json"];
  let json = "";
  const { code } = await stage.run(argv, {
    check: false,
    onLine(line, from) {
      if (from === "stdout") {
        json += line;
        return;
      }
      const [, stage = "build", text = line] = /^([\w.-]+) \| ?(.*)$/s.exec(line) ?? [];
      output.line(stage, text);
    },
  });
  await rm(join(context.dir, "logs.txt"), { force: true });
  stage.signal.throwIfAborted();
  const bad = /"stage":"([^"]*)","result":"(?:failed|timeout|cancelled)"/.exec(json)?.[1];
  if (code !== 0)
    throw new Failure(
      `the build of the tag failed${bad === undefined ? "" : ` in ${bad}`}; its lines are above`,
    );
  return {};
}

async function runReleaseScript(context: RunContext, stage: StageContext): Promise<void> {
  const file = join(context.dir, "release.sh");
  const { mode } = await stat(file);
  await stage.run(mode & 0o100 ? [file] : ["/bin/sh", file]);
}
