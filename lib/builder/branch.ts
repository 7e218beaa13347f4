import { UsageError } from "../core/errors.ts";
import { isSafeRef } from "../core/names.ts";
import type { Shell } from "../exec/exec.ts";
import { type Checkout, currentBranch } from "../git/checkout.ts";
import { gitIn } from "../git/git.ts";

/** Which commit is wanted. */
export interface Target {
  /** A branch or tag, short or full; default: the branch that the checkout is on. */
  ref?: string | undefined;
  /** The commit, or its first digits; default: where the ref points now. */
  sha?: string | undefined;
  /** Stop, and touch nothing, when the checkout stands at this commit and the ref does too. */
  skipIfAt?: string | undefined;
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
    throw new UsageError(
      "--sha: the checkout has no remote to fetch it from; add one with git remote add origin URL",
    );
  }
  const remoteRef = merge || (isTag ? wanted : `refs/heads/${branch}`);
  const tracking = isTag
    ? wanted
    : `refs/remotes/${remote}/${remoteRef.replace(/^refs\/heads\//, "")}`;
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
