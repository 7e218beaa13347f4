import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { ProcessOutput, type Shell, timedOut } from "../../exec/exec.ts";
import { exists } from "../../files/files.ts";
import { gitIn, type GitOptions } from "../../git/git.ts";
import {
  FullDisk,
  isolation,
  type Remote,
  RemoteLacks,
  type Shared,
  toFullDisk,
} from "./remote.ts";
import type { Place, State, Tree } from "./state.ts";

/**
 * The mirror: a bare repo beside the trees that holds what was fetched, so that an update moves only what is
 * new. All of it can be fetched again: whatever is wrong with it, it is replaced by a new one.
 */

/** `$` for git on a mirror; also where something else is in its place. */
export function mirrorGit(dir: string, { env, config, ...options }: GitOptions): Shell {
  return gitIn("/", {
    ...options,
    env: { ...isolation, ...env, GIT_DIR: dir },
    config: {
      "core.hooksPath": "/dev/null",
      "core.fsmonitor": "false",
      "gc.auto": "0",
      ...config,
    },
  });
}

/** What is fetched: a commit, and how much history. */
export interface FetchGoal {
  sha: string;
  branch: string | undefined;
  /** Commits; 0: all, with all branches and tags. */
  depth: number;
  /** The commit was asked for by its id: it may be an older one of the branch. */
  pinned: boolean;
}

/**
 * Fetch into the mirror, and replace it by a new one when it is missing or cannot be fetched into.
 * @throws the error of the last attempt: then the mirror is as it was
 */
export async function updateMirror(
  place: Place,
  remote: Remote,
  goal: FetchGoal,
  note: (line: string) => void,
): Promise<void> {
  if (await exists(join(place.mirror, "HEAD"))) {
    try {
      return await fetchInto(place.mirror, remote, goal);
    } catch (cause) {
      const error = await toFullDisk(cause, place.home);
      // A remote that does not have it will not have it the second time; a time-out is not the mirror's fault; and a
      // new mirror needs more room than a full disk has.
      const hopeless =
        error instanceof RemoteLacks ||
        timedOut(error as ProcessOutput) ||
        error instanceof FullDisk;
      if (hopeless || remote.options.signal?.aborted) throw error;
      note("the mirror cannot be fetched into; trying with a new one");
    }
  }
  await replaceMirror(place, remote, goal);
}

/** Fetch everything into a new mirror; the old one goes only when the new one is complete. */
export async function replaceMirror(place: Place, remote: Remote, goal: FetchGoal): Promise<void> {
  const [fresh, old] = [join(place.home, "mirror.new"), join(place.home, "mirror.old")];
  const { signal, cookie } = remote.options;
  try {
    await rm(fresh, { recursive: true, force: true });
    await mkdir(fresh, { recursive: true });
    const git = mirrorGit(fresh, { signal, cookie });
    const format = goal.sha.length === 64 ? "sha256" : "sha1";
    await git`git init --quiet --bare --template= --object-format=${format}`;
    await fetchInto(fresh, remote, goal);
    await rm(old, { recursive: true, force: true });
    await rename(place.mirror, old).catch(() => {});
    await rename(fresh, place.mirror);
    await rm(old, { recursive: true, force: true });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

/** The ref that keeps the newest fetched commit. */
const nextRef = "refs/boatyard/next";

async function fetchInto(dir: string, { url, options }: Remote, goal: FetchGoal): Promise<void> {
  const { sha, branch, depth, pinned } = goal;
  const git = mirrorGit(dir, {
    ...options,
    config: {
      ...options.config,
      // always a pack, never loose objects: a pack carries a sum over all its bytes
      "fetch.unpackLimit": "1",
      "transfer.unpackLimit": "1",
      "fetch.writeCommitGraph": "false",
      // it comes to the disk with the tree that is made of it; until then all of it can be fetched again
      "core.fsync": "none",
      "credential.interactive": "false",
    },
  });
  const plain = ["--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"];
  const fetch = (history: string[], ...refs: string[]) =>
    git`git fetch --quiet --force --no-recurse-submodules ${plain} ${history} -- ${url} ${refs}`;
  const hasCommit = async () =>
    (await git`git cat-file -e ${sha}^{commit}`.nothrow()).exitCode === 0;
  const lacks = (): never => {
    const where = branch === undefined ? "" : ` (branch ${branch})`;
    throw new RemoteLacks(`the remote does not have commit ${sha}${where}; was it pushed?`);
  };
  const unshallow = (await exists(join(dir, "shallow"))) ? ["--unshallow"] : [];

  if (depth === 0) {
    const refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    await fetch(["--prune", ...unshallow], ...refs);
    // else it is not on any branch, or the branch was force-pushed meanwhile
    if (!(await hasCommit())) await fetch([], `${sha}:${nextRef}`).catch(lacks);
    return;
  }
  try {
    await fetch([`--depth=${depth}`], `${sha}:${nextRef}`);
  } catch (error) {
    const words = error instanceof ProcessOutput ? error.stderr : "";
    if (!/not our ref|unadvertised object|couldn't find remote ref/i.test(words)) throw error;
    // an old server gives only what its refs name: the branch, and if need be all of its history
    const ref = branch === undefined ? "HEAD" : `refs/heads/${branch}`;
    await fetch([`--depth=${depth}`], `+${ref}:${nextRef}`).catch(lacks);
    if (await hasCommit()) return;
    if (!pinned) lacks();
    const all = (await exists(join(dir, "shallow"))) ? ["--unshallow"] : [];
    await fetch(all, "+refs/heads/*:refs/boatyard/heads/*");
    if (!(await hasCommit())) lacks();
  }
}

/** Remove what a killed git left in the mirror and the indexes: locks, and packs that were being written. */
export async function sweepMirror({ home, mirror }: Place): Promise<void> {
  const stale = /\.lock$|^tmp_|^incoming-|\.keep$|^\.tmp-/;
  for (const folder of [
    mirror,
    join(mirror, "refs"),
    join(mirror, "objects"),
    join(home, "index"),
  ]) {
    const recursive = folder !== mirror;
    const names = await readdir(folder, { recursive }).catch(() => []);
    for (const name of names.filter((each) => stale.test(basename(each))))
      await rm(join(folder, name), { recursive: true, force: true });
  }
}

/** Let a ref of the mirror keep the objects of a tree that was built from it, and forget those of trees that are gone. */
export async function keepTrees(place: Place, state: State, built?: Tree): Promise<void> {
  const folder = join(place.mirror, "refs", "trees");
  await mkdir(folder, { recursive: true });
  // not for the other trees: a mirror that was made anew does not hold their commits
  if (built) await writeFile(join(folder, built.id), `${built.sha}\n`);
  const known = new Set(state.trees.map(({ id }) => id));
  for (const name of await readdir(folder))
    if (!known.has(name)) await rm(join(folder, name), { force: true });
}

/** Packs and bytes beyond which the mirror is packed into one again. */
const maxPacks = 24;
const slack = 32 * 1024 * 1024;

/** Keep the mirror small: one pack, with only what the trees need. */
export async function packMirror(place: Place, state: State, shared: Shared): Promise<void> {
  const git = mirrorGit(place.mirror, shared);
  const { packs, bytes } = await packsIn(place);
  if (state.packed === 0) state.packed = bytes;
  if (packs <= maxPacks && bytes <= 2 * state.packed + slack) return;
  await git`git repack -a -d --quiet`;
  await git`git prune --expire=now`;
  state.packed = (await packsIn(place)).bytes;
}

async function packsIn({ mirror }: Place): Promise<{ packs: number; bytes: number }> {
  const folder = join(mirror, "objects", "pack");
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(".pack"));
  const files = await Promise.all(names.map((name) => stat(join(folder, name))));
  return { packs: names.length, bytes: files.reduce((sum, { size }) => sum + size, 0) };
}
