import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Checkout, readRef } from "../checkout.ts";
import { Failure, UsageError } from "../errors.ts";
import { git, gitText } from "../git.ts";
import { shortRef, shortSha } from "../names.ts";
import { type Branch, dubious, explainGit, findBranch, homeOf, type Target } from "./branch.ts";
import { keepLocalCommits, keepTrackedChanges, keepUntracked } from "./keep.ts";
import { prepareLfs, pullLfs, updateSubmodules, usesLfs } from "../git-modules.ts";
import type { Doing, Done, Finding } from "../run-stage.ts";
import type { Site } from "./stage.ts";
import { removeStaleLocks } from "./stale-locks.ts";

/**
 * The first stage: fetch, then set the checkout to exactly the wanted commit. What that would overwrite
 * (changes to tracked files, commits of the checkout's own, files in the way) is kept aside and named.
 * @throws {UsageError} when it cannot tell which branch is meant.
 */
export async function lookAtPull(site: Site, target: Target): Promise<Finding> {
  const { checkout } = site;
  if (!checkout) {
    throw new UsageError(
      `${site.dir} is no git checkout; clone the repository there, or use --skip pull`,
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
  const branch = await findBranch(checkout, target, site);
  if (!branch) return { skip: "the checkout has no remote, it is built as it is" };
  const what =
    target.sha === undefined
      ? shortRef(branch.ref)
      : `${shortRef(branch.ref)} ${shortSha(target.sha)}`;
  return {
    does: `fetch ${what} from ${branch.remote} and set the checkout to it`,
    work: (doing) => pull(site, checkout, branch, target, doing),
  };
}

async function pull(
  site: Site,
  checkout: Checkout,
  branch: Branch,
  target: Target,
  doing: Doing,
): Promise<Done> {
  const { dir, gitDir } = checkout;
  const options = { dir, env: homeOf(site), signal: doing.signal };
  await removeStaleLocks(checkout, branch.branch, branch.tracking, doing.say);
  const before = await readRef(checkout, branch.tracking);
  // both look at different parts of the repository, and both take their time
  const [fetched, status] = await Promise.all([
    fetchBranch(branch, options, doing),
    git(["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no"], options).catch(
      explainGit,
    ),
  ]);
  if (fetched.stop !== undefined) return { stop: fetched.stop, note: fetched.stop };
  const tip = await fetchedCommit(gitDir, branch, options);
  const sha = await wantedCommit(target.sha, tip, branch, options, doing);
  if (target.unlessAt === sha && branch.head === sha) {
    return { stop: "unchanged", note: `nothing new since ${shortSha(sha)}`, sha };
  }
  const dirty = status.stdout.split("\0").filter((entry) => entry !== "");
  const place = { site, checkout, options, say: doing.say };
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
  doing.say(`${shortRef(branch.ref)} is at ${shortSha(sha)}: ${subject}`);
  return { note: `${shortRef(branch.ref)} at ${shortSha(sha)}${extra.join("")}`, sha };
}

/** Housekeeping must not go on behind the build's back. */
const foreground = { "gc.autoDetach": "false", "maintenance.autoDetach": "false" };

type Options = { dir: string; env: Record<string, string | undefined>; signal: AbortSignal };

async function fetchBranch(
  branch: Branch,
  options: Options,
  doing: Doing,
): Promise<{ stop?: string }> {
  const lines: string[] = [];
  const onLine = (line: string) => {
    lines.push(line);
    doing.say(line);
  };
  const refspec = `+${branch.ref}:${branch.tracking}`;
  const argv = ["fetch", "--no-auto-gc", "--no-recurse-submodules", "--", branch.remote, refspec];
  const { code } = await git(argv, { ...options, output: { onLine }, check: false });
  if (code === 0) return {};
  doing.signal.throwIfAborted();
  const text = lines.join("\n");
  if (/couldn't find remote ref/.test(text)) {
    const others = await gitText(["ls-remote", "--", branch.remote], options);
    const tag = branch.ref.replace(/^refs\/heads\//, "refs/tags/");
    if (others.split("\n").some((line) => line.endsWith(`\t${tag}`)))
      throw new Failure(
        `${shortRef(branch.ref)} is a tag, not a branch; the checkout stays as it was; write --ref ${tag}`,
      );
    if (others === "")
      return {
        stop: `the remote ${branch.remote} is empty: nothing to build until the first push`,
      };
    throw new Failure(
      `${shortRef(branch.ref)} is not on ${branch.remote} (deleted or renamed?); the checkout stays as it was; name another with --ref`,
    );
  }
  if (/dubious ownership/.test(text)) throw dubious(options.dir);
  const words = lines
    .filter((line) => /^(?:fatal|error|ssh|remote):?/i.test(line))
    .slice(0, 3)
    .join(" | ");
  throw new Failure(
    `cannot fetch from ${branch.remote}: ${words || text.slice(0, 300)}; the checkout stays as it was`,
  );
}

/** The commit that fetch got, from FETCH_HEAD: a tag's object is followed to its commit. */
async function fetchedCommit(gitDir: string, branch: Branch, options: Options): Promise<string> {
  const line = (await readFile(join(gitDir, "FETCH_HEAD"), "utf8")).split("\n")[0] ?? "";
  const sha = /^([0-9a-f]{40,64})\t/.exec(line)?.[1];
  if (sha !== undefined && branch.branch !== undefined) return sha;
  return await gitText(["rev-parse", "--verify", `${branch.tracking}^{commit}`], options);
}

async function wantedCommit(
  wanted: string | undefined,
  tip: string,
  branch: Branch,
  options: Options,
  doing: Doing,
): Promise<string> {
  if (wanted === undefined || tip.startsWith(wanted)) return tip;
  const find = async () => {
    const { code, stdout } = await git(["rev-parse", "--verify", "--quiet", `${wanted}^{commit}`], {
      ...options,
      check: false,
    });
    return code === 0 ? stdout.trim() : undefined;
  };
  const there = await find();
  const say = (sha: string) => {
    doing.say(
      `${shortSha(sha)} is asked for; ${shortRef(branch.ref)} is at ${shortSha(tip)} by now`,
    );
    return sha;
  };
  if (there !== undefined) return say(there);
  // a commit that no branch holds any more; most forges still hand it out
  const { code } = await git(
    ["fetch", "--quiet", "--no-auto-gc", "--no-recurse-submodules", "--", branch.remote, wanted],
    { ...options, check: false },
  );
  const fetched = code === 0 ? await find() : undefined;
  if (fetched !== undefined) return say(fetched);
  throw new Failure(
    `commit ${shortSha(wanted)} is not on ${branch.remote} any more (force-pushed away?); ${shortRef(branch.ref)} is at ${shortSha(tip)}; the checkout stays as it was`,
  );
}

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
