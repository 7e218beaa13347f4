import { createHash } from "node:crypto";
import { lstat, readdir, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { type Infer, y } from "../../config/yaml.ts";
import { Failure, messageOf, systemCode } from "../../core/errors.ts";
import { $ } from "../../exec/exec.ts";
import { exists, fsyncFolder } from "../../files/files.ts";
import { StateFile } from "../../files/state-file.ts";

/**
 * What is where below `repos/`:
 *
 *     REPO -> .boatyard/REPO/trees/ID     the link that readers follow, replaced by one rename
 *     .boatyard/REPO/trees/ID             whole clones: the one served, and older ones
 *     .boatyard/REPO/index/ID             a git folder with the index of each tree, out of readers' reach
 *     .boatyard/REPO/state.json           what the trees are
 *     .boatyard/REPO/lfs                  the files of Git LFS that the newest tree has
 *     .boatyard/REPO/lock, busy           locked while something changes; busy is left by a run that was killed
 *     .boatyard/REPO/building, link       the next tree and link, while they are made
 */
export class Place {
  readonly repos: string;
  readonly repo: string;
  readonly home: string;
  readonly link: string;
  readonly state: StateFile<Infer<typeof schema>>;

  constructor(repos: string, repo: string) {
    this.repos = repos;
    this.repo = repo;
    this.home = join(repos, hidden, repo);
    this.link = join(repos, repo);
    this.state = new StateFile(this.in("state.json"), schema, { mode: 0o644 });
  }

  in(...path: string[]): string {
    return join(this.home, ...path);
  }

  tree(id: string): string {
    return this.in("trees", id);
  }

  index(id: string): string {
    return this.in("index", id);
  }

  /**
   * The mark that everything an update of this repo starts carries, so that the next one can end what a killed one
   * left; for `after:` in a tree, one of its own.
   */
  cookie(id?: string): string {
    const sum = createHash("sha256").update(this.home).digest("hex").slice(0, 20);
    return `activate-${sum}${id === undefined ? "" : `-${id}`}`;
  }
}

/** No repo can have this name: names start with a letter or digit. */
export const hidden = ".boatyard";

/** slave-server's own folder. */
export function serverFolder(repos: string): string {
  return join(repos, hidden, ".server");
}

/** What the trees are, in the order in which they were built; what cannot be read is made anew. */
const schema = y.object({
  trees: y.list(
    y.object({
      id: y.string({ match: /^\w[\w.-]*$/ }),
      sha: y.string(),
      branch: y.optional(y.string()),
      // when it was put in place the last time
      since: y.string(),
      // when another took its place; it is pruned in this order
      left: y.optional(y.string()),
      // `after:` has not succeeded in it yet
      pending: y.optional(y.boolean()),
      // a plain folder that was there before the first update, taken over as it was
      plain: y.optional(y.boolean()),
      // what its submodules looked like when it was built
      submodules: y.optional(y.string()),
      // it holds the files of Git LFS, not pointers
      lfs: y.optional(y.boolean()),
    }),
  ),
});

/** A complete tree in `trees/`. */
export type Tree = Infer<typeof schema>["trees"][number];

/** The trees that are there. */
export async function readTrees(place: Place): Promise<Tree[]> {
  const { trees } = (await place.state.read()) ?? { trees: [] };
  const there = await Promise.all(trees.map(({ id }) => exists(place.tree(id))));
  return trees.filter((_, at) => there[at]);
}

export async function writeTrees(place: Place, trees: Tree[]): Promise<void> {
  await place.state.write({ trees });
}

/** A plain folder that was there before the first update, as an older tree. */
function plainTree(id: string): Tree {
  const now = new Date().toISOString();
  return { id, sha: "unknown", since: now, left: now, plain: true };
}

/** What is at `repos/REPO`: a link to one of our trees, or something else. */
export type LinkState = { kind: "tree"; id: string } | { kind: "nothing" | "link" | "folder" | "file"; id?: undefined };

export async function readLink(place: Place): Promise<LinkState> {
  try {
    const [target, trees] = [await readlink(place.link), targetOf(place, "")];
    const id = target.startsWith(trees) ? target.slice(trees.length) : "";
    return /^\w[\w.-]*$/.test(id) ? { kind: "tree", id } : { kind: "link" };
  } catch (error) {
    if (systemCode(error) === "ENOENT") return { kind: "nothing" };
    if (systemCode(error) !== "EINVAL") throw error;
    return { kind: (await stat(place.link)).isDirectory() ? "folder" : "file" };
  }
}

/** Relative, so that `repos/` can be moved or mounted elsewhere. */
function targetOf(place: Place, id: string): string {
  return `${hidden}/${place.repo}/trees/${id}`;
}

/** What a repo serves now, for status requests: one of our trees, or a plain folder. Read without the lock. */
export async function servedAt(place: Place): Promise<{ tree: Tree | undefined; plain: boolean }> {
  const { kind, id } = await readLink(place);
  return { tree: (await readTrees(place)).find((each) => each.id === id), plain: kind === "folder" };
}

/**
 * Make `repos/REPO` a link to a tree, in one step.
 * @returns a plain folder that was there, as an older tree
 */
export async function switchTo(place: Place, id: string): Promise<Tree | undefined> {
  const { kind } = await readLink(place);
  const link = place.in("link");
  await rm(link, { recursive: true, force: true });
  await symlink(targetOf(place, id), link);
  if (kind === "folder") await takeOver(place, link, `${id}-before`);
  else await rename(link, place.link);
  await fsyncFolder(place.repos);
  return kind === "folder" ? plainTree(`${id}-before`) : undefined;
}

/** Put the link in the place of a folder: by an exchange where the system can, else by two renames. */
async function takeOver(place: Place, link: string, id: string): Promise<void> {
  try {
    const exchanged = await exchange(link, place.link);
    // the link is in place now, and `link` is the old folder
    await rename(exchanged ? link : place.link, place.tree(id));
    if (!exchanged) await rename(link, place.link);
  } catch (error) {
    throw new Failure(
      `cannot take over the folder ${place.link}: ${messageOf(error)}; is it a mount point, or not ours?`,
    );
  }
}

/** renameat2(2) with RENAME_EXCHANGE, by mv (coreutils 9.5) or perl; false where neither can. */
async function exchange(one: string, other: string): Promise<boolean> {
  const quiet = $({ nothrow: true });
  if ((await quiet`mv --exchange --no-target-directory -- ${one} ${other}`).exitCode === 0) return true;
  const number = { x64: 316, arm64: 276 }[process.arch as string];
  if (number === undefined) return false;
  const program = `exit(syscall(${number}, -100, $ARGV[0], -100, $ARGV[1], 2) == 0 ? 0 : 1)`;
  return (await quiet`perl -e ${program} -- ${one} ${other}`).exitCode === 0;
}

/**
 * Remove what a killed run left. The lock is held, and the run's children have been ended.
 * A folder at `link` is a plain one that was exchanged a moment before the end: it is kept as an older tree.
 */
export async function sweep(place: Place, trees: Tree[]): Promise<void> {
  const { id: linked } = await readLink(place);
  if ((await lstat(place.in("link")).catch(() => undefined))?.isDirectory())
    await rename(place.in("link"), place.tree(`${linked ?? "unknown"}-before`)).catch(() => {});
  const known = new Set([...trees.map(({ id }) => id), linked]);
  for (const name of await readdir(place.in("trees")))
    if (!known.has(name) && name.endsWith("-before")) {
      trees.unshift(plainTree(name));
      known.add(name);
    }
  for (const folder of ["trees", "index"])
    for (const name of await readdir(place.in(folder)))
      if (!known.has(name)) await rm(place.in(folder, name), { recursive: true, force: true });
  for (const name of await readdir(place.home))
    if (/^(?:building|link|\.state\.json\.tmp-.*)$/.test(name))
      await rm(place.in(name), { recursive: true, force: true });
}
