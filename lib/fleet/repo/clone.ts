import { createHash } from "node:crypto";
import { copyFile, link, lstat, mkdir, readdir, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Failure, Refused } from "../../core/errors.ts";
import { $, ProcessOutput, type Shell } from "../../exec/exec.ts";
import { exists, readIfThere } from "../../files/files.ts";
import { gitIn, type GitOptions, textOf } from "../../git/git.ts";
import { checkSigned, type Signers } from "../../git/signers.ts";
import { isolation, type Remote, RemoteLacks, type Shared } from "../remote.ts";
import type { RepoSettings } from "../settings.ts";
import type { Place, Tree } from "./trees.ts";

/**
 * A tree: a fresh clone beside the others, never written again. It begins with hard links to the packs of the served
 * tree, as `git clone --local` makes them (git itself does not where its source is shallow): an update moves only what
 * is new, the disk holds it once, and each tree is whole on its own. Anybody may have written into a served tree, so of
 * its `.git` only packs, refs and where its history ends are taken, and git checks what it makes of them.
 */

/** What a tree must be. */
export interface Goal extends Pick<RepoSettings, "depth" | "submodules" | "lfs"> {
  sha: string;
  branch: string | undefined;
  /** The commit was asked for by its id: it may be an older one of the branch. */
  pinned: boolean;
  /** The remote's HEAD names this branch: a clone has origin/HEAD then. */
  isDefault: boolean;
  /** Who must have signed it; undefined: nobody. */
  signedBy: Signers | undefined;
  /** A commit that must be in its history. */
  above: string | undefined;
}

/** Settings of ours, whatever a repository or anybody's configuration says. */
const settings = {
  "core.hooksPath": "/dev/null",
  "core.fsmonitor": "false",
  "core.untrackedCache": "false",
  "core.fileMode": "true",
  "core.symlinks": "true",
  // it comes to the disk with the whole tree; until then all of it can be fetched again
  "core.fsync": "none",
  // always a pack, never loose objects: a pack carries a sum over all its bytes
  "fetch.unpackLimit": "1",
  "transfer.unpackLimit": "1",
  "fetch.writeCommitGraph": "false",
  "gc.auto": "0",
  "credential.interactive": "false",
  "checkout.workers": "0",
  "init.templateDir": "",
  // reflogs are on in every clone, but what is written here is not worth a line
  "core.logAllRefUpdates": "false",
};

/** `$` for git; with `lfs` its filter replaces pointers by files. A repo's own filters do not count. */
function gitOf(dir: string, { env, config, ...options }: GitOptions, lfs = false): Shell {
  const filter = lfs && {
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.required": "true",
  };
  return gitIn(dir, {
    ...options,
    env: { ...isolation, ...env, ...(lfs ? { GIT_LFS_SKIP_SMUDGE: "0" } : {}) },
    config: { ...config, ...settings, ...filter },
  });
}

/** `$` for git that compares a tree by an index and a git folder of ours. */
function comparingGit(tree: string, index: string, shared: Shared, lfs = false): Shell {
  const objects = join(tree, ".git", "objects");
  const env = { GIT_DIR: index, GIT_WORK_TREE: tree, GIT_OBJECT_DIRECTORY: objects, GIT_OPTIONAL_LOCKS: "0" };
  return gitOf("/", { ...shared, env, config: { "core.bare": "false" } }, lfs);
}

/**
 * Build the tree at `building/tree` with our git folder for it at `building/index`, from nothing. When it is done, the
 * tree would survive a power cut.
 * @param reference the tree whose packs it begins with
 * @returns what `fingerprint` says of its submodules, where they were fetched
 * @throws {Failure} when what came out is not exactly the commit
 */
export async function buildTree(
  place: Place,
  remote: Remote,
  goal: Goal,
  reference: Tree | undefined,
  shared: Shared,
): Promise<string | undefined> {
  const { sha, branch, depth, lfs } = goal;
  const [tree, index] = [place.in("building", "tree"), place.in("building", "index")];
  const dir = join(tree, ".git");
  await rm(place.in("building"), { recursive: true, force: true });
  // damaged files are fetched again like damaged packs
  if (!lfs || !reference) await rm(place.in("lfs"), { recursive: true, force: true });
  await mkdir(tree, { recursive: true });
  const git = gitOf(tree, shared);
  const remoteGit = gitOf(tree, remote.options, lfs);
  if (lfs) await requireLfs(git);
  const format = `--object-format=${sha.length === 64 ? "sha256" : "sha1"}`;
  const initial = branch === undefined ? [] : [`--initial-branch=${branch}`];
  await mkdir(join(dir, "objects", "pack"), { recursive: true });
  for (const name of ["hooks", "info"]) await mkdir(join(dir, name), { recursive: true });
  if (reference) await linkObjects(join(place.tree(reference.id), ".git"), dir, reference.sha, depth);
  await git`git init --quiet ${format} ${initial} && git init --quiet --bare ${format} -- ${index}`;
  if (reference) {
    // a damaged pack, which git would pass over and keep
    await git`git cat-file -e ${reference.sha}^{tree}`;
    // nor one that somebody made, of other content than the commit that was signed
    if (goal.signedBy) await git`git verify-pack -- .git/objects/pack/*.idx`;
  }
  await fetchGoal(remoteGit, dir, remote.url, goal);
  if (goal.signedBy) await checkSigned(tree, sha, goal.signedBy, { ...shared, env: isolation });
  if (goal.above && (await git`git merge-base --is-ancestor ${goal.above} ${sha}`.nothrow()).exitCode !== 0)
    throw new Refused(
      `commit ${sha} has not the served one in its history, so it may be an older one; ` +
        "slave-activate --rollback goes back; --sha with --back does where slave.yml says allow_back: true",
    );
  const detach = branch === undefined ? ["--no-deref"] : [];
  await git`git update-ref ${detach} HEAD ${sha} &&
    git for-each-ref --format='delete %(refname)' refs/boatyard | git update-ref --stdin`;
  const ends = ((await readIfThere(join(dir, "shallow"))) ?? "").split("\n");
  // more than that was fetched when all since the served commit had to be
  const isCut = depth === 1 && (ends[0] !== "" || goal.above !== undefined);
  const ours = isCut ? [sha] : ends.filter((line) => line !== "");
  if (ours.length > 0) await writeFile(join(dir, "shallow"), `${ours.join("\n")}\n`);
  else await rm(join(dir, "shallow"), { force: true });
  if (await hasTooManyPacks(dir)) await git`git repack -a -d --quiet && git prune --expire=now`;

  const origin = { ...remote.options.config, "remote.origin.url": remote.url };
  const files = lfs ? gitOf(tree, { ...remote.options, config: origin }, true) : git;
  if (lfs) {
    await mkdir(place.in("lfs"), { recursive: true });
    await symlink(place.in("lfs"), join(dir, "lfs"));
  }
  await together(files`git read-tree --reset -u ${sha}`, asCloned(git, remote.url, goal));
  await writeFile(join(index, "HEAD"), `${sha}\n`);
  await copyFile(join(dir, "index"), join(index, "index"));
  // over the transport of the repo's own remote
  if (goal.submodules) await remoteGit`git submodule --quiet update --init --recursive --force`;
  const odd = await together(
    oddEntries(comparingGit(tree, index, shared, lfs), true),
    syncFolder(place.in("building"), shared),
  );
  if (odd?.[0]) throw new Failure(`the new tree is not commit ${sha}: ${JSON.stringify(odd[0].slice(3))} differs`);
  if (lfs) {
    await pruneLfs(place.in("lfs"), git, sha);
    await rm(join(dir, "lfs"));
  }
  return goal.submodules ? await fingerprint(tree, index, shared) : undefined;
}

/** Steps at the same time. When the first error is thrown, all have ended: none writes what its caller removes. */
async function together<T>(first: PromiseLike<T>, second: PromiseLike<unknown>): Promise<T> {
  await Promise.allSettled([first, second]);
  await second;
  return await first;
}

/** Begin with the objects of another tree: of its packs, its refs and the ends of its history. */
async function linkObjects(from: string, to: string, sha: string, depth: number): Promise<void> {
  const packs = join("objects", "pack");
  for (const name of await readdir(join(from, packs))) {
    if (!/\.(?:pack|idx|rev)$/.test(name)) continue;
    const [one, other] = [join(from, packs, name), join(to, packs, name)];
    // a file system may have no hard links
    await link(one, other).catch(() => copyFile(one, other));
  }
  // by refs git knows which objects it has
  const refs = depth > 0 ? "" : ((await readIfThere(join(from, "packed-refs"))) ?? "");
  const taken = refs.split("\n").filter((line) => /^[0-9a-f]+ refs\/(?:remotes\/origin|tags)\//.test(line));
  await writeFile(join(to, "packed-refs"), `${[`${sha} refs/boatyard/reference`, ...taken].join("\n")}\n`);
  const shallow = await readIfThere(join(from, "shallow"));
  if (shallow !== undefined) await writeFile(join(to, "shallow"), shallow);
}

/** Fetch a commit, and as much history as is wanted. @throws {RemoteLacks} */
async function fetchGoal(git: Shell, dir: string, url: string, goal: Goal): Promise<void> {
  const { sha, branch, depth, pinned, above } = goal;
  const plain = ["--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"];
  const fetch = (history: string[], ...refs: string[]) =>
    git`git fetch --quiet --force ${plain} ${history} -- ${url} ${refs}`;
  const hasCommit = async () => (await git`git cat-file -e ${sha}^{commit}`.nothrow()).exitCode === 0;
  const lacks = (): never => {
    const where = branch === undefined ? "" : ` (branch ${branch})`;
    throw new RemoteLacks(`the remote does not have commit ${sha}${where}; was it pushed?`);
  };
  const unshallow = async () => ((await exists(join(dir, "shallow"))) ? ["--unshallow"] : []);
  const next = "refs/boatyard/next";

  if (depth === 0) {
    const refs = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
    await fetch(["--prune", ...(await unshallow())], ...refs);
    // else it is not on any branch, or the branch was force-pushed meanwhile
    if (!(await hasCommit())) await fetch([], `${sha}:${next}`).catch(lacks);
    return;
  }
  const history = above === undefined ? [`--depth=${depth}`] : [];
  try {
    await fetch(history, `${sha}:${next}`);
  } catch (error) {
    const words = error instanceof ProcessOutput ? error.stderr : "";
    if (!/not our ref|unadvertised object|couldn't find remote ref/i.test(words)) throw error;
    // an old server gives only what its refs name: the branch, and if need be all of its history
    const ref = branch === undefined ? "HEAD" : `refs/heads/${branch}`;
    await fetch(history, `+${ref}:${next}`).catch(lacks);
    if (!(await hasCommit()) && pinned) await fetch(await unshallow(), "+refs/heads/*:refs/boatyard/heads/*");
    if (!(await hasCommit())) lacks();
  }
}

/** The refs and settings of a fresh clone; all objects that they need are there. */
async function asCloned(git: Shell, url: string, { sha, branch = "", depth, isDefault }: Goal): Promise<void> {
  const one = branch !== "" && depth > 0 ? ["-t", branch] : [];
  const head = branch !== "" && isDefault ? ["-m", branch] : [];
  // a clone of all branches says where each is; one of a pinned commit must not claim it for the branch
  const tracking = `refs/remotes/origin/${branch}`;
  await git`git remote add ${one} ${head} -- origin ${url} &&
    { test -z ${branch} || { { git show-ref --quiet --verify -- ${tracking} || git update-ref ${tracking} ${sha}; } &&
      git branch --quiet --set-upstream-to=origin/${branch} -- ${branch}; }; } &&
    { test ${depth} != 0 || git pack-refs --all; } && git fsck --connectivity-only --no-dangling`;
}

/** Packs and bytes beyond which they are made one again, with only what the tree needs. */
const maxPacks = 24;
const slack = 32 * 1024 * 1024;

async function hasTooManyPacks(dir: string): Promise<boolean> {
  const folder = join(dir, "objects", "pack");
  const names = (await readdir(folder)).filter((name) => name.endsWith(".pack"));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(folder, name))).size));
  const all = sizes.reduce((sum, size) => sum + size, 0);
  return sizes.length > maxPacks || all > 2 * Math.max(...sizes) + slack;
}

/** Bring the whole file system of a folder to the disk: syncfs(2). */
export async function syncFolder(folder: string, shared: Shared): Promise<void> {
  await $({ ...shared, nothrow: true })`sync --file-system -- ${folder}`;
}

async function requireLfs(git: Shell): Promise<void> {
  if ((await git({ nothrow: true })`git lfs version`).exitCode === 0) return;
  throw new Failure("lfs: true needs git-lfs, which is not installed; run: apt-get install git-lfs");
}

/** Of the LFS files that were fetched, keep those that the tree has: the next one is made of them. */
async function pruneLfs(store: string, git: Shell, sha: string): Promise<void> {
  const listed = await textOf(git`git lfs ls-files --long ${sha}`);
  const needed = new Set(listed.split("\n").map((line) => line.split(" ")[0]));
  for (const name of await readdir(join(store, "objects"), { recursive: true }).catch(() => []))
    if (/^[0-9a-f]{64}$/.test(basename(name)) && !needed.has(basename(name)))
      await rm(join(store, "objects", name), { force: true });
}

/** Entries of `git status` for files that are not as the index has them; throws what git says. */
async function oddEntries(git: Shell, strict: boolean): Promise<string[]> {
  // submodules are looked at otherwise: what .gitmodules says of them, wrong values too, does not matter
  const how = ["--porcelain", "-z", "--no-renames", "--ignore-submodules=all"];
  const others = strict ? ["--ignored", "--untracked-files=all"] : ["--untracked-files=no"];
  const { stdout } = await git`git status ${how} ${others}`;
  return stdout.split("\0").filter((entry) => entry !== "" && entry[1] !== " ");
}

/** The folders of submodules. */
async function submodulesIn(git: Shell): Promise<string[]> {
  const entries = (await git`git ls-files --stage -z`).stdout.split("\0");
  return entries.flatMap((entry) => /^160000 [^\t]*\t([^]*)$/.exec(entry)?.[1] ?? []);
}

/** The files of a tree's submodules by path, mode, size and time, as one sum: any change to them shows. */
async function fingerprint(tree: string, index: string, shared: Shared): Promise<string> {
  const hash = createHash("sha256");
  for (const folder of (await submodulesIn(comparingGit(tree, index, shared))).sort())
    for (const name of (await readdir(join(tree, folder), { recursive: true }).catch(() => [])).sort()) {
      const info = await lstat(join(tree, folder, name));
      const target = info.isSymbolicLink() ? await readlink(join(tree, folder, name)) : "";
      // a folder's time also changes with what git keeps in .git
      const [size, time] = info.isDirectory() ? [0, 0] : [info.size, info.mtimeMs];
      hash.update(`${JSON.stringify([folder, name, info.mode, size, time, target])}\n`);
    }
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
  desired: Comparison,
  shared: Shared,
): Promise<boolean> {
  const [tree, index] = [place.tree(id), place.index(id)];
  if (desired.submodules !== undefined && desired.submodules !== (submodules !== undefined)) return false;
  if (desired.lfs !== undefined && desired.lfs !== lfs) return false;
  if (!(await exists(join(index, "index")))) return false;
  try {
    const git = comparingGit(tree, index, shared, lfs);
    if ((await oddEntries(git, desired.strict)).length > 0) return false;
    if (!desired.strict) return true;
    if (submodules !== undefined) return (await fingerprint(tree, index, shared)) === submodules;
    const inside = await Promise.all((await submodulesIn(git)).map((path) => readdir(join(tree, path))));
    return inside.every((names) => names.length === 0);
  } catch (error) {
    if (shared.signal?.aborted) throw error;
    return false;
  }
}
