import { createHash } from "node:crypto";
import { join } from "node:path";
import { exists, readIfThere, writeAtomic } from "../../files/files.ts";
import type { RepoSettings } from "../settings.ts";
import type { Shared } from "./remote.ts";

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
