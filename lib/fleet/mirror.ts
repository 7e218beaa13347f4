import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exists, readIfThere } from "../files.ts";
import { git, type GitOptions } from "../git.ts";
import { isolation, type Remote, RemoteLacks, type Tip } from "./remote.ts";
import type { Place, State, Tree } from "./place.ts";

/**
 * The mirror: a bare repo beside the trees that holds what was fetched, so that an update moves only what is
 * new. All of it can be fetched again, so whatever is wrong with it, the cure is a new one.
 */

/** What every git call on a mirror gets. */
export function mirrorOptions(
  dir: string,
  options: Pick<GitOptions, "signal" | "cookie">,
): GitOptions {
  return {
    ...options,
    env: { ...isolation, GIT_DIR: dir },
    config: { "core.hooksPath": "/dev/null", "core.fsmonitor": "false", "gc.auto": "0" },
  };
}

/** Make an empty mirror; `sha` tells which hash the remote uses. */
async function makeMirror(dir: string, sha: string, options: GitOptions): Promise<void> {
  await rm(dir, { recursive: true, force: true });
  await mkdir(dir, { recursive: true });
  const format = sha.length === 64 ? "sha256" : "sha1";
  await git(["init", "--quiet", "--bare", "--template=", `--object-format=${format}`], options);
}

/** What is fetched: the tip, and how much history. */
export interface Wanted {
  sha: string;
  branch: string | undefined;
  /** Commits; 0: all, with all branches and tags. */
  depth: number;
  /** The commit was asked for by its id: it may be an older one of the branch. */
  pinned: boolean;
}

/**
 * Fetch into the mirror, and make it anew when it is missing, damaged, or cannot be fetched into.
 * The old one goes only when the new one is complete.
 * @param damaged what is known to be wrong with it
 * @throws the error of the last attempt: then the mirror is as it was
 */
export async function updateMirror(
  place: Place,
  remote: Remote,
  wanted: Wanted,
  damaged: string | undefined,
  note: (line: string) => void,
): Promise<void> {
  const whole = await exists(join(place.mirror, "HEAD"));
  if (whole && damaged === undefined) {
    try {
      return await fetchInto(place.mirror, remote, wanted);
    } catch (error) {
      // a remote that does not have it will not have it the second time; a time-out is not the mirror's fault
      if (error instanceof RemoteLacks || remote.options.signal?.aborted || timedOut(error))
        throw error;
      note("the mirror cannot be fetched into; trying with a new one");
    }
  } else if (whole) {
    note(`the mirror is damaged (${damaged}); making it anew`);
  }
  await remakeMirror(place, remote, wanted);
}

/** Fetch everything into a new mirror and put it in the old one's place. */
export async function remakeMirror(place: Place, remote: Remote, wanted: Wanted): Promise<void> {
  const [fresh, old] = [join(place.home, "mirror.new"), join(place.home, "mirror.old")];
  try {
    await makeMirror(fresh, wanted.sha, mirrorOptions(fresh, shared(remote)));
    await fetchInto(fresh, remote, wanted);
    await rm(old, { recursive: true, force: true });
    await rename(place.mirror, old).catch(() => {});
    await rename(fresh, place.mirror);
    await rm(old, { recursive: true, force: true });
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

function shared(remote: Remote): Pick<GitOptions, "signal" | "cookie"> {
  const { signal, cookie } = remote.options;
  return { ...(signal ? { signal } : {}), ...(cookie === undefined ? {} : { cookie }) };
}

function timedOut(error: unknown): boolean {
  return (error as { result?: { timedOut?: boolean } }).result?.timedOut === true;
}

/** The ref that keeps the newest fetched commit. */
const nextRef = "refs/boatyard/next";

async function fetchInto(dir: string, remote: Remote, wanted: Wanted): Promise<void> {
  const base = mirrorOptions(dir, shared(remote));
  const options: GitOptions = {
    ...base,
    ...remote.options,
    env: { ...remote.options.env, ...base.env },
    config: {
      ...base.config,
      // always a pack, never loose objects: a pack carries a sum over all its bytes
      "fetch.unpackLimit": "1",
      "transfer.unpackLimit": "1",
      "fetch.writeCommitGraph": "false",
      "credential.interactive": "false",
    },
  };
  const fetch = (depth: readonly string[], ...refspecs: string[]) =>
    git(
      [
        ...["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"],
        ...["--no-recurse-submodules", "--force", ...depth, "--", remote.url, ...refspecs],
      ],
      options,
    );
  const isShallow = await exists(join(dir, "shallow"));
  if (wanted.depth === 0) {
    await fetch(
      isShallow ? ["--prune", "--unshallow"] : ["--prune"],
      "+refs/heads/*:refs/remotes/origin/*",
      "+refs/tags/*:refs/tags/*",
    );
    if (await hasCommit(dir, wanted.sha, base)) return;
    // not on any branch, or the branch moved on by force meanwhile
    await fetch([], `${wanted.sha}:${nextRef}`).catch(() => lacks(wanted));
    return;
  }
  const depth = [`--depth=${wanted.depth}`];
  try {
    await fetch(depth, `${wanted.sha}:${nextRef}`);
  } catch (error) {
    if (!/not our ref|unadvertised object|couldn't find remote ref/i.test(stderrOf(error)))
      throw error;
    // an old server gives only what its refs name: the branch, and if need be all of its history
    const ref = wanted.branch === undefined ? "HEAD" : `refs/heads/${wanted.branch}`;
    await fetch(depth, `+${ref}:${nextRef}`).catch(() => lacks(wanted));
    if (await hasCommit(dir, wanted.sha, base)) return;
    if (!wanted.pinned) lacks(wanted);
    const all = (await exists(join(dir, "shallow"))) ? ["--unshallow"] : [];
    await fetch(all, "+refs/heads/*:refs/boatyard/heads/*");
    if (!(await hasCommit(dir, wanted.sha, base))) lacks(wanted);
  }
}

function lacks({ sha, branch }: Wanted): never {
  const where = branch === undefined ? "" : ` (branch ${branch})`;
  throw new RemoteLacks(`the remote does not have commit ${sha}${where}; was it pushed?`);
}

function stderrOf(error: unknown): string {
  return (error as { result?: { stderr?: string } }).result?.stderr ?? "";
}

async function hasCommit(dir: string, sha: string, options: GitOptions): Promise<boolean> {
  const result = await git(["cat-file", "-e", `${sha}^{commit}`], { ...options, check: false });
  return result.code === 0;
}

/**
 * What is wrong with the mirror's packs and their indexes, by the sum that stands at the end of each
 * (gitformat-pack(5)): git itself does not look at it when it fetches. A file that has not changed since it was
 * found sound is read again once a day. New findings go into `state.checked`.
 */
export async function findDamage(place: Place, state: State): Promise<string | undefined> {
  if (!(await exists(join(place.mirror, "HEAD")))) return undefined;
  const folder = join(place.mirror, "objects", "pack");
  const files = (await readdir(folder).catch(() => [])).filter((name) =>
    /\.(?:pack|idx)$/.test(name),
  );
  const lone = files.find(
    (name) =>
      !files.includes(
        name.replace(/\.(?:pack|idx)$/, (end) => (end === ".idx" ? ".pack" : ".idx")),
      ),
  );
  if (lone !== undefined) return `${lone} stands alone`;
  const length = (await readIfThere(join(place.mirror, "config")))?.includes("sha256") ? 32 : 20;
  const before = state.checked;
  const checked: Record<string, string> = {};
  for (const name of files) {
    const now = await stampOf(join(folder, name));
    const [stamp, at = "0"] = (before[name] ?? "").split(" at ");
    if (stamp === now && Date.now() - Number(at) < 86_400_000) {
      checked[name] = before[name] ?? "";
      continue;
    }
    if (!(await endsWithItsSum(join(folder, name), length))) return `${name} does not fit its sum`;
    checked[name] = `${now} at ${Date.now()}`;
  }
  state.checked = checked;
  return undefined;
}

/** Our own links and unlinks change the time of change: note the new one, as long as nothing else did. */
export async function renewStamps(place: Place, state: State): Promise<void> {
  const folder = join(place.mirror, "objects", "pack");
  for (const name of Object.keys(state.checked)) {
    const [stamp = "", at = "0"] = (state.checked[name] ?? "").split(" at ");
    const now = await stampOf(join(folder, name)).catch(() => "");
    // inode, size and time of writing must be the same
    if (now.split(" ").slice(0, 3).join(" ") === stamp.split(" ").slice(0, 3).join(" ")) {
      state.checked[name] = `${now} at ${at}`;
    } else {
      delete state.checked[name];
    }
  }
}

async function stampOf(file: string): Promise<string> {
  const { ino, size, mtimeMs, ctimeMs } = await stat(file);
  return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}

async function endsWithItsSum(file: string, length: number): Promise<boolean> {
  const { size } = await stat(file);
  if (size <= length) return false;
  const hash = createHash(length === 20 ? "sha1" : "sha256");
  for await (const chunk of createReadStream(file, {
    end: size - length - 1,
    highWaterMark: 1 << 20,
  })) {
    hash.update(chunk as Uint8Array);
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of createReadStream(file, { start: size - length })) {
    chunks.push(chunk as Uint8Array);
  }
  return hash.digest("hex") === chunks.map((chunk) => toHex(chunk)).join("");
}

function toHex(bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Remove what a killed git left in the mirror: locks, and packs that were being written. */
export async function sweepMirror(place: Place): Promise<void> {
  const stale = /\.lock$|^tmp_|^incoming-|\.keep$|^\.tmp-/;
  const sweep = async (folder: string, deep: boolean): Promise<void> => {
    for (const entry of await readdir(folder, { withFileTypes: true }).catch(() => [])) {
      const path = join(folder, entry.name);
      if (stale.test(entry.name)) await rm(path, { recursive: true, force: true });
      else if (deep && entry.isDirectory()) await sweep(path, true);
    }
  };
  await sweep(place.mirror, false);
  await sweep(join(place.mirror, "refs"), true);
  await sweep(join(place.mirror, "objects"), true);
  await sweep(join(place.home, "index"), false);
}

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
export async function packMirror(
  place: Place,
  state: State,
  options: Pick<GitOptions, "signal" | "cookie">,
): Promise<void> {
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

/** A tip as a wish. */
export function wish(tip: Tip, depth: number, pinned: boolean): Wanted {
  return { sha: tip.sha, branch: tip.branch, depth, pinned };
}
