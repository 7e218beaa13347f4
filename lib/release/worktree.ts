import { access, constants, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import type { Checkout } from "../git/checkout.ts";
import { Failure } from "../core/errors.ts";
import { removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import { git, gitIn, gitText, prepareLfs, pullLfs, updateSubmodules, usesLfs } from "../git/git.ts";
import { shortSha } from "../core/names.ts";
import type { StageContext, RunContext } from "../run/stage.ts";

/**
 * A folder for the worktree beside the checkout, where there is the same room and no node_modules of the
 * checkout's is found by accident; in TMPDIR where that folder cannot be written to.
 */
export async function freshFolder({ dir }: Checkout): Promise<string> {
  const parent = dirname(dir);
  await removeStaleTemporaries(parent);
  const writable = await access(parent, constants.W_OK).then(
    () => true,
    () => false,
  );
  return writable
    ? temporaryBeside(dir)
    : join(await mkdtemp(join(tmpdir(), "release-")), basename(dir));
}

/** Remove a worktree with all that git knows of it. */
export async function removeWorktree(
  { dir }: Checkout,
  tree: string,
  env: RunContext["env"],
): Promise<void> {
  await rm(tree, { recursive: true, force: true });
  if (dirname(tree) !== dirname(dir)) await rm(dirname(tree), { recursive: true, force: true });
  await git(["worktree", "prune"], { dir, env: homeOf(env), check: false });
}

function homeOf({ HOME, USER, LOGNAME }: RunContext["env"]): Record<string, string | undefined> {
  return { HOME, USER, LOGNAME };
}

/** Fetch the tag and check it out; @returns its commit. */
export async function checkOut(
  checkout: Checkout,
  context: RunContext,
  { tag, sha: named }: { tag: string; sha?: string | undefined },
  stage: StageContext,
): Promise<string> {
  const options = { dir: checkout.dir, env: homeOf(context.env), signal: stage.signal };
  // what a killed release left behind
  await git(["worktree", "prune"], { ...options, check: false });
  const remotes = (await gitText(["remote"], options)).split("\n").filter((name) => name !== "");
  const remote = remotes.includes("origin") ? "origin" : remotes[0];
  if (remote !== undefined) {
    const lines: string[] = [];
    const onLine = (line: string) => {
      lines.push(line);
      stage.say(line);
    };
    const argv = [
      "fetch",
      "--no-auto-gc",
      "--no-recurse-submodules",
      "--",
      remote,
      `+refs/tags/${tag}:refs/tags/${tag}`,
    ];
    const { code } = await git(argv, { ...options, output: { onLine }, check: false });
    stage.signal.throwIfAborted();
    if (code !== 0 && lines.some((line) => line.includes("couldn't find remote ref"))) {
      throw new Failure(`there is no tag ${tag} on ${remote}; push it: git push ${remote} ${tag}`);
    }
    if (code !== 0)
      throw new Failure(
        `cannot fetch tag ${tag} from ${remote}: ${lines.find((line) => line.startsWith("fatal:")) ?? lines.at(-1)}`,
      );
  }
  const found = await git(["rev-parse", "--verify", "--quiet", `refs/tags/${tag}^{commit}`], {
    ...options,
    check: false,
  });
  if (found.code !== 0) throw new Failure(`there is no tag ${tag}; make it: git tag ${tag}`);
  const sha = found.stdout.trim();
  if (named && !sha.startsWith(named))
    stage.say(
      `the event named commit ${shortSha(named)}, but tag ${tag} is at ${shortSha(sha)}; the tag is built`,
    );
  const { signal, say } = stage;
  const env = homeOf(context.env);
  const own = { dir: checkout.dir, git: gitIn(checkout.dir, { env, signal }), say };
  const lfs = await usesLfs(own, sha);
  if (lfs) await prepareLfs(own);
  await git(["worktree", "add", "--quiet", "--force", "--detach", context.dir, sha], options);
  const tree = { dir: context.dir, git: gitIn(context.dir, { env, signal }), say };
  if (lfs && remote !== undefined) await pullLfs(tree, remote);
  await updateSubmodules(tree);
  return sha;
}
