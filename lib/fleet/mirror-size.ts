import { mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { git } from "../git.ts";
import { mirrorOptions, type Shared } from "./mirror.ts";
import type { Place, State, Tree } from "./place.ts";

/** What the mirror must keep, and how it stays small. */

/** Let a ref of the mirror keep the objects of a tree that was built from it, and forget those of trees that are gone. */
export async function keepTrees(place: Place, state: State, built?: Tree): Promise<void> {
  const folder = join(place.mirror, "refs", "trees");
  await mkdir(folder, { recursive: true });
  // not for the other trees: a mirror that was made anew does not hold their commits
  if (built) await writeFile(join(folder, built.id), `${built.sha}\n`);
  const known = new Set(state.trees.map(({ id }) => id));
  for (const name of await readdir(folder)) {
    if (!known.has(name)) await rm(join(folder, name), { force: true });
  }
}

/** Packs and bytes beyond which the mirror is packed into one again. */
const mostPacks = 24;
const slack = 32 * 1024 * 1024;

/** Keep the mirror small: one pack, with only what the trees need. */
export async function packMirror(place: Place, state: State, options: Shared): Promise<void> {
  const folder = join(place.mirror, "objects", "pack");
  const packs = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(".pack"));
  const sizes = await Promise.all(packs.map(async (name) => (await stat(join(folder, name))).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (state.packed === 0) state.packed = bytes;
  if (packs.length <= mostPacks && bytes <= 2 * state.packed + slack) return;
  const base = mirrorOptions(place.mirror, options);
  await git(["repack", "-a", "-d", "--quiet"], base);
  await git(["prune", "--expire=now"], base);
  const left = (await readdir(folder)).filter((name) => name.endsWith(".pack"));
  const after = await Promise.all(left.map(async (name) => (await stat(join(folder, name))).size));
  state.packed = after.reduce((sum, size) => sum + size, 0);
}
