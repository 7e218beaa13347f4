import { Buffer } from "node:buffer";
import { chmodSync, lstatSync, readdirSync, rmSync } from "node:fs";
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure } from "../core/errors.ts";
import { run } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { git, gitText, type OldGitOptions } from "../git/git.ts";
import { makeGitFolder, type TreePlan } from "./git-folder.ts";
import { mirrorOptions, type Shared } from "./mirror.ts";
import type { Place } from "./place.ts";

/**
 * A tree: a checkout like a fresh clone's, built beside the others. A tree that nobody needs any more may be the
 * raw material, since then only what differs is written; its `.git` is never used, as somebody may have
 * written into it, and git's index of it is one of our own.
 */

/** git with the mirror's objects, a tree's files and our own index of it. */
function treeOptions(place: Place, tree: string, index: string, shared: Shared): OldGitOptions {
  const base = mirrorOptions(place.mirror, shared);
  return {
    ...base,
    env: { ...base.env, GIT_WORK_TREE: tree, GIT_INDEX_FILE: index },
    config: {
      ...base.config,
      "core.bare": "false",
      "core.untrackedCache": "false",
      "checkout.workers": "0",
      "core.fileMode": "true",
      "core.symlinks": "true",
      "advice.detachedHead": "false",
    },
  };
}

function buildingPlace(place: Place): { tree: string; index: string } {
  return { tree: join(place.building, "tree"), index: join(place.building, "index") };
}

/**
 * Bring a former tree, which stands at `building/tree` with its index, to what git knows of it: no `.git`, no
 * stray file, no empty folder, no odd mode of a folder. Changed files are left to `buildTree`.
 */
export async function cleanTree(place: Place, shared: Shared): Promise<void> {
  const { tree, index } = buildingPlace(place);
  const options = treeOptions(place, tree, index, shared);
  rmSync(join(tree, ".git"), { recursive: true, force: true });
  const [links] = await Promise.all([
    submodules(index, options),
    git(["clean", "-ffdxq"], options),
  ]);
  for (const path of links) await empty(join(tree, path));
  restoreFolders(tree);
}

/**
 * Build the tree at `building/tree` with its index at `building/index`, from nothing or from a cleaned one. When it
 * is done, the tree would survive a power cut.
 * @throws {Failure} when what came out is not exactly the commit
 */
export async function buildTree(place: Place, plan: TreePlan, shared: Shared): Promise<void> {
  const { tree, index } = buildingPlace(place);
  await mkdir(tree, { recursive: true });
  const options = treeOptions(place, tree, index, shared);
  // HEAD for `git status`; it also keeps the commit
  await writeFile(join(place.mirror, "HEAD"), `${plan.sha}\n`);
  // side by side: git never looks into a folder named .git of its work tree
  await bothWell(
    git(["read-tree", "--reset", "-u", plan.sha], options),
    makeGitFolder(place, tree, plan, shared),
  );
  await copyFile(index, join(tree, ".git", "index"));
  await bothWell(verify(options, plan.sha), flush(place.building));
}

/** Wait for both also when one fails: what is still writing would be in the way of the next attempt. */
async function bothWell(...works: [Promise<unknown>, Promise<unknown>]): Promise<void> {
  for (const each of await Promise.allSettled(works)) {
    if (each.status === "rejected") throw each.reason;
  }
}

/** Submodules are off: what .gitmodules says of them, wrong values too, is nobody's concern. */
const quickStatus = ["status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all"];

/** The folders of submodules: a fresh clone has them empty, and neither clean nor status looks inside. */
async function submodules(index: string, options: OldGitOptions): Promise<string[]> {
  // each stands in the index with its mode in these four bytes (gitformat-index(5)): without them there is none,
  // and git need not be asked
  if (!(await readFile(index)).includes(linkMode)) return [];
  const entries = (await gitText(["ls-files", "--stage", "-z"], options)).split("\0");
  return entries
    .filter((entry) => entry.startsWith("160000 "))
    .map((entry) => entry.replace(/^[^\t]*\t/, ""));
}

const linkMode = Buffer.of(0, 0, 0xe0, 0);

async function empty(folder: string): Promise<void> {
  for (const name of await readdir(folder).catch(() => [])) {
    await rm(join(folder, name), { recursive: true, force: true });
  }
}

async function verify(options: OldGitOptions, sha: string): Promise<void> {
  const text = await gitText([...quickStatus, "--ignored", "--untracked-files=all"], options);
  if (text === "") return;
  const first = text.split("\0", 1)[0]?.slice(3) ?? "";
  throw new Failure(`the new tree is not commit ${sha}: ${JSON.stringify(first)} differs`);
}

/** Folders have modes too, which git does not know of. Not by promises: that takes ten times as long. */
function restoreFolders(folder: string): void {
  const mode = 0o777 & ~process.umask();
  const visit = (path: string): void => {
    if ((lstatSync(path).mode & 0o7777) !== mode) chmodSync(path, mode);
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) visit(join(path, entry.name));
    }
  };
  visit(folder);
}

/**
 * Whether a tree that stands still is the commit it was made from: what is tracked, and with `strict` nothing else.
 * A tree about which nothing can be said is not.
 */
export async function isUnchanged(
  place: Place,
  tree: { id: string; sha: string },
  strict: boolean,
  shared: Shared,
): Promise<boolean> {
  const index = join(place.home, "index", tree.id);
  if (!(await exists(index))) return false;
  const options = treeOptions(place, join(place.trees, tree.id), index, shared);
  const untracked = strict ? ["--ignored", "--untracked-files=all"] : ["--untracked-files=no"];
  const result = await git([...quickStatus, ...untracked], {
    ...options,
    env: { ...options.env, GIT_OPTIONAL_LOCKS: "0" },
    check: false,
  });
  if (result.code !== 0) return false;
  // the first letter is about the mirror's HEAD, the second about the files
  const same = result.stdout.split("\0").every((entry) => entry === "" || entry[1] === " ");
  if (!same || !strict) return same;
  const folder = join(place.trees, tree.id);
  const inside = (await submodules(index, options)).map((path) =>
    readdir(join(folder, path)).catch(() => ["gone"]),
  );
  return (await Promise.all(inside)).every((names) => names.length === 0);
}

/** Wait until everything is on the disk (syncfs(2)). */
async function flush(folder: string): Promise<void> {
  await run(["sync", "--file-system", "--", folder], { check: false });
}
