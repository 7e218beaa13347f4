import { createHash } from "node:crypto";
import { lstat, readdir, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, systemCode } from "../../core/errors.ts";
import { $ } from "../../exec/exec.ts";
import { exists, fsyncFolder, readIfThere, writeAtomic } from "../../files/files.ts";
import type { RepoSettings } from "../settings.ts";
import type { Shared } from "../remote.ts";

/**
 * What is where below `repos/`, and what is known of each tree:
 *
 *     REPO -> .boatyard/REPO/trees/ID     the link that readers follow, replaced by one rename
 *     .boatyard/REPO/trees/ID             whole clones: the one served, and older ones
 *     .boatyard/REPO/mirror.git           all that was fetched
 *     .boatyard/REPO/index/ID             git's index of each tree, out of reach of those who write into a tree
 *     .boatyard/REPO/state.json           what the trees are
 *     .boatyard/REPO/lock, busy           locked while something changes; busy is left by a run that was killed
 *     .boatyard/REPO/building, link       the next tree and link, while they are made
 */
export interface Place {
  repos: string;
  repo: string;
  link: string;
  home: string;
  mirror: string;
  trees: string;
  building: string;
  newLink: string;
  lock: string;
  busy: string;
  state: string;
}

/** No repo can have this name: names start with a letter or digit. */
export const hidden = ".boatyard";

export function placeOf(repos: string, repo: string): Place {
  const home = join(repos, hidden, repo);
  return {
    repos,
    repo,
    link: join(repos, repo),
    home,
    mirror: join(home, "mirror.git"),
    trees: join(home, "trees"),
    building: join(home, "building"),
    newLink: join(home, "link"),
    lock: join(home, "lock"),
    busy: join(home, "busy"),
    state: join(home, "state.json"),
  };
}

/** slave-server's own folder: jobs, and the nonces it has seen. */
export function serverFolder(repos: string): string {
  return join(repos, hidden, ".server");
}

export function indexOf(place: Place, id: string): string {
  return join(place.home, "index", id);
}

/** A complete tree in `trees/`. */
export interface Tree {
  id: string;
  sha: string;
  branch?: string | undefined;
  /** When it was put in place the last time. */
  since: string;
  /** When another took its place; it is pruned in this order. */
  left?: string | undefined;
  /** `after:` has not succeeded in it yet. */
  pending?: boolean;
  /** A plain folder that was there before the first update, taken over as it was. */
  plain?: boolean;
  /** What its submodules looked like when it was built. */
  submodules?: string;
  /** It holds the files of Git LFS, not pointers. */
  lfs?: boolean;
}

export interface State {
  trees: Tree[];
  /** The mirror's size in bytes when it was last packed. */
  packed: number;
}

/** What is known of a repo; a state that cannot be read is an empty one, since all of it can be made anew. */
export async function readState(place: Place): Promise<State> {
  const empty: State = { trees: [], packed: 0 };
  try {
    const state = JSON.parse((await readIfThere(place.state)) ?? "{}") as Partial<State>;
    const known = Array.isArray(state.trees) ? state.trees.filter((tree) => isId(tree?.id)) : [];
    const there = await Promise.all(known.map(({ id }) => exists(join(place.trees, id))));
    return { packed: Number(state.packed) || 0, trees: known.filter((_, index) => there[index]) };
  } catch {
    return empty;
  }
}

export async function writeState(place: Place, state: State): Promise<void> {
  await writeAtomic(place.state, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o644 });
}

export function isId(id: unknown): id is string {
  return typeof id === "string" && /^\w[\w.-]*$/.test(id);
}

/** Count a plain folder that was there before the first update as an older tree. */
export function adoptPlain(state: State, id: string): void {
  const now = new Date().toISOString();
  state.trees.unshift({ id, sha: "unknown", since: now, left: now, plain: true });
}

/** One update of a repo, while its lock is held. */
export interface Update {
  place: Place;
  settings: RepoSettings;
  state: State;
  /** The tree that the link leads to, if it is one of ours. */
  served: Tree | undefined;
  /** For each of its processes. */
  shared: Shared;
  note: (line: string) => void;
}

/**
 * The mark that everything an update of this repo starts carries, so that the next one can end what a killed one
 * left; for `after:` in a tree, one of its own.
 */
export function cookieOf({ home }: Place, tree?: Tree): string {
  const cookie = `activate-${createHash("sha256").update(home).digest("hex").slice(0, 20)}`;
  return tree ? `${cookie}-${tree.id}` : cookie;
}

/** The link that readers follow: what is in its place, and its switch in one step. */

/** What is at `repos/REPO`: one of our trees, or something else. */
export type LinkState = { kind: "tree"; id: string } | { kind: "nothing" | "link" | "folder" | "file"; id?: undefined };

export async function readLinkState(place: Place): Promise<LinkState> {
  try {
    const target = await readlink(place.link);
    const trees = targetOf(place, "");
    const id = target.startsWith(trees) ? target.slice(trees.length) : undefined;
    return isId(id) ? { kind: "tree", id } : { kind: "link" };
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

/**
 * Make `repos/REPO` a link to a tree, in one step.
 * @returns the id under which a plain folder that was there was kept, if one was
 * @throws {Failure} when a file is there
 */
export async function switchTo(place: Place, id: string): Promise<string | undefined> {
  const { kind } = await readLinkState(place);
  if (kind === "file") throw new Failure(`${place.link} is a file; move it away`);
  await rm(place.newLink, { recursive: true, force: true });
  await symlink(targetOf(place, id), place.newLink);
  let kept: string | undefined;
  if (kind === "folder") kept = await takeOver(place, id);
  else await rename(place.newLink, place.link);
  await fsyncFolder(place.repos);
  return kept;
}

/** Put the link in the place of a folder: by an exchange where the system can, else by two renames. */
async function takeOver(place: Place, id: string): Promise<string> {
  const kept = `${id}-before`;
  const aside = join(place.trees, kept);
  try {
    if (await exchange(place.newLink, place.link)) {
      // the link is in place now, and newLink is the old folder
      await rename(place.newLink, aside);
    } else {
      await rename(place.link, aside);
      await rename(place.newLink, place.link);
    }
  } catch (error) {
    throw new Failure(
      `cannot take over the folder ${place.link}: ${messageOf(error)}; is it a mount point, or not ours?`,
    );
  }
  return kept;
}

/** renameat2(2) with RENAME_EXCHANGE, by mv (coreutils 9.5) or perl; false where neither can. */
async function exchange(one: string, other: string): Promise<boolean> {
  const quiet = $({ nothrow: true });
  const byMv = await quiet`mv --exchange --no-target-directory -- ${one} ${other}`;
  if (byMv.exitCode === 0) return true;
  const number = { x64: 316, arm64: 276 }[process.arch as string];
  if (number === undefined) return false;
  const program = `exit(syscall(${number}, -100, $ARGV[0], -100, $ARGV[1], 2) == 0 ? 0 : 1)`;
  return (await quiet`perl -e ${program} -- ${one} ${other}`).exitCode === 0;
}

/** What a repo serves now, for status requests: one of our trees, or a plain folder. Read without the lock. */
export async function servedAt(place: Place): Promise<{ tree?: Tree | undefined; plain: boolean }> {
  const { kind, id } = await readLinkState(place);
  const tree = id && (await readState(place)).trees.find((each) => each.id === id);
  return { tree: tree || undefined, plain: kind === "folder" };
}

/**
 * Remove what a killed run left. The lock is held, and the run's children have been ended.
 * A folder at `link` is a plain one that was exchanged a moment before the end: it is kept as an older tree.
 */
export async function removeLeftovers(place: Place, state: State): Promise<void> {
  const { id: linked } = await readLinkState(place);
  if ((await lstat(place.newLink).catch(() => undefined))?.isDirectory()) {
    const id = `${linked ?? "unknown"}-before`;
    await rename(place.newLink, join(place.trees, id)).catch(() => {});
    adoptPlain(state, id);
  }
  const known = new Set([...state.trees.map(({ id }) => id), linked]);
  const remove = (...path: string[]) => rm(join(...path), { recursive: true, force: true });
  for (const name of await readdir(place.trees).catch(() => [])) {
    if (known.has(name)) continue;
    // the same, when the end came a moment later
    if (name.endsWith("-before")) adoptPlain(state, name);
    else await remove(place.trees, name);
  }
  const indexes = join(place.home, "index");
  for (const name of await readdir(indexes).catch(() => [])) if (!known.has(name)) await remove(indexes, name);
  for (const name of await readdir(place.home))
    if (/^(?:mirror\.(?:new|old)|building|link|\.state\.json\.tmp-.*)$/.test(name)) await remove(place.home, name);
}
