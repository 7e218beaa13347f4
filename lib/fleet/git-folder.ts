import { linkSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { readIfThere } from "../files/files.ts";
import { gitText } from "../git/git.ts";
import { mirrorOptions, type Shared } from "./mirror.ts";
import type { Place } from "./place.ts";

export interface TreePlan {
  sha: string;
  branch: string | undefined;
  url: string;
  /** Commits of history; 0: all. */
  depth: number;
  /** The remote's HEAD names this branch: a clone has origin/HEAD then. */
  isDefault: boolean;
}

/**
 * The `.git` of a fresh clone, without a process for it: the mirror's packs as hard links, as `git clone --local`
 * makes them, so that the tree stands on its own. It is done while git writes the files, at once and not by promises:
 * some thirty small steps take a millisecond so, and ten through the pool of threads.
 */
export async function makeGitFolder(
  place: Place,
  tree: string,
  plan: TreePlan,
  shared: Shared,
): Promise<void> {
  const dir = join(tree, ".git");
  const { sha, branch, url, depth } = plan;
  for (const folder of [
    "objects/pack",
    "objects/info",
    "refs/heads",
    "refs/tags",
    "info",
    "hooks",
  ]) {
    mkdirSync(join(dir, folder), { recursive: true });
  }
  const packs = join(place.mirror, "objects", "pack");
  const names = readdirSync(packs).filter((name) => /\.(?:pack|idx|rev)$/.test(name));
  for (const name of names) {
    const [from, to] = [join(packs, name), join(dir, "objects/pack", name)];
    try {
      linkSync(from, to);
    } catch {
      // a file system without hard links
      await copyFile(from, to);
    }
  }
  const fetched =
    depth === 0 || branch === undefined
      ? "+refs/heads/*:refs/remotes/origin/*"
      : `+refs/heads/${branch}:refs/remotes/origin/${branch}`;
  const long = sha.length === 64;
  const config = [
    "[core]",
    `\trepositoryformatversion = ${long ? 1 : 0}`,
    "\tfilemode = true",
    "\tbare = false",
    "\tlogallrefupdates = true",
    ...(long ? ["[extensions]", "\tobjectformat = sha256"] : []),
    '[remote "origin"]',
    `\turl = ${quoted(url)}`,
    `\tfetch = ${quoted(fetched)}`,
    ...(branch === undefined
      ? []
      : [
          `[branch ${quoted(branch)}]`,
          "\tremote = origin",
          `\tmerge = ${quoted(`refs/heads/${branch}`)}`,
        ]),
  ];
  writeFileSync(join(dir, "config"), `${config.join("\n")}\n`);
  writeFileSync(
    join(dir, "HEAD"),
    branch === undefined ? `${sha}\n` : `ref: refs/heads/${branch}\n`,
  );
  const refs = new Map<string, string>();
  if (depth === 0) await addAllRefs(place, refs, shared);
  if (branch !== undefined) {
    refs.set(`refs/heads/${branch}`, sha);
    // a clone of all branches says where each stands; one of a pinned commit must not claim it for the branch
    if (!refs.has(`refs/remotes/origin/${branch}`)) refs.set(`refs/remotes/origin/${branch}`, sha);
  }
  const lines = [...refs].sort(([a], [b]) => (a < b ? -1 : 1)).map(([ref, id]) => `${id} ${ref}\n`);
  writeFileSync(join(dir, "packed-refs"), `# pack-refs with: sorted \n${lines.join("")}`);
  if (plan.isDefault && branch !== undefined) {
    mkdirSync(join(dir, "refs/remotes/origin"), { recursive: true });
    const head = `ref: refs/remotes/origin/${branch}\n`;
    writeFileSync(join(dir, "refs/remotes/origin/HEAD"), head);
  }
  if (depth > 0) await writeShallow(place, dir, sha, depth);
}

async function addAllRefs(place: Place, refs: Map<string, string>, shared: Shared): Promise<void> {
  const text = await gitText(
    ["for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/origin", "refs/tags"],
    mirrorOptions(place.mirror, shared),
  );
  for (const line of text.split("\n")) {
    const [id, ref] = line.split(" ");
    if (id && ref) refs.set(ref, id);
  }
}

/** Where history ends. */
async function writeShallow(place: Place, dir: string, sha: string, depth: number): Promise<void> {
  const ends = ((await readIfThere(join(place.mirror, "shallow"))) ?? "").split("\n");
  const ours = ends.filter((line) => (depth === 1 ? line === sha : line !== ""));
  if (ours.length > 0) writeFileSync(join(dir, "shallow"), `${ours.join("\n")}\n`);
}

/** A value in git's config, quoted; names and URLs of ours hold nothing that needs more. */
function quoted(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}
