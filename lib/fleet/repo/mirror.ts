import { copyFile, link, mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { ProcessOutput, type Shell, timedOut } from "../../exec/exec.ts";
import { exists, readIfThere } from "../../files/files.ts";
import { gitIn, type GitOptions, textOf } from "../../git/git.ts";
import { FullDisk, isolation, type Remote, RemoteLacks, type Shared, toFullDisk } from "../remote.ts";
import type { Place, State } from "./state.ts";

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
      const hopeless = error instanceof RemoteLacks || timedOut(error as ProcessOutput) || error instanceof FullDisk;
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
  const hasCommit = async () => (await git`git cat-file -e ${sha}^{commit}`.nothrow()).exitCode === 0;
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
  for (const folder of [mirror, join(mirror, "refs"), join(mirror, "objects"), join(home, "index")]) {
    const recursive = folder !== mirror;
    const names = await readdir(folder, { recursive }).catch(() => []);
    for (const name of names.filter((each) => stale.test(basename(each))))
      await rm(join(folder, name), { recursive: true, force: true });
  }
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

/** What a clone is of. */
export interface ClonePlan {
  sha: string;
  branch: string | undefined;
  remote: Remote;
  /** Commits of history; 0: all. */
  depth: number;
  /** The remote's HEAD names this branch: a clone has origin/HEAD then. */
  isDefault: boolean;
}

/**
 * The `.git` of a fresh clone, with the mirror's packs as hard links, as `git clone --local` makes them: the tree
 * does not depend on the mirror. (git itself does not link when its source is shallow, as mirrors here are.)
 */
export async function makeGitFolder(
  { mirror }: Place,
  tree: string,
  { sha, branch, remote, depth, isDefault }: ClonePlan,
  shared: Shared,
): Promise<void> {
  const dir = join(tree, ".git");
  // reflogs are on in every clone, but what is written here is not worth a line
  const config = { "core.logAllRefUpdates": "false" };
  const git = (input?: string) => gitIn(tree, { ...shared, env: isolation, config, input });
  const format = sha.length === 64 ? "sha256" : "sha1";
  const initial = branch === undefined ? [] : [`--initial-branch=${branch}`];
  await git()`git init --quiet --template= --object-format=${format} ${initial}`;
  for (const name of ["hooks", "info"]) await mkdir(join(dir, name));
  const packs = join(mirror, "objects", "pack");
  for (const name of await readdir(packs)) {
    if (!/\.(?:pack|idx|rev)$/.test(name)) continue;
    const [from, to] = [join(packs, name), join(dir, "objects", "pack", name)];
    // a file system may have no hard links
    await link(from, to).catch(() => copyFile(from, to));
  }
  if (depth > 0) {
    const ends = ((await readIfThere(join(mirror, "shallow"))) ?? "").split("\n");
    const ours = ends.filter((line) => (depth === 1 ? line === sha : line !== ""));
    if (ours.length > 0) await writeFile(join(dir, "shallow"), `${ours.join("\n")}\n`);
  }
  const refs = new Map(depth === 0 ? await fetchedRefs(mirror, shared) : []);
  if (branch !== undefined) {
    refs.set(`refs/heads/${branch}`, sha);
    // a clone of all branches says where each is; one of a pinned commit must not claim it for the branch
    const tracking = `refs/remotes/origin/${branch}`;
    if (!refs.has(tracking)) refs.set(tracking, sha);
  }
  const creations = [...refs].map(([ref, id]) => `create ${ref} ${id}\n`);
  await git(creations.join(""))`git update-ref --stdin`;
  if (depth === 0) await git()`git pack-refs --all`;
  const one = branch !== undefined && depth > 0 ? ["-t", branch] : [];
  const head = branch !== undefined && isDefault ? ["-m", branch] : [];
  await git()`git remote add ${one} ${head} -- origin ${remote.url}`;
  if (branch === undefined) await git()`git update-ref --no-deref HEAD ${sha}`;
  else await git()`git branch --quiet --set-upstream-to=origin/${branch} -- ${branch}`;
  // its own objects are all there
  await git()`git fsck --connectivity-only --no-dangling`;
}

/** Branches and tags that the mirror has of the remote, with their commits. */
async function fetchedRefs(mirror: string, shared: Shared): Promise<[string, string][]> {
  const git = mirrorGit(mirror, shared);
  const format = "--format=%(refname) %(objectname)";
  const text = await textOf(git`git for-each-ref ${format} refs/remotes/origin refs/tags`);
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => line.split(" ") as [string, string]);
}
