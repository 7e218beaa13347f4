import { lstat, readdir, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, systemCode } from "../../core/errors.ts";
import { $ } from "../../exec/exec.ts";
import { fsyncFolder } from "../../files/files.ts";
import { adoptPlain, hidden, isId, type Place, readState, type State, type Tree } from "./state.ts";

/** The link that readers follow: what is in its place, and its switch in one step. */

/** What is at `repos/REPO`: one of our trees, or something else. */
export type LinkState =
  | { kind: "tree"; id: string }
  | { kind: "nothing" | "link" | "folder" | "file"; id?: undefined };

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

/** Put the link in the place of a folder: by an exchange where the system can, else by two renames, with nothing there in between. */
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

/** What a repo serves now, for status requests: one of our trees, or a plain folder that is not. Read without the lock. */
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
  for (const name of await readdir(indexes).catch(() => []))
    if (!known.has(name)) await remove(indexes, name);
  for (const name of await readdir(place.home))
    if (/^(?:mirror\.(?:new|old)|building|link|\.state\.json\.tmp-.*)$/.test(name))
      await remove(place.home, name);
}
