import { statSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { git } from "../git/git.ts";
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
  const { packs, bytes } = await packsIn(folder);
  if (state.packed === 0) state.packed = bytes;
  if (packs <= mostPacks && bytes <= 2 * state.packed + slack) return;
  const base = mirrorOptions(place.mirror, options);
  await git(["repack", "-a", "-d", "--quiet"], base);
  await git(["prune", "--expire=now"], base);
  state.packed = (await packsIn(folder)).bytes;
}

async function packsIn(folder: string): Promise<{ packs: number; bytes: number }> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith(".pack"));
  const sizes = names.map((name) => statSync(join(folder, name)).size);
  return { packs: names.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
}
