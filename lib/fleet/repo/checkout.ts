import { copyFile, link, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure } from "../../core/errors.ts";
import { $, type Shell } from "../../exec/exec.ts";
import { exists, readIfThere } from "../../files/files.ts";
import { gitIn, textOf } from "../../git/git.ts";
import { mirrorGit } from "./mirror.ts";
import { isolation, type Shared } from "./remote.ts";
import { indexOf, type Place, type Tree } from "./state.ts";

/**
 * A tree: a checkout like a fresh clone's, built beside the others. A tree that is no longer needed may be the
 * raw material, since then only what differs is written; its `.git` is never used, as somebody may have
 * written into it: git's index of each tree is kept elsewhere.
 */

/** The tree under way. */
function underWay({ building }: Place): { tree: string; index: string } {
  return { tree: join(building, "tree"), index: join(building, "index") };
}

/** `$` for git with the mirror's objects, a tree's files and our own index of it. */
function treeGit(
  { mirror }: Place,
  { tree, index }: { tree: string; index: string },
  shared: Shared,
  env: Record<string, string> = {},
): Shell {
  return mirrorGit(mirror, {
    ...shared,
    env: { ...env, GIT_WORK_TREE: tree, GIT_INDEX_FILE: index },
    config: {
      "core.bare": "false",
      "core.untrackedCache": "false",
      "checkout.workers": "0",
      "core.fileMode": "true",
      "core.symlinks": "true",
      "advice.detachedHead": "false",
    },
  });
}

/**
 * Bring a former tree, which is at `building/tree` with its index, to what git knows of it: no `.git`, no
 * stray file, no empty folder, no odd mode of a folder. Changed files are left to `buildTree`.
 */
export async function cleanTree(place: Place, shared: Shared): Promise<void> {
  const { tree, index } = underWay(place);
  const git = treeGit(place, { tree, index }, shared);
  await rm(join(tree, ".git"), { recursive: true, force: true });
  await git`git clean -ffdxq`;
  // neither clean nor status looks inside a submodule's folder, which a fresh clone has empty
  for (const path of await submodules(git))
    for (const name of await readdir(join(tree, path)).catch(() => []))
      await rm(join(tree, path, name), { recursive: true, force: true });
  // git does not know of folders' modes
  const mode = (0o777 & ~process.umask()).toString(8);
  await $(shared)`find ${tree} -type d -not -perm ${mode} -exec chmod ${mode} -- {} +`;
}

/** The folders of submodules. */
async function submodules(git: Shell): Promise<string[]> {
  const entries = (await git`git ls-files --stage -z`).stdout.split("\0");
  return entries
    .filter((entry) => entry.startsWith("160000 "))
    .map((entry) => entry.replace(/^[^\t]*\t/, ""));
}

/** What a tree must be. */
export interface TreePlan {
  sha: string;
  branch: string | undefined;
  url: string;
  /** Commits of history; 0: all. */
  depth: number;
  /** The remote's HEAD names this branch: a clone has origin/HEAD then. */
  isDefault: boolean;
}

/**
 * Build the tree at `building/tree` with its index at `building/index`, from nothing or from a cleaned one. When it
 * is done, the tree would survive a power cut.
 * @throws {Failure} when what came out is not exactly the commit
 */
export async function buildTree(place: Place, plan: TreePlan, shared: Shared): Promise<void> {
  const { tree, index } = underWay(place);
  const git = treeGit(place, { tree, index }, shared);
  await mkdir(tree, { recursive: true });
  // for `git status`; it also keeps the commit
  await writeFile(join(place.mirror, "HEAD"), `${plan.sha}\n`);
  await git`git read-tree --reset -u ${plan.sha}`;
  await makeGitFolder(place, tree, plan, shared);
  await copyFile(index, join(tree, ".git", "index"));
  const odd = await textOf(git`git status ${quickStatus} --ignored --untracked-files=all`);
  if (odd !== "") {
    const first = odd.split("\0", 1)[0]?.slice(3) ?? "";
    throw new Failure(`the new tree is not commit ${plan.sha}: ${JSON.stringify(first)} differs`);
  }
  // syncfs(2)
  await $({ ...shared, nothrow: true })`sync --file-system -- ${place.building}`;
}

/** Submodules are off: what .gitmodules says of them, wrong values too, does not matter. */
const quickStatus = ["--porcelain", "-z", "--no-renames", "--ignore-submodules=all"];

/**
 * The `.git` of a fresh clone, with the mirror's packs as hard links, as `git clone --local` makes them: the tree
 * does not depend on the mirror.
 */
async function makeGitFolder(
  { mirror }: Place,
  tree: string,
  { sha, branch, url, depth, isDefault }: TreePlan,
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
    const remote = `refs/remotes/origin/${branch}`;
    if (!refs.has(remote)) refs.set(remote, sha);
  }
  const creations = [...refs].map(([ref, id]) => `create ${ref} ${id}\n`);
  await git(creations.join(""))`git update-ref --stdin`;
  if (depth === 0) await git()`git pack-refs --all`;
  const one = branch !== undefined && depth > 0 ? ["-t", branch] : [];
  const head = branch !== undefined && isDefault ? ["-m", branch] : [];
  await git()`git remote add ${one} ${head} -- origin ${url}`;
  if (branch === undefined) await git()`git update-ref --no-deref HEAD ${sha}`;
  else await git()`git branch --quiet --set-upstream-to=origin/${branch} -- ${branch}`;
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

/**
 * Whether a tree is still the commit it was made from: what is tracked, and with `strict` nothing else.
 * A tree about which nothing can be said is not.
 */
export async function isUnchanged(
  place: Place,
  { id }: Tree,
  strict: boolean,
  shared: Shared,
): Promise<boolean> {
  const [tree, index] = [join(place.trees, id), indexOf(place, id)];
  if (!(await exists(index))) return false;
  const git = treeGit(place, { tree, index }, shared, { GIT_OPTIONAL_LOCKS: "0" });
  const others = strict ? ["--ignored", "--untracked-files=all"] : ["--untracked-files=no"];
  const { exitCode, stdout } = await git`git status ${quickStatus} ${others}`.nothrow();
  // the first letter is about the mirror's HEAD, the second about the files
  const same = stdout.split("\0").every((entry) => entry === "" || entry[1] === " ");
  if (exitCode !== 0 || !same) return false;
  if (!strict) return true;
  const inside = (await submodules(git)).map((path) =>
    readdir(join(tree, path)).catch(() => ["gone"]),
  );
  return (await Promise.all(inside)).every((names) => names.length === 0);
}
