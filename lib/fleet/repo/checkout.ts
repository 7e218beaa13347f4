import { createHash } from "node:crypto";
import { copyFile, lstat, mkdir, readdir, readlink, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Failure } from "../../core/errors.ts";
import { $, type Shell } from "../../exec/exec.ts";
import { exists } from "../../files/files.ts";
import { gitIn, textOf } from "../../git/git.ts";
import { type ClonePlan, makeGitFolder, mirrorGit } from "./mirror.ts";
import { type Remote, type Shared } from "../remote.ts";
import { indexOf, type Place, type Tree } from "./state.ts";

/**
 * A tree: a checkout like a fresh clone's, built from nothing beside the others and never written again. Its `.git` is
 * for its readers, and never used here, as anybody may have written into it: git's index of each tree is elsewhere.
 */

/** The filter that replaces LFS pointers by their files. Our own words: what a repo says of filters does not count. */
const lfsFilter = {
  "filter.lfs.process": "git-lfs filter-process",
  "filter.lfs.clean": "git-lfs clean -- %f",
  "filter.lfs.smudge": "git-lfs smudge -- %f",
  "filter.lfs.required": "true",
};

/** `$` for git with the mirror's objects, a tree's files and our own index of it. */
function treeGit(
  { mirror }: Place,
  { tree, index }: { tree: string; index: string },
  shared: Shared,
  { remote, lfs, env }: { remote?: Remote; lfs?: boolean; env?: Record<string, string> } = {},
): Shell {
  const fromRemote = lfs && remote ? { ...remote.options.env, GIT_LFS_SKIP_SMUDGE: "0" } : {};
  const address = lfs && remote ? { ...remote.options.config, "remote.origin.url": remote.url } : {};
  return mirrorGit(mirror, {
    ...shared,
    env: { ...fromRemote, ...env, GIT_WORK_TREE: tree, GIT_INDEX_FILE: index },
    config: {
      "core.bare": "false",
      "core.untrackedCache": "false",
      "checkout.workers": "0",
      "core.fileMode": "true",
      "core.symlinks": "true",
      "advice.detachedHead": "false",
      ...(lfs ? lfsFilter : {}),
      ...address,
    },
  });
}

/** The folders of submodules. */
async function submodulesIn(git: Shell): Promise<string[]> {
  const entries = (await git`git ls-files --stage -z`).stdout.split("\0");
  return entries.filter((entry) => entry.startsWith("160000 ")).map((entry) => entry.replace(/^[^\t]*\t/, ""));
}

/** What a tree must be. */
interface TreePlan extends ClonePlan {
  /** Fetch submodules, too; else their folders are empty. */
  submodules: boolean;
  /** Fetch the files that Git LFS keeps, too; else they are pointers. */
  lfs: boolean;
}

/**
 * Build the tree at `building/tree` with its index at `building/index`, from nothing. When it is done, the tree would
 * survive a power cut.
 * @returns what `fingerprint` says of its submodules, where they were fetched
 * @throws {Failure} when what came out is not exactly the commit
 */
export async function buildTree(place: Place, plan: TreePlan, shared: Shared): Promise<string | undefined> {
  const { sha, remote, lfs } = plan;
  const [tree, index] = [join(place.building, "tree"), join(place.building, "index")];
  await rm(place.building, { recursive: true, force: true });
  await mkdir(tree, { recursive: true });
  const git = treeGit(place, { tree, index }, shared, { remote, lfs });
  if (lfs) await requireLfs(git);
  // for `git status`; it also keeps the commit
  await writeFile(join(place.mirror, "HEAD"), `${sha}\n`);
  await together(git`git read-tree --reset -u ${sha}`, makeGitFolder(place, tree, plan, shared));
  await copyFile(index, join(tree, ".git", "index"));
  const paths = plan.submodules ? await submodulesIn(git) : [];
  if (paths.length > 0) await fetchSubmodules(tree, remote);
  await together(compare(git, sha), syncFolder(place.building, shared));
  if (lfs) await pruneLfs(place, git, sha);
  return plan.submodules ? await fingerprint(tree, paths) : undefined;
}

/** Steps at the same time. When the first error is thrown, all have ended: none writes what its caller removes. */
async function together(...steps: PromiseLike<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(steps)).find(({ status }) => status === "rejected");
  if (failed) throw (failed as PromiseRejectedResult).reason;
}

/** @throws {Failure} when a tree, of which `git` is, has not exactly the files of a commit */
async function compare(git: Shell, sha: string): Promise<void> {
  const odd = await textOf(git`git status ${quickStatus} --ignored --untracked-files=all`);
  const [first] = odd.split("\0", 1);
  if (first) throw new Failure(`the new tree is not commit ${sha}: ${JSON.stringify(first.slice(3))} differs`);
}

/** Bring the whole file system of a folder to the disk: syncfs(2). */
export async function syncFolder(folder: string, shared: Shared): Promise<void> {
  await $({ ...shared, nothrow: true })`sync --file-system -- ${folder}`;
}

/** Submodules are looked at otherwise: what .gitmodules says of them, wrong values too, does not matter. */
const quickStatus = ["--porcelain", "-z", "--no-renames", "--ignore-submodules=all"];

async function requireLfs(git: Shell): Promise<void> {
  if ((await git({ nothrow: true })`git lfs version`).exitCode === 0) return;
  throw new Failure("lfs: true needs git-lfs, which is not installed; run: apt-get install git-lfs");
}

/** Of the LFS files that were fetched, keep those that the tree has: the next one is made of them. */
async function pruneLfs({ mirror }: Place, git: Shell, sha: string): Promise<void> {
  const folder = join(mirror, "lfs", "objects");
  const listed = await textOf(git`git lfs ls-files --long ${sha}`);
  const needed = new Set(listed.split("\n").map((line) => line.split(" ")[0]));
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  for (const name of names)
    if (/^[0-9a-f]{64}$/.test(basename(name)) && !needed.has(basename(name)))
      await rm(join(folder, name), { force: true });
}

/** Submodules as a fresh clone has them, over the transport of the repo's own remote. */
async function fetchSubmodules(tree: string, { options }: Remote): Promise<void> {
  const config = {
    ...options.config,
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "init.templateDir": "",
  };
  const git = gitIn(tree, { ...options, config });
  await git`git submodule --quiet update --init --recursive --force`;
}

/** The files below some folders by path, mode, size and time, as one sum: any change to them shows. */
async function fingerprint(tree: string, folders: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  const visit = async (path: string): Promise<void> => {
    for (const name of (await readdir(join(tree, path)).catch(() => [])).sort()) {
      const inner = join(path, name);
      const info = await lstat(join(tree, inner));
      const target = info.isSymbolicLink() ? await readlink(join(tree, inner)) : "";
      // a folder's time also changes with what git keeps in .git
      const time = info.isDirectory() ? 0 : info.mtimeMs;
      const size = info.isDirectory() ? 0 : info.size;
      hash.update(`${JSON.stringify([inner, info.mode, size, time, target])}\n`);
      if (info.isDirectory()) await visit(inner);
    }
  };
  for (const folder of [...folders].sort()) await visit(folder);
  return hash.digest("hex");
}

/** How closely a tree is looked at. */
export interface Comparison {
  /** Nothing may have been added either. */
  strict: boolean;
  /** It must hold the files of Git LFS, or must not; undefined: as it was built. */
  lfs?: boolean;
  /** The same for its submodules. */
  submodules?: boolean;
}

/**
 * Whether a tree is still the commit it was made from: what is tracked, and with `strict` nothing else.
 * A tree about which nothing can be said is not.
 */
export async function isUnchanged(
  place: Place,
  { id, submodules, lfs = false }: Tree,
  wanted: Comparison,
  shared: Shared,
): Promise<boolean> {
  const [tree, index] = [join(place.trees, id), indexOf(place, id)];
  const has = { submodules: submodules !== undefined, lfs };
  if (wanted.submodules !== undefined && wanted.submodules !== has.submodules) return false;
  if (wanted.lfs !== undefined && wanted.lfs !== lfs) return false;
  if (!(await exists(index))) return false;
  const env = { GIT_OPTIONAL_LOCKS: "0" };
  const git = treeGit(place, { tree, index }, shared, { lfs, env });
  const others = wanted.strict ? ["--ignored", "--untracked-files=all"] : ["--untracked-files=no"];
  const { exitCode, stdout } = await git`git status ${quickStatus} ${others}`.nothrow();
  // the first letter is about the mirror's HEAD, the second about the files
  const same = stdout.split("\0").every((entry) => entry === "" || entry[1] === " ");
  if (exitCode !== 0 || !same) return false;
  if (!wanted.strict) return true;
  const paths = await submodulesIn(git);
  if (submodules !== undefined) return (await fingerprint(tree, paths)) === submodules;
  const inside = paths.map((path) => readdir(join(tree, path)).catch(() => ["gone"]));
  return (await Promise.all(inside)).every((names) => names.length === 0);
}
