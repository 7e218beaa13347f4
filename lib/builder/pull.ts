import { readdir, readFile, readlink, rm } from "node:fs/promises";
import { join, sep } from "node:path";
import { Failure, UsageError } from "../core/errors.ts";
import { shortRef, shortSha } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import type { Checkout } from "../git/checkout.ts";
import { gitIn, prepareLfs, pullLfs, textOf, updateSubmodules, usesLfs } from "../git/git.ts";
import type { Outcome, StageContext, StagePlan } from "../run/stage.ts";
import { type Branch, findBranch, type Head, readCommits, type Target } from "./branch.ts";
import type { BuildContext } from "./context.ts";
import { changedFiles, fetchBranch, wantedCommit } from "./fetch.ts";
import { keepLocalCommits, keepTrackedChanges, keepUntracked } from "./keep.ts";

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

/**
 * Remove git's own lock files that a killed git left behind (`index.lock`): they would stop every later build.
 * Only while no git works in the checkout; none of ours does, as the build holds its lock.
 */
async function removeStaleLocks(
  { dir, gitDir, commonDir }: Checkout,
  { branch, tracking }: Branch,
  say: (line: string) => void,
): Promise<void> {
  const own = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock"].map((name) => join(gitDir, name));
  const refs = [tracking, ...(branch === undefined ? [] : [`refs/heads/${branch}`])];
  const shared = [
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
    ...refs.map((ref) => `${ref}.lock`),
  ];
  const files = [...own, ...shared.map((name) => join(commonDir, name))];
  const present = await Promise.all(files.map(exists));
  const stale = files.filter((_, index) => present[index]);
  if (stale.length === 0 || (await gitWorksIn([dir, gitDir, commonDir]))) return;
  for (const file of stale) {
    await rm(file, { force: true });
    say(`removed ${file}, which a killed git had left behind`);
  }
}

/** Whether a git process stands in one of the folders; others' processes that cannot be looked at count as elsewhere. */
async function gitWorksIn(folders: readonly string[]): Promise<boolean> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      if (!name.startsWith("git")) return false;
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "");
      return folders.some((folder) => cwd === folder || cwd.startsWith(folder + sep));
    }),
  );
  return found.includes(true);
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
