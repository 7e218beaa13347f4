import { readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { run } from "../exec/exec.ts";
import { fsyncFolder } from "../files/files.ts";
import { hidden, isId, type Place, type State, type Tree } from "./place.ts";

/** The link that readers follow: what stands in its place, and its switch in one step. */

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

/** What a repo serves now, for status requests; read without the lock. */
export async function servedBy(place: Place): Promise<Tree | undefined> {
  const standing = await standingAt(place);
  if (standing.kind !== "tree") return undefined;
  const text = await readFile(place.state, "utf8").catch(() => "{}");
  const trees = (JSON.parse(text) as Partial<State>).trees ?? [];
  return trees.find((tree) => tree.id === standing.id);
}
