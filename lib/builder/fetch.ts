import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Checkout, readRef } from "../git/checkout.ts";
import { Failure } from "../core/errors.ts";
import { git, gitText } from "../git/git.ts";
import { shortRef, shortSha } from "../core/names.ts";
import type { StageContext } from "../run/stage.ts";
import { type Branch, dubious, explainGit, homeOf, type Target } from "./branch.ts";
import type { BuildContext } from "./stage.ts";
import { removeStaleLocks } from "./stale-locks.ts";

/** What the remote has and what the checkout is like: the slow part, which changes nothing that a build reads. */
export interface Asking {
  answer: Promise<{
    fetched: { stop?: string };
    /** The changes to tracked files; not asked for while it may turn out that there is nothing to do. */
    dirty: string[] | undefined;
    /** Where the remote's branch was before. */
    before: string | undefined;
  }>;
  /** From here on its lines and its end belong to the stage; what was said before is said again. */
  join(stage: StageContext): void;
}

/** Fetch, and beside it look at the work tree. */
export function ask(
  context: BuildContext,
  checkout: Checkout,
  branch: Branch,
  { unlessAt }: Target,
  signal: AbortSignal,
): Asking {
  const abort = new AbortController();
  const endWith = (other: AbortSignal) => {
    if (other.aborted) abort.abort(other.reason);
    other.addEventListener("abort", () => abort.abort(other.reason), { once: true });
  };
  endWith(signal);
  const early: string[] = [];
  let say = (line: string): void => void early.push(line);
  const answer = answerOf((line) => say(line));
  answer.catch(() => {}); // told to who awaits it
  return {
    answer,
    join(stage) {
      early.forEach(stage.say);
      say = stage.say;
      endWith(stage.signal);
    },
  };

  async function answerOf(tell: (line: string) => void): Asking["answer"] {
    const options = { dir: checkout.dir, env: homeOf(context), signal: abort.signal };
    await removeStaleLocks(checkout, branch.branch, branch.tracking, tell);
    const before = await readRef(checkout, branch.tracking);
    // both look at different parts of the repository, and both take their time
    const [fetched, dirty] = await Promise.all([
      fetchBranch(branch, options, tell),
      unlessAt === undefined ? changedFiles(options) : undefined,
    ]);
    return { fetched, dirty, before };
  }
}

/** The changes to tracked files, as `git status` lists them. */
export async function changedFiles(options: Options): Promise<string[]> {
  const list = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=no"];
  const { stdout } = await git(list, options).catch(explainGit);
  return stdout.split("\0").filter((entry) => entry !== "");
}

/** Where git works, and what ends it. */
export type Options = { dir: string; env: Record<string, string | undefined>; signal: AbortSignal };

async function fetchBranch(
  branch: Branch,
  options: Options,
  say: (line: string) => void,
): Promise<{ stop?: string }> {
  const lines: string[] = [];
  const onLine = (line: string) => {
    lines.push(line);
    say(line);
  };
  const refspec = `+${branch.ref}:${branch.tracking}`;
  const argv = ["fetch", "--no-auto-gc", "--no-recurse-submodules", "--", branch.remote, refspec];
  const { code } = await git(argv, { ...options, output: { onLine }, check: false });
  if (code === 0) return {};
  options.signal.throwIfAborted();
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
export async function fetchedCommit(
  gitDir: string,
  branch: Branch,
  options: Options,
): Promise<string> {
  const line = (await readFile(join(gitDir, "FETCH_HEAD"), "utf8")).split("\n")[0] ?? "";
  const sha = /^([0-9a-f]{40,64})\t/.exec(line)?.[1];
  if (sha !== undefined && branch.branch !== undefined) return sha;
  return await gitText(["rev-parse", "--verify", `${branch.tracking}^{commit}`], options);
}

/**
 * The commit to build: the tip, or the one that is asked for by its first digits.
 * @throws {Failure} when the remote does not have it any more.
 */
export async function wantedCommit(
  wanted: string | undefined,
  tip: string,
  branch: Branch,
  options: Options,
  stage: StageContext,
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
    stage.say(
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
