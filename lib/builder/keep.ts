import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { lstat, mkdir, open, readdir, readFile, readlink, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Checkout, stateFolder } from "../git/checkout.ts";
import type { Shell } from "../exec/exec.ts";
import { gitIn, textOf } from "../git/git.ts";
import { exists, fsyncFolder, removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import { shortSha } from "../core/names.ts";
import type { BuildContext } from "./context.ts";

/**
 * What a pull would overwrite is put into .git/boatyard/kept/ first and named: nothing is lost silently.
 */
export interface Place {
  context: BuildContext;
  checkout: Checkout;
  git: Shell;
  say: (line: string) => void;
}

/** So many patch files stay; the oldest go. */
const patchesKept = 50;

/**
 * Changes to tracked files become a patch that `git apply` takes.
 * @param dirty entries of `git status --porcelain=v1 -z`.
 */
export async function keepTrackedChanges(
  { context, checkout, git, say }: Place,
  dirty: readonly string[],
  head: string | undefined,
): Promise<void> {
  const folder = join(stateFolder(checkout), "kept");
  await mkdir(folder, { recursive: true });
  await removeStaleTemporaries(folder);
  const names = dirty.map((entry) => entry.slice(3));
  const against = head === undefined ? "--cached" : head;
  await savePatch(git, ["--submodule=short", against], `${context.run}.patch`);
  // a submodule's own changes are no part of its parent's diff
  for (const [at, name] of names.entries()) {
    const dir = join(checkout.dir, name);
    if (!(await exists(join(dir, ".git")))) continue;
    const readable = name.replace(/\W+/g, "_").slice(-100);
    await savePatch(gitIn(dir), ["HEAD"], `${context.run}-${at + 1}-${readable}.patch`);
  }
  await fsyncFolder(folder);
  const patches = (await patchesIn(folder)).sort();
  for (const name of patches.slice(0, -patchesKept)) await rm(join(folder, name), { force: true });

  async function savePatch(git: Shell, against: string[], name: string): Promise<void> {
    const path = join(folder, name);
    const temporary = temporaryBeside(path);
    const file = await open(temporary, "wx", 0o600);
    try {
      const how = ["--binary", "--no-color", "--no-ext-diff"];
      await git({ stdio: ["ignore", file.fd, "pipe"] })`git diff ${how} ${against} --`;
      await file.sync();
    } finally {
      await file.close();
    }
    const content = await readFile(temporary);
    const twin = await sameContent(folder, content);
    if (content.length === 0 || twin !== undefined) await rm(temporary);
    else await rename(temporary, path);
    if (content.length === 0) return;
    say(
      `changed in the checkout: ${some(names)}; the changes are kept in ${join(folder, twin ?? name)} (git apply brings them back)`,
    );
  }
}

/** A patch of the same content from an earlier run: a build that changes tracked files would leave one each time. */
async function sameContent(folder: string, content: Buffer): Promise<string | undefined> {
  for (const name of await patchesIn(folder)) {
    const { size } = await lstat(join(folder, name));
    if (size === content.length && content.equals(await readFile(join(folder, name)))) return name;
  }
  return undefined;
}

async function patchesIn(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.endsWith(".patch"));
}

/** Commits that are in this checkout alone get a ref of their own; a rewritten history is named. */
export async function keepLocalCommits(
  { context, git, say }: Place,
  { head, sha, tip, tracking }: { head: string; sha: string; tip: string; tracking: string },
): Promise<void> {
  const quiet = git({ nothrow: true });
  const isIn = async (commit: string) =>
    (await quiet`git merge-base --is-ancestor ${head} ${commit}`).ok;
  if (await isIn(sha)) return;
  if (await isIn(tip)) return say(`goes back from ${shortSha(head)} to ${shortSha(sha)}`);
  // where the remote's branch was before the last fetch that moved it
  if (await isIn(`${tracking}@{1}`))
    return say(
      `the history was rewritten (a force-push): ${shortSha(head)} is left for ${shortSha(sha)}; git reflog still knows it`,
    );
  const ref = `refs/boatyard/kept/${context.run}`;
  await git`git update-ref ${ref} ${head}`;
  const count = await textOf(git`git rev-list --count ${head} ${`^${sha}`} --`);
  say(
    `the checkout had ${count === "1" ? "a commit" : `${count} commits`} of its own, kept as ${ref} (git log ${ref})`,
  );
}

/** Files that git does not track, where the new commit brings a file of that name, are moved aside. */
export async function keepUntracked(
  { context, checkout, git, say }: Place,
  sha: string,
): Promise<void> {
  // against the index, not HEAD: a file that git was told to forget (git rm --cached) is not tracked either
  const { stdout } =
    await git`git diff-index --cached -R -z --no-renames --diff-filter=A ${sha} --`;
  // for each file `:MODE MODE OBJECT OBJECT A`, then its path
  const fields = stdout.split("\0");
  const folder = join(stateFolder(checkout), "kept", context.run);
  const moved: string[] = [];
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const [path = "", object = ""] = [fields[index + 1], fields[index]?.split(" ")[3]];
    const inTheWay = await obstacle(checkout.dir, path);
    if (
      inTheWay === undefined ||
      (inTheWay === path && (await hasContent(join(checkout.dir, path), object)))
    )
      continue;
    const target = join(folder, inTheWay);
    await mkdir(dirname(target), { recursive: true });
    await rename(join(checkout.dir, inTheWay), target);
    moved.push(inTheWay);
  }
  if (moved.length > 0)
    say(`not tracked, but in the way of new files: ${some(moved)}; moved to ${folder}`);
}

/** The first few of some names. */
function some(names: readonly string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}

/** The part of `path` that something else occupies: the file itself, or a parent that is not a folder. */
async function obstacle(dir: string, path: string): Promise<string | undefined> {
  const parts = path.split("/");
  for (let length = 1; length <= parts.length; length++) {
    const part = parts.slice(0, length).join("/");
    const found = await lstat(join(dir, part)).catch(() => undefined);
    if (!found) return undefined;
    if (length === parts.length || !found.isDirectory()) return part;
  }
  return undefined;
}

/** Whether a file is the blob of that id: then nothing is lost by overwriting it. */
async function hasContent(path: string, object: string): Promise<boolean> {
  const found = await lstat(path);
  if (found.isDirectory()) return false;
  const content = found.isSymbolicLink() ? Buffer.from(await readlink(path)) : await readFile(path);
  const hash = createHash(object.length === 64 ? "sha256" : "sha1");
  return hash.update(`blob ${content.length}\0`).update(content).digest("hex") === object;
}
