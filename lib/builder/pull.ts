import type { Checkout } from "../git/checkout.ts";
import { Failure, UsageError } from "../core/errors.ts";
import { git, gitText } from "../git/git.ts";
import { shortRef, shortSha } from "../core/names.ts";
import { type Branch, findBranch, homeOf, type Target } from "./branch.ts";
import {
  ask,
  type Asking,
  changedFiles,
  fetchedCommit,
  type Options,
  wantedCommit,
} from "./fetch.ts";
import { keepLocalCommits, keepTrackedChanges, keepUntracked } from "./keep.ts";
import { prepareLfs, pullLfs, updateSubmodules, usesLfs } from "../git/modules.ts";
import type { StageContext, Outcome, StagePlan } from "../run/stage.ts";
import type { BuildContext } from "./stage.ts";

/**
 * The first stage: fetch, then set the checkout to exactly the wanted commit. What that would overwrite
 * (changes to tracked files, commits of the checkout's own, files in the way) is kept aside and named.
 * @throws {UsageError} when it cannot tell which branch is meant.
 */
export async function lookAtPull(context: BuildContext, target: Target): Promise<StagePlan> {
  const { checkout } = context;
  if (!checkout) {
    throw new UsageError(
      `${context.dir} is no git checkout; clone the repository there, or use --skip pull`,
    );
  }
  if (/^0+$/.test(target.sha ?? "")) {
    const stop = `${shortRef(target.ref ?? "the branch")} was deleted: nothing to build`;
    return { does: stop, work: async () => ({ stop, note: stop }) };
  }
  if (target.sha !== undefined && !/^[0-9a-f]{7,64}$/.test(target.sha)) {
    throw new UsageError(
      `--sha: "${target.sha}" is no commit; write at least 7 of its hexadecimal digits`,
    );
  }
  const branch = await findBranch(checkout, target, context);
  if (!branch) return { skip: "the checkout has no remote, it is built as it is" };
  const what =
    target.sha === undefined
      ? shortRef(branch.ref)
      : `${shortRef(branch.ref)} ${shortSha(target.sha)}`;
  let asking: Asking | undefined;
  return {
    does: `fetch ${what} from ${branch.remote} and set the checkout to it`,
    begin: (signal) => {
      asking = ask(context, checkout, branch, target, signal);
    },
    work: (stage) => {
      asking ??= ask(context, checkout, branch, target, stage.signal);
      return pull(context, checkout, branch, target, asking, stage);
    },
  };
}

async function pull(
  context: BuildContext,
  checkout: Checkout,
  branch: Branch,
  target: Target,
  asking: Asking,
  stage: StageContext,
): Promise<Outcome> {
  const { dir, gitDir } = checkout;
  const options = { dir, env: homeOf(context), signal: stage.signal };
  asking.join(stage);
  const { fetched, before, ...seen } = await asking.answer;
  if (fetched.stop !== undefined) return { stop: fetched.stop, note: fetched.stop };
  const tip = await fetchedCommit(gitDir, branch, options);
  const sha = await wantedCommit(target.sha, tip, branch, options, stage);
  if (target.unlessAt === sha && branch.head === sha) {
    return { stop: "unchanged", note: `nothing new since ${shortSha(sha)}`, sha };
  }
  const dirty = seen.dirty ?? (await changedFiles(options));
  const place = { context, checkout, options, say: stage.say };
  const moves = branch.head !== sha || !branch.current;
  if (!moves && dirty.length === 0) {
    return { note: `already at ${shortSha(sha)}`, sha };
  }
  const lfs = await usesLfs(place, sha);
  if (dirty.length > 0) await keepTrackedChanges(place, dirty, branch.head);
  if (branch.head !== undefined && branch.head !== sha) {
    await keepLocalCommits(place, { head: branch.head, sha, before, tip });
  }
  if (moves) await keepUntracked(place, branch.head, sha);
  if (lfs) await prepareLfs(place);
  await moveTo(branch, sha, options);
  await refuseTrackedLog(options);
  if (lfs) await pullLfs(place, branch.remote);
  const modules = await updateSubmodules(place);
  if (moves)
    await git(["maintenance", "run", "--auto", "--quiet"], {
      ...options,
      config: foreground,
      check: false,
    });
  const extra = [lfs ? "LFS files" : undefined, modules]
    .filter((text) => text !== undefined)
    .map((text) => `, ${text}`);
  const subject = await gitText(["log", "-1", "--format=%s", sha], options);
  stage.say(`${shortRef(branch.ref)} is at ${shortSha(sha)}: ${subject}`);
  return { note: `${shortRef(branch.ref)} at ${shortSha(sha)}${extra.join("")}`, sha };
}

/** Housekeeping must not go on behind the build's back. */
const foreground = { "gc.autoDetach": "false", "maintenance.autoDetach": "false" };

async function moveTo(branch: Branch, sha: string, options: Options): Promise<void> {
  const how = branch.current
    ? ["reset", "--hard", "--quiet", sha]
    : branch.branch === undefined
      ? ["checkout", "--force", "--quiet", "--detach", sha]
      : ["checkout", "--force", "--quiet", "-B", branch.branch, sha];
  await git([...how, "--"], options);
  if (!branch.current && branch.branch !== undefined) {
    await git(
      [
        "branch",
        "--quiet",
        `--set-upstream-to=${branch.tracking.replace(/^refs\/remotes\//, "")}`,
        branch.branch,
      ],
      { ...options, check: false },
    );
  }
}

/** A log under version control would be changed by every build, and reset by every pull. */
async function refuseTrackedLog(options: Options): Promise<void> {
  if ((await gitText(["ls-files", "--", "logs.txt"], options)) === "") return;
  throw new Failure(
    "logs.txt is tracked by git, but it is the build's log; run: git rm --cached logs.txt, then commit and push",
  );
}
