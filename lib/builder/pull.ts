import { lstat, readdir, readFile, readlink, rm } from "node:fs/promises";
import { join, sep } from "node:path";
import { Failure, UsageError } from "../core/errors.ts";
import { isSafeRef, shortRef, shortSha } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { type Checkout, currentBranch } from "../git/checkout.ts";
import { gitIn, textOf } from "../git/git.ts";

/** What the stage pull decides, and what it keeps of a checkout; its commands stand in scripts/build.ts. */

/** Which commit is wanted. */
export interface Target {
  /** A branch or tag, short or full; default: the branch that the checkout is on. */
  ref?: string | undefined;
  /** The commit, or its first digits; default: where the ref points now. */
  sha?: string | undefined;
}

/** A branch or tag, and where it comes from. */
export interface Branch {
  /** The full name on the remote: `refs/heads/main`. */
  ref: string;
  /** The short name; a tag has no branch. */
  branch?: string | undefined;
  remote: string;
  /** The ref into which fetch puts what it got. */
  tracking: string;
  /** HEAD is on this branch already. */
  current: boolean;
}

/** What git says of a checkout: its branch, its remotes and the upstreams of its branches (git-config(1)). */
export interface Head extends Remotes {
  /** The short name of the branch that HEAD is on; undefined when it is detached. */
  current: string | undefined;
}

interface Remotes {
  names: string[];
  upstream: Map<string, { remote?: string; merge?: string }>;
}

export async function readHead(checkout: Checkout): Promise<Head> {
  const git = gitIn(checkout.dir, { nothrow: true });
  const keys = "^(remote|branch)\\.";
  const [current, { stdout }] = await Promise.all([
    currentBranch(checkout),
    git`git config --null --get-regexp ${keys}`,
  ]);
  return { current, ...parseRemotes(stdout) };
}

/**
 * Which branch or tag is wanted; undefined without a remote. Pure.
 * @throws {UsageError} when it cannot be told.
 */
export function findBranch({ ref, sha }: Target, head: Head): Branch | undefined {
  const { current } = head;
  if (sha !== undefined && !/^[0-9a-f]{7,64}$/.test(sha))
    throw new UsageError(`--sha: "${sha}" is not a commit; write at least 7 of its hexadecimal digits`);
  if (ref !== undefined && !isSafeRef(ref.replace(/^refs\/(?:heads|tags)\//, "")))
    throw new UsageError(`--ref: "${ref}" is not a name of a branch or tag`);
  if (ref === undefined && current === undefined)
    throw new UsageError(
      "the checkout is not on a branch (its HEAD is detached); name one with --ref, or run: git checkout BRANCH",
    );
  const wanted = ref ?? `refs/heads/${current}`;
  const isTag = wanted.startsWith("refs/tags/");
  const branch = isTag ? undefined : wanted.replace(/^refs\/heads\//, "");
  const { remote, merge } = chooseRemote(head, branch);
  if (remote === undefined) {
    if (sha === undefined) return undefined;
    throw new UsageError("--sha: the checkout has no remote to fetch it from; add one with git remote add origin URL");
  }
  const remoteRef = merge || (isTag ? wanted : `refs/heads/${branch}`);
  const tracking = isTag ? wanted : `refs/remotes/${remote}/${remoteRef.replace(/^refs\/heads\//, "")}`;
  const isCurrent = current === branch && branch !== undefined;
  return { ref: remoteRef, branch, remote, tracking, current: isCurrent };
}

/** The commits of some refs, undefined for one that has none. */
export async function readCommits(git: Shell, refs: string[]): Promise<(string | undefined)[]> {
  const input = refs.map((ref) => `${ref}^{commit}\n`).join("");
  const lines = (await git({ input })`git cat-file --batch-check`).stdout.split("\n");
  return refs.map((_, at) => /^([0-9a-f]+) commit /.exec(lines[at] ?? "")?.[1]);
}

/** Remotes and upstreams from `git config --null --get-regexp`: `remote.origin.url LF value NUL …`; pure. */
export function parseRemotes(text: string): Remotes {
  const remotes: Remotes = { names: [], upstream: new Map() };
  for (const entry of text.split("\0")) {
    const [variable = "", value = ""] = entry.split("\n", 2);
    // a remote's or branch's own name may hold dots
    const [, section, name = "", key] = /^(\w+)\.(.+)\.([^.]+)$/.exec(variable) ?? [];
    if (section === "remote" && !remotes.names.includes(name)) remotes.names.push(name);
    if (section === "branch" && (key === "remote" || key === "merge"))
      remotes.upstream.set(name, { ...remotes.upstream.get(name), [key]: value });
  }
  return remotes;
}

/** The remote of a branch and its name there: its upstream, else origin, else the only remote. */
function chooseRemote(
  { names, upstream }: Remotes,
  branch: string | undefined,
): { remote?: string | undefined; merge?: string | undefined } {
  const known = upstream.get(branch ?? "");
  if (known?.remote) return known;
  if (names.includes("origin")) return { remote: "origin" };
  if (names.length > 1)
    throw new UsageError(
      `which remote? the checkout has ${names.join(", ")}; run: git branch --set-upstream-to=REMOTE/BRANCH`,
    );
  return { remote: names[0] };
}

/**
 * Why a fetch of a branch failed; `others` is what `git ls-remote` says then. Pure.
 * @returns why there is nothing to build. @throws {Failure} when that is a failure.
 */
export function explainFetch({ ref, remote }: Branch, lines: readonly string[], others: string): string {
  const stays = "the checkout stays as it was";
  if (!isMissing(lines)) {
    const words = lines.filter((line) => /^(?:fatal|error|ssh|remote):?/i.test(line)).slice(0, 3);
    throw new Failure(`cannot fetch from ${remote}: ${words.join(" | ") || lines.join("\n").slice(0, 300)}; ${stays}`);
  }
  if (others === "") return `the remote ${remote} is empty: nothing to build until the first push`;
  const tag = ref.replace(/^refs\/heads\//, "refs/tags/");
  if (others.split("\n").some((line) => line.endsWith(`\t${tag}`)))
    throw new Failure(`${shortRef(ref)} is a tag, not a branch; ${stays}; write --ref ${tag}`);
  throw new Failure(`${shortRef(ref)} is not on ${remote} (deleted or renamed?); ${stays}; name another with --ref`);
}

/** Whether a fetch failed because the remote does not have what was asked for. */
export function isMissing(lines: readonly string[]): boolean {
  return lines.some((line) => line.includes("couldn't find remote ref"));
}

/** A commit that is asked for is not to be had. */
export function lostCommit({ ref, remote }: Branch, asked: string, tip: string): Failure {
  return new Failure(
    `commit ${shortSha(asked)} is not on ${remote} any more (force-pushed away?); ` +
      `${shortRef(ref)} is at ${shortSha(tip)}; the checkout stays as it was`,
  );
}

/** A log under version control would be changed by every build, and reset by every pull. */
export function trackedLog(): Failure {
  return new Failure(
    "logs.txt is tracked by git, but it is the build's log; run: git rm --cached logs.txt, then commit and push",
  );
}

/** The changes to tracked files: entries of `git status --porcelain=v1 -z`. */
export async function changedFiles(git: Shell): Promise<string[]> {
  const { stdout } = await git`git status --porcelain=v1 -z --no-renames --untracked-files=no`;
  return stdout.split("\0").filter((entry) => entry !== "");
}

/** So many stashes of ours stay; the oldest go. */
const stashesKept = 50;

/**
 * What setting the checkout to a commit would overwrite goes into `git stash`, and is named: changes to tracked files,
 * those of submodules in their own, and files that git does not track in the way of new ones.
 * @param dirty entries of `git status --porcelain=v1 -z`.
 */
export async function stashLocalChanges(
  { dir, signal, say }: { dir: string; signal: AbortSignal; say: (line: string) => void },
  { sha, dirty, hasHead, run }: { sha: string; dirty: readonly string[]; hasHead: boolean; run: string },
): Promise<void> {
  // by default git leaves new objects to the page cache, and a power cut would take what a reset has overwritten
  const options = { signal, config: { "core.fsync": "all" } };
  const git = gitIn(dir, options);
  const changed = dirty.map((entry) => entry.slice(3));
  if (!hasHead && (changed.length > 0 || (await inTheWay(dir, git, sha)).length > 0)) {
    // a stash stands on a commit: an empty one, which the checkout leaves again; the account may have no name for it
    const own = { ...options.config, "user.name": "boatyard", "user.email": "boatyard@localhost" };
    const tree = await textOf(git`git mktree`);
    const commit = await textOf(gitIn(dir, { signal, config: own })`git commit-tree -m ${"No commit yet"} ${tree}`);
    await git`git update-ref HEAD ${commit}`;
  }
  for (const name of changed) {
    const part = join(dir, name);
    if (!(await exists(join(part, ".git")))) continue;
    await stash(gitIn(part, options), [], `changed in the submodule ${name}`, `git -C ${name} stash apply`);
  }
  // conflicts that somebody left: git stash refuses them
  if (dirty.length > 0) await git`git add --update`;
  if (dirty.length > 0) await stash(git, [], `changed in the checkout: ${some(changed)}`, "git stash apply");
  const files = await inTheWay(dir, git, sha);
  if (files.length > 0)
    await stash(
      git({ input: files.map((file) => `:(top,literal)${file}\0`).join("") }),
      ["--all", "--pathspec-from-file=-", "--pathspec-file-nul"],
      `not tracked, but in the way of new files: ${some(files)}`,
      "git stash apply",
    );

  async function stash(git: Shell, which: string[], what: string, how: string): Promise<void> {
    const before = await newest(git);
    await git`git stash push --quiet --message ${`boatyard ${run}`} ${which}`;
    const [now] = await readCommits(git, ["refs/stash"]);
    if (now === undefined || now === before) return;
    // a build that changes tracked files would leave one each time
    const isTwin = before !== undefined && (await patchOf(git, now)) === (await patchOf(git, before));
    if (isTwin) await git`git stash drop --quiet ${"stash@{0}"}`;
    for (const old of oldStashes(await textOf(git`git stash list ${"--format=%gd %gs"}`)))
      await git`git stash drop --quiet ${old}`;
    say(`${what}; kept in a stash (${how} ${shortSha(isTwin ? before : now)} brings it back)`);
  }
}

async function newest(git: Shell): Promise<string | undefined> {
  return (await readCommits(git, ["refs/stash"]))[0];
}

/** What names the changes of a stash, whatever they are based on; its untracked files by their tree. */
async function patchOf(git: Shell, stash: string): Promise<string> {
  const quiet = git({ nothrow: true, input: undefined });
  const untracked = (await quiet`git rev-parse --verify --quiet ${`${stash}^3^{tree}`}`).stdout;
  return (
    untracked + (await quiet`git diff --binary ${`${stash}^1`} ${stash} -- | git patch-id --stable`).stdout.slice(0, 40)
  );
}

/** Our stashes beyond the newest, the oldest first, from lines `stash@{N} On main: boatyard RUN`. Pure. */
export function oldStashes(list: string): string[] {
  const ours = list.split("\n").filter((line) => / boatyard \S+$/.test(line));
  return ours
    .slice(stashesKept)
    .map((line) => line.split(" ", 1)[0] ?? "")
    .reverse();
}

/** Files and folders that git does not track, where the commit brings something of that name. */
async function inTheWay(dir: string, git: Shell, sha: string): Promise<string[]> {
  // against the index, not HEAD: a file that git was told to forget (git rm --cached) is not tracked either
  const { stdout } = await git`git diff-index --cached -R -z --no-renames --diff-filter=A --name-only ${sha} --`;
  const found = new Set<string>();
  for (const path of stdout.split("\0").filter((name) => name !== "")) {
    const part = await obstacle(dir, path);
    if (part !== undefined) found.add(part);
  }
  return [...found];
}

/** Commits that are in this checkout alone get a ref of their own; a rewritten history is named. */
export async function keepLocalCommits(
  { git, say }: { git: Shell; say: (line: string) => void },
  { head, sha, tip, tracking, run }: { head: string; sha: string; tip: string; tracking: string; run: string },
): Promise<void> {
  const quiet = git({ nothrow: true });
  const isIn = async (commit: string) => (await quiet`git merge-base --is-ancestor ${head} ${commit}`).ok;
  if (await isIn(sha)) return;
  if (await isIn(tip)) return say(`goes back from ${shortSha(head)} to ${shortSha(sha)}`);
  // where the remote's branch was before the last fetch that moved it
  if (await isIn(`${tracking}@{1}`))
    return say(
      `the history was rewritten (a force-push): ${shortSha(head)} is left for ${shortSha(sha)}; ` +
        "git reflog still knows it",
    );
  const ref = `refs/boatyard/kept/${run}`;
  await git`git update-ref ${ref} ${head}`;
  const count = await textOf(git`git rev-list --count ${head} ${`^${sha}`} --`);
  say(
    `the checkout had ${count === "1" ? "a commit" : `${count} commits`} of its own, kept as ${ref} (git log ${ref})`,
  );
}

/** The first few of some names. */
function some(names: readonly string[]): string {
  return names.slice(0, 5).join(", ") + (names.length > 5 ? ` and ${names.length - 5} more` : "");
}

/** The part of `path` that something else occupies: the file itself, or a parent that is not a folder. */
async function obstacle(dir: string, path: string): Promise<string | undefined> {
  const parts = path.split("/");
  for (let length = 1; length <= parts.length; length++) {
    const part = parts.slice(0, length).join("/");
    const found = await lstat(join(dir, part)).catch(() => undefined);
    if (!found) return undefined;
    if (length === parts.length || !found.isDirectory()) return part;
  }
  return undefined;
}

/**
 * Remove git's own lock files that a killed git left behind (`index.lock`): they would stop every later build.
 * Only while no git works in the checkout; none of ours does, as the build holds its lock.
 */
export async function removeStaleLocks(
  { dir, gitDir, commonDir }: Checkout,
  { branch, tracking }: Branch,
  say: (line: string) => void,
): Promise<void> {
  const own = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock"].map((name) => join(gitDir, name));
  const refs = [tracking, ...(branch === undefined ? [] : [`refs/heads/${branch}`])];
  const shared = ["config.lock", "packed-refs.lock", "shallow.lock", ...refs.map((ref) => `${ref}.lock`)];
  const files = [...own, ...shared.map((name) => join(commonDir, name))];
  const present = await Promise.all(files.map(exists));
  const stale = files.filter((_, index) => present[index]);
  if (stale.length === 0 || (await gitWorksIn([dir, gitDir, commonDir]))) return;
  for (const file of stale) {
    await rm(file, { force: true });
    say(`removed ${file}, which a killed git had left behind`);
  }
}

/** Whether a git process stands in one of the folders; others' that cannot be looked at count as elsewhere. */
async function gitWorksIn(folders: readonly string[]): Promise<boolean> {
  const pids = (await readdir("/proc").catch(() => [])).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      if (!name.startsWith("git")) return false;
      const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => "");
      return folders.some((folder) => cwd === folder || cwd.startsWith(folder + sep));
    }),
  );
  return found.includes(true);
}
