import { Failure, UsageError } from "../core/errors.ts";
import { shortRef, shortSha } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import type { Checkout } from "../git/checkout.ts";
import { gitIn, prepareLfs, pullLfs, textOf, updateSubmodules, usesLfs } from "../git/git.ts";
import type { Outcome, StageContext, StagePlan } from "../run/stage.ts";
import { type Branch, findBranch, type Head, readCommits, type Target } from "./branch.ts";
import type { BuildContext } from "./context.ts";
import { changedFiles, fetchBranch, wantedCommit } from "./fetch.ts";
import { keepLocalCommits, keepTrackedChanges, keepUntracked } from "./keep.ts";
import { removeStaleLocks } from "./stale-locks.ts";

/**
 * The first stage: fetch, then set the checkout to exactly the wanted commit. What that would overwrite
 * (changes to tracked files, commits of the checkout's own, files in the way) is kept aside and named.
 * @throws {UsageError} when it cannot tell which branch is meant.
 */
export function planPull(context: BuildContext, target: Target, head: Head | undefined): StagePlan {
  const { checkout } = context;
  if (!checkout || !head) throw new Error("a pull without a checkout");
  const { ref, sha } = target;
  if (/^0+$/.test(sha ?? "")) {
    const stop = `${shortRef(ref ?? "the branch")} was deleted: nothing to build`;
    return { does: stop, work: async () => ({ stop, note: stop }) };
  }
  if (sha !== undefined && !/^[0-9a-f]{7,64}$/.test(sha))
    throw new UsageError(
      `--sha: "${sha}" is not a commit; write at least 7 of its hexadecimal digits`,
    );
  const branch = findBranch(target, head);
  if (!branch) return { skip: "the checkout has no remote, it is built as it is" };
  const what = [shortRef(branch.ref), ...(sha === undefined ? [] : [shortSha(sha)])].join(" ");
  return {
    does: `fetch ${what} from ${branch.remote} and set the checkout to it`,
    work: (stage) => pull(context, checkout, branch, target, stage),
  };
}

async function pull(
  context: BuildContext,
  checkout: Checkout,
  branch: Branch,
  target: Target,
  stage: StageContext,
): Promise<Outcome> {
  const { dir } = checkout;
  const { say, signal } = stage;
  const git = gitIn(dir, { signal });
  await removeStaleLocks(checkout, branch, say);
  const stop = await fetchBranch(git, branch, stage);
  if (stop !== undefined) return { stop, note: stop };
  const [[head, tip], dirty] = await Promise.all([
    readCommits(git, ["HEAD", branch.tracking]),
    changedFiles(git),
  ]);
  if (tip === undefined) throw new Error(`fetch brought no ${branch.tracking}`);
  const sha = await wantedCommit(git, branch, { wanted: target.sha, tip }, say);
  if (target.skipIfAt === sha && head === sha)
    return { stop: "unchanged", note: `nothing new since ${shortSha(sha)}`, sha };
  const moves = head !== sha || !branch.current;
  if (!moves && dirty.length === 0) return { note: `already at ${shortSha(sha)}`, sha };

  const tree = { dir, git, say };
  const lfs = await usesLfs(tree, sha);
  const place = { context, checkout, git, say };
  if (dirty.length > 0) await keepTrackedChanges(place, dirty, head);
  if (head !== undefined && head !== sha)
    await keepLocalCommits(place, { head, sha, tip, tracking: branch.tracking });
  await keepUntracked(place, sha);
  if (lfs) await prepareLfs(tree);
  await setCheckout(git, branch, sha);
  await refuseTrackedLog(git);
  if (lfs) await pullLfs(tree, branch.remote);
  const modules = await updateSubmodules(tree);
  if (moves) await maintain(dir, signal);

  const extra = `${lfs ? ", LFS files" : ""}${modules === undefined ? "" : `, ${modules}`}`;
  const at = `${shortRef(branch.ref)} at ${shortSha(sha)}`;
  const subject = await textOf(git`git log -1 --format=%s ${sha} --`);
  say(`${shortRef(branch.ref)} is at ${shortSha(sha)}: ${subject}`);
  return { note: `${at}${extra}`, sha };
}

/** Set HEAD, index and work tree to the commit, on its branch if it has one. */
async function setCheckout(git: Shell, branch: Branch, sha: string): Promise<void> {
  const { branch: name, tracking } = branch;
  if (branch.current) await git`git reset --hard --quiet ${sha} --`;
  else if (name === undefined) await git`git checkout --force --quiet --detach ${sha} --`;
  else {
    await git`git checkout --force --quiet -B ${name} ${sha} --`;
    const upstream = tracking.replace(/^refs\/remotes\//, "");
    await git({ nothrow: true })`git branch --quiet --set-upstream-to=${upstream} ${name}`;
  }
}

/** A log under version control would be changed by every build, and reset by every pull. */
async function refuseTrackedLog(git: Shell): Promise<void> {
  if ((await textOf(git`git ls-files -- logs.txt`)) === "") return;
  throw new Failure(
    "logs.txt is tracked by git, but it is the build's log; run: git rm --cached logs.txt, then commit and push",
  );
}

/** git's own housekeeping, to its end: it must not go on behind the build's back. */
async function maintain(dir: string, signal: AbortSignal): Promise<void> {
  const config = { "gc.autoDetach": "false", "maintenance.autoDetach": "false" };
  const git = gitIn(dir, { signal, config, nothrow: true });
  await git`git maintenance run --auto --quiet`;
}
