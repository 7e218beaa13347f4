import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../files/files.ts";
import { git, type OldGitOptions } from "../git/git.ts";
import { isolation, type Remote, RemoteLacks, type Tip } from "./remote.ts";
import type { Place } from "./place.ts";

/**
 * The mirror: a bare repo beside the trees that holds what was fetched, so that an update moves only what is
 * new. All of it can be fetched again, so whatever is wrong with it, the cure is a new one.
 */

/** What all processes of one update share: what ends them, and their mark. */
export type Shared = Pick<OldGitOptions, "signal" | "cookie">;

/** What every git call on a mirror gets. */
export function mirrorOptions(dir: string, options: Shared): OldGitOptions {
  return {
    ...options,
    env: { ...isolation, GIT_DIR: dir },
    config: { "core.hooksPath": "/dev/null", "core.fsmonitor": "false", "gc.auto": "0" },
  };
}

/** Make an empty mirror; `sha` tells which hash the remote uses. */
async function makeMirror(dir: string, sha: string, options: OldGitOptions): Promise<void> {
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

function shared(remote: Remote): Shared {
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
  const options: OldGitOptions = {
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

async function hasCommit(dir: string, sha: string, options: OldGitOptions): Promise<boolean> {
  const result = await git(["cat-file", "-e", `${sha}^{commit}`], { ...options, check: false });
  return result.code === 0;
}

/** A tip as a wish. */
export function wish(tip: Tip, depth: number, pinned: boolean): Wanted {
  return { sha: tip.sha, branch: tip.branch, depth, pinned };
}
