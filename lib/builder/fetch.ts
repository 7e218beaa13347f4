import { Failure } from "../core/errors.ts";
import { shortRef, shortSha } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import { textOf } from "../git/git.ts";
import { type Branch, readCommits } from "./branch.ts";

/** Where lines for the log go. */
type Say = (line: string) => void;

/**
 * Fetch the branch or tag; the work tree stays as it is.
 * @returns why there is nothing to build, if there is not.
 * @throws {Failure} when the remote does not have it, or does not answer.
 */
export async function fetchBranch(
  git: Shell,
  branch: Branch,
  { say, signal }: { say: Say; signal: AbortSignal },
): Promise<string | undefined> {
  const lines: string[] = [];
  const onLine = (line: string) => {
    lines.push(line);
    say(line);
  };
  const { remote } = branch;
  const refspec = `+${branch.ref}:${branch.tracking}`;
  const quiet = ["--no-auto-gc", "--no-recurse-submodules"];
  const { ok } = await git({ onLine, nothrow: true })`git fetch ${quiet} -- ${remote} ${refspec}`;
  if (ok) return undefined;
  signal.throwIfAborted();
  if (lines.some((line) => line.includes("couldn't find remote ref")))
    return await explainMissing(git, branch);
  const words = lines.filter((line) => /^(?:fatal|error|ssh|remote):?/i.test(line)).slice(0, 3);
  const why = words.join(" | ") || lines.join("\n").slice(0, 300);
  throw new Failure(`cannot fetch from ${remote}: ${why}; the checkout stays as it was`);
}

/** Why the remote does not have the branch: it is empty, or the name is a tag's, or it is gone. */
async function explainMissing(git: Shell, { ref, remote }: Branch): Promise<string> {
  const others = await textOf(git`git ls-remote -- ${remote}`);
  if (others === "") return `the remote ${remote} is empty: nothing to build until the first push`;
  const tag = ref.replace(/^refs\/heads\//, "refs/tags/");
  if (others.split("\n").some((line) => line.endsWith(`\t${tag}`)))
    throw new Failure(
      `${shortRef(ref)} is a tag, not a branch; the checkout stays as it was; write --ref ${tag}`,
    );
  throw new Failure(
    `${shortRef(ref)} is not on ${remote} (deleted or renamed?); the checkout stays as it was; name another with --ref`,
  );
}

/**
 * The commit to build: the tip, or the one that is asked for by its first digits.
 * @param tip the commit that fetch got.
 * @throws {Failure} when the remote does not have it any more.
 */
export async function wantedCommit(
  git: Shell,
  branch: Branch,
  { wanted, tip }: { wanted: string | undefined; tip: string },
  say: Say,
): Promise<string> {
  if (wanted === undefined || tip.startsWith(wanted)) return tip;
  let [sha] = await readCommits(git, [wanted]);
  if (sha === undefined) {
    // a commit that no branch holds any more; most forges still hand it out
    const how = ["--quiet", "--no-auto-gc", "--no-recurse-submodules"];
    const tryGit = git({ nothrow: true });
    const { ok } = await tryGit`git fetch ${how} -- ${branch.remote} ${wanted}`;
    if (ok) [sha] = await readCommits(git, [wanted]);
  }
  if (sha === undefined)
    throw new Failure(
      `commit ${shortSha(wanted)} is not on ${branch.remote} any more (force-pushed away?); ${shortRef(branch.ref)} is at ${shortSha(tip)}; the checkout stays as it was`,
    );
  say(`${shortSha(sha)} is asked for; ${shortRef(branch.ref)} is at ${shortSha(tip)} by now`);
  return sha;
}

/** The changes to tracked files: entries of `git status --porcelain=v1 -z`. */
export async function changedFiles(git: Shell): Promise<string[]> {
  const { stdout } = await git`git status --porcelain=v1 -z --no-renames --untracked-files=no`;
  return stdout.split("\0").filter((entry) => entry !== "");
}
