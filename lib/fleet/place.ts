import { readdirSync, readlinkSync } from "node:fs";
import { mkdir, readdir, readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, systemCode } from "../errors.ts";
import { run } from "../exec.ts";
import { exists, fsyncFolder, readIfThere, writeAtomic } from "../files.ts";

/**
 * Where things stand below `repos/`:
 *
 *     REPO -> .boatyard/REPO/trees/ID     the link that readers follow, replaced by one rename
 *     .boatyard/REPO/trees/ID             whole clones: the one served, and older ones
 *     .boatyard/REPO/mirror.git           all that was fetched
 *     .boatyard/REPO/index/ID             git's index of each tree, out of reach of who writes into a tree
 *     .boatyard/REPO/state.json           what the trees are
 *     .boatyard/REPO/lock, busy           held while something changes; busy is left by a run that was killed
 *     .boatyard/REPO/building, link       under way
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

/** No repo can have this name: names begin with a letter or digit. */
const hidden = ".boatyard";

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

/** A tree that stands complete in `trees/`. */
export interface Tree {
  id: string;
  sha: string;
  branch?: string | undefined;
  /** When it was put in place the last time. */
  since: string;
  /** When another took its place; it is pruned in this order. */
  left?: string | undefined;
  /** `after:` has not ended well in it yet. */
  pending?: boolean;
  /** A folder from the old way, taken over as it was. */
  plain?: boolean;
}

export interface State {
  trees: Tree[];
  /** Files of the mirror that were found sound: name → what stat said then, and when. */
  checked: Record<string, string>;
  /** The mirror's size in bytes when it was last packed. */
  packed: number;
}

/** What is known of a repo; a state that cannot be read is an empty one, since all of it can be made anew. */
export async function readState(place: Place): Promise<State> {
  const empty: State = { trees: [], checked: {}, packed: 0 };
  try {
    const state = JSON.parse((await readIfThere(place.state)) ?? "{}") as Partial<State>;
    const known = Array.isArray(state.trees) ? state.trees.filter((tree) => isId(tree?.id)) : [];
    const there = await Promise.all(known.map(({ id }) => exists(join(place.trees, id))));
    return { ...empty, ...state, trees: known.filter((_, index) => there[index]) };
  } catch {
    return empty;
  }
}

export async function writeState(place: Place, state: State): Promise<void> {
  await writeAtomic(place.state, `${JSON.stringify(state, undefined, 2)}\n`, { mode: 0o644 });
}

function isId(id: unknown): id is string {
  return typeof id === "string" && /^\w[\w.-]*$/.test(id);
}

/** What stands at `repos/REPO`. */
export type Standing =
  | { kind: "nothing" }
  | { kind: "tree"; id: string }
  | { kind: "link" }
  | { kind: "folder" }
  | { kind: "file" };

export async function standingAt(place: Place): Promise<Standing> {
  try {
    const target = await readlink(place.link);
    const id = target.startsWith(targetOf(place, ""))
      ? target.slice(targetOf(place, "").length)
      : "";
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
 * @returns the id under which a plain folder that stood there was kept, if one did
 * @throws {Failure} when a file stands there
 */
export async function switchTo(
  place: Place,
  id: string,
  standing: Standing,
): Promise<string | undefined> {
  if (standing.kind === "file") {
    throw new Failure(`${place.link} is a file; move it away`);
  }
  await rm(place.newLink, { recursive: true, force: true });
  await symlink(targetOf(place, id), place.newLink);
  let kept: string | undefined;
  if (standing.kind === "folder") kept = await takeOver(place, id);
  else await rename(place.newLink, place.link);
  await fsyncFolder(place.repos);
  return kept;
}

/** Put the link in the place of a folder: by an exchange where the system can, else by one rename and a blink of nothing. */
async function takeOver(place: Place, id: string): Promise<string> {
  const kept = `${id}-before`;
  const aside = join(place.trees, kept);
  try {
    if (await exchange(place.newLink, place.link)) {
      // from here on the link stands, and newLink is the old folder
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
  const number = { x64: 316, arm64: 276 }[process.arch as string];
  const ways = [["mv", "--exchange", "--no-target-directory", "--", one, other]];
  if (number !== undefined) {
    const program = `exit(syscall(${number}, -100, $ARGV[0], -100, $ARGV[1], 2) == 0 ? 0 : 1)`;
    ways.push(["perl", "-e", program, "--", one, other]);
  }
  for (const argv of ways) {
    const result = await run(argv, { check: false }).catch(() => undefined);
    if (result?.code === 0) return true;
  }
  return false;
}

/** Take the link away again: the first update of a repo was undone. */
export async function removeLink(place: Place): Promise<void> {
  await rm(place.link, { force: true });
}

/**
 * Remove what a killed run left. The lock is held, and the run's children have been ended.
 * A folder at `link` is a plain one that was exchanged a moment before the end: it is kept as an older tree.
 */
export async function tidyUp(place: Place, state: State): Promise<void> {
  const left = await stat(place.newLink).catch(() => undefined);
  if (left?.isDirectory() && (await readlink(place.newLink).catch(() => undefined)) === undefined) {
    const standing = await standingAt(place);
    const id = `${standing.kind === "tree" ? standing.id : "unknown"}-before`;
    await rename(place.newLink, join(place.trees, id)).catch(() => {});
    adoptPlain(state, id);
  }
  const known = new Set(state.trees.map(({ id }) => id));
  const standing = await standingAt(place);
  if (standing.kind === "tree") known.add(standing.id);
  for (const name of await readdir(place.trees).catch(() => [])) {
    if (known.has(name)) continue;
    // the same, when the end came a moment later
    if (name.endsWith("-before")) adoptPlain(state, name);
    else await rm(join(place.trees, name), { recursive: true, force: true });
  }
  for (const name of await readdir(join(place.home, "index")).catch(() => [])) {
    if (!known.has(name))
      await rm(join(place.home, "index", name), { recursive: true, force: true });
  }
  for (const path of [place.building, place.newLink]) {
    await rm(path, { recursive: true, force: true });
  }
  for (const name of await readdir(place.home)) {
    if (/^mirror\.(?:new|old)$|^\.state\.json\.tmp-/.test(name)) {
      await rm(join(place.home, name), { recursive: true, force: true });
    }
  }
}

export function adoptPlain(state: State, id: string): void {
  const now = new Date().toISOString();
  state.trees.unshift({ id, sha: "unknown", since: now, left: now, plain: true });
}

/**
 * Whether any process that we may look at works in a folder or has something in it open. In one go and not by
 * promises: that takes a tenth of the time for thousands of small reads of /proc.
 */
export function isHeld(folder: string): boolean {
  const inside = (path: string) => path === folder || path.startsWith(`${folder}/`);
  const target = (path: string) => attempt(() => readlinkSync(path)) ?? "";
  for (const pid of attempt(() => readdirSync("/proc")) ?? []) {
    if (!/^\d+$/.test(pid)) continue;
    if (inside(target(`/proc/${pid}/cwd`)) || inside(target(`/proc/${pid}/root`))) return true;
    const fds = attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? [];
    if (fds.some((fd) => inside(target(`/proc/${pid}/fd/${fd}`)))) return true;
  }
  return false;
}

/** Processes end while they are looked at, and others' cannot be looked at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** Make the folders of a repo. */
export async function makePlace(place: Place): Promise<void> {
  await mkdir(place.trees, { recursive: true });
  await mkdir(join(place.home, "index"), { recursive: true });
}

/** What a repo serves now, for status requests; read without the lock. */
export async function servedBy(place: Place): Promise<Tree | undefined> {
  const standing = await standingAt(place);
  if (standing.kind !== "tree") return undefined;
  const text = await readFile(place.state, "utf8").catch(() => "{}");
  const trees = (JSON.parse(text) as Partial<State>).trees ?? [];
  return trees.find((tree) => tree.id === standing.id);
}
