import { access, constants, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { atEnd } from "../core/at-exit.ts";
import { removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import type { Checkout } from "./checkout.ts";
import { gitIn, updateSubmodules, usesLfs } from "./git.ts";

/** A worktree beside a checkout, in which a tag or a branch is built that the checkout does not follow. */

/**
 * A name for a worktree's folder beside the checkout, where there is as much room and no node_modules of the checkout's
 * is found by accident; in TMPDIR where nothing can be made there. It is removed when the script ends, however it ends.
 */
export async function treeBeside(checkout: string) {
  const parent = dirname(checkout);
  await removeStaleTemporaries(parent);
  const closed = await access(parent, constants.W_OK).catch((error: unknown) => error);
  const whole = closed ? await mkdtemp(join(tmpdir(), "worktree-")) : temporaryBeside(checkout);
  let removing: Promise<void> | undefined;
  const remove = async () => {
    leave();
    await rm(whole, { recursive: true, force: true });
    await gitIn(checkout, { nothrow: true })`git worktree prune`;
  };
  // a signal and the work itself may come to an end together: both wait for it
  const once = () => (removing ??= remove());
  const leave = atEnd(once);
  return { dir: closed ? join(whole, basename(checkout)) : whole, remove: once };
}

/** Make the worktree of a commit, with its LFS files and submodules. What a killed script left behind is forgotten. */
export async function addWorktree(
  { dir }: Checkout,
  tree: string,
  {
    sha,
    remote,
    say,
    signal,
  }: { sha: string; remote: string | undefined; say(line: string): void; signal: AbortSignal },
): Promise<void> {
  const git = gitIn(dir, { signal });
  await git({ nothrow: true })`git worktree prune`;
  const lfs = await usesLfs({ dir, git, say }, sha);
  if (lfs) await git`git lfs install --local --skip-repo`;
  await git`git worktree add --quiet --force --detach -- ${tree} ${sha}`;
  const inTree = gitIn(tree, { signal });
  if (lfs && remote) await inTree({ onLine: say })`git lfs pull ${remote}`;
  await updateSubmodules({ dir: tree, git: inTree, say });
}
