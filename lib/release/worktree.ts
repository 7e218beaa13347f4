import { access, constants, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { atEnd } from "../core/at-exit.ts";
import { Failure } from "../core/errors.ts";
import { shortSha } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import { removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import type { Checkout } from "../git/checkout.ts";
import { gitIn, prepareLfs, pullLfs, textOf, updateSubmodules, usesLfs } from "../git/git.ts";
import type { StageContext } from "../run/stage.ts";

/** Do something in a folder for a worktree, which is removed in the end, also when a signal ends the script. */
export async function withWorktree<T>(
  checkout: Checkout,
  work: (dir: string) => Promise<T>,
): Promise<T> {
  const dir = await freshFolder(checkout);
  // once, also when a signal and the work itself come to an end together: both wait for it
  let removing: Promise<void> | undefined;
  const remove = () => (removing ??= removeWorktree(checkout, dir));
  const forget = atEnd(remove);
  try {
    return await work(dir);
  } finally {
    await remove();
    forget();
  }
}

/**
 * A folder for the worktree beside the checkout, where there is the same room and no node_modules of the
 * checkout's is found by accident; in TMPDIR where that folder cannot be written to.
 */
async function freshFolder({ dir }: Checkout): Promise<string> {
  const parent = dirname(dir);
  await removeStaleTemporaries(parent);
  try {
    await access(parent, constants.W_OK);
    return temporaryBeside(dir);
  } catch {
    return join(await mkdtemp(join(tmpdir(), "release-")), basename(dir));
  }
}

/** Remove a worktree with all that git knows of it. */
async function removeWorktree({ dir }: Checkout, tree: string) {
  await rm(tree, { recursive: true, force: true });
  if (dirname(tree) !== dirname(dir)) await rm(dirname(tree), { recursive: true, force: true });
  await gitIn(dir, { nothrow: true })`git worktree prune`;
}

/** Fetch the tag and check it out; @returns its commit. */
export async function checkOut(
  {
    checkout,
    dir,
    tag,
    named,
  }: { checkout: Checkout; dir: string; tag: string; named: string | undefined },
  stage: StageContext,
): Promise<string> {
  const { say, signal } = stage;
  const git = gitIn(checkout.dir, { signal });
  const tryGit = git({ nothrow: true });
  // what a killed release left behind
  await tryGit`git worktree prune`;
  const remotes = (await textOf(git`git remote`)).split("\n");
  const remote = remotes.includes("origin") ? "origin" : remotes[0];
  if (remote) await fetchTag(git, remote, tag, stage);
  const found = await tryGit`git rev-parse --verify --quiet ${`refs/tags/${tag}^{commit}`}`;
  if (!found.ok) throw new Failure(`there is no tag ${tag}; make it: git tag ${tag}`);
  const sha = found.stdout.trim();
  if (named && !sha.startsWith(named))
    say(
      `the event named commit ${shortSha(named)}, but tag ${tag} is at ${shortSha(sha)}; the tag is built`,
    );
  const own = { dir: checkout.dir, git, say };
  const lfs = await usesLfs(own, sha);
  if (lfs) await prepareLfs(own);
  await git`git worktree add --quiet --force --detach -- ${dir} ${sha}`;
  const tree = { dir, git: gitIn(dir, { signal }), say };
  if (lfs && remote) await pullLfs(tree, remote);
  await updateSubmodules(tree);
  return sha;
}

async function fetchTag(git: Shell, remote: string, tag: string, stage: StageContext) {
  const lines: string[] = [];
  const onLine = (line: string) => {
    lines.push(line);
    stage.say(line);
  };
  const refspec = `+refs/tags/${tag}:refs/tags/${tag}`;
  const fetch = git({ nothrow: true, onLine });
  const { ok } =
    await fetch`git fetch --no-auto-gc --no-recurse-submodules -- ${remote} ${refspec}`;
  stage.signal.throwIfAborted();
  if (ok) return;
  if (lines.some((line) => line.includes("couldn't find remote ref")))
    throw new Failure(`there is no tag ${tag} on ${remote}; push it: git push ${remote} ${tag}`);
  const why = lines.find((line) => line.startsWith("fatal:")) ?? lines.at(-1);
  throw new Failure(`cannot fetch tag ${tag} from ${remote}: ${why}`);
}
