import { readdir, readlink, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { standingAt } from "./link.ts";
import { adoptPlain, type Place, type State } from "./place.ts";

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
