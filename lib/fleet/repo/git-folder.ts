import { copyFile, link, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readIfThere } from "../../files/files.ts";
import { gitIn, textOf } from "../../git/git.ts";
import { mirrorGit } from "./mirror.ts";
import { isolation, type Remote, type Shared } from "./remote.ts";
import type { Place } from "./state.ts";

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
  return text
    .split("\n")
    .map((line) => line.split(" "))
    .flatMap(([ref, id]) => (ref && id ? [[ref, id]] : []));
}
