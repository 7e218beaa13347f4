import { type Checkout, readHead, readRef, readRemotes } from "../git/checkout.ts";
import { Refused, UsageError } from "../core/errors.ts";
import { CommandFailed } from "../exec/exec.ts";
import { git, gitText } from "../git/git.ts";
import { isSafeRef, shortSha } from "../core/names.ts";
import type { BuildContext } from "./stage.ts";

/** Which commit is wanted. */
export interface Target {
  /** A branch or tag, short or full; default: the branch that the checkout is on. */
  ref?: string | undefined;
  /** The commit, or its first digits; default: where the ref points now. */
  sha?: string | undefined;
  /** Stop, and touch nothing, when the checkout stands at this commit and the ref does too. */
  unlessAt?: string | undefined;
}

/** A branch of the checkout and where it comes from. */
export interface Branch {
  /** The full name on the remote: `refs/heads/main`. */
  ref: string;
  /** The short name; a tag has no branch. */
  branch?: string | undefined;
  remote: string;
  /** Where fetch keeps what it got. */
  tracking: string;
  /** The commit of the checkout, undefined before its first. */
  head?: string | undefined;
  /** Where the remote's branch was at the last fetch. */
  before?: string | undefined;
  /** HEAD is on this branch already. */
  current: boolean;
}

/**
 * Which branch or tag is wanted, where it comes from, and where the checkout stands; undefined without a remote.
 * @throws {UsageError} when it cannot be told.
 */
export async function findBranch(
  checkout: Checkout,
  { ref, sha }: Target,
  context: BuildContext,
): Promise<Branch | undefined> {
  if (ref !== undefined && !isSafeRef(ref.replace(/^refs\/(?:heads|tags)\//, ""))) {
    throw new UsageError(`--ref: "${ref}" is no name of a branch or tag`);
  }
  const head = await readHead(checkout);
  const options = { dir: checkout.dir, env: homeOf(context) };
  if (ref === undefined && head.branch === undefined) {
    throw new UsageError(
      `${checkout.dir} is on no branch (HEAD is at ${shortSha(head.sha ?? "")}); name one with --ref, or run: git checkout BRANCH`,
    );
  }
  const wanted = ref === undefined ? `refs/heads/${head.branch}` : ref;
  const isTag = wanted.startsWith("refs/tags/");
  const branch = isTag ? undefined : wanted.replace(/^refs\/heads\//, "");
  const [known, own] = await Promise.all([
    upstreamOf(checkout, branch, options),
    head.sha ?? commitOf(checkout, `refs/heads/${head.branch}`, options),
  ]);
  const current = head.branch === branch && branch !== undefined;
  const { remote } = known;
  if (remote === undefined) {
    if (sha === undefined) return undefined;
    throw new UsageError(
      "--sha: the checkout has no remote to fetch it from; add one with git remote add origin URL",
    );
  }
  const remoteRef = known.merge || (isTag ? wanted : `refs/heads/${branch}`);
  const tracking = isTag
    ? wanted
    : `refs/remotes/${remote}/${remoteRef.replace(/^refs\/heads\//, "")}`;
  return { ref: remoteRef, branch, remote, tracking, head: own, current };
}

/** The commit of a ref, undefined before its first. */
async function commitOf(
  checkout: Checkout,
  ref: string,
  options: { dir: string; env: Record<string, string | undefined> },
): Promise<string | undefined> {
  const plain = await readRef(checkout, ref);
  if (plain !== undefined) return plain;
  const { stdout } = await git(["rev-parse", "--verify", "--quiet", ref], {
    ...options,
    check: false,
  });
  return stdout.trim() || undefined;
}

/** The remote of a branch and its name there: read from .git/config, or by git where that is not plain. */
async function upstreamOf(
  checkout: Checkout,
  branch: string | undefined,
  options: { dir: string; env: Record<string, string | undefined> },
): Promise<{ remote?: string | undefined; merge?: string | undefined }> {
  const plain = await readRemotes(checkout);
  const remotes = plain?.names ?? lines(await gitText(["remote"], options).catch(explainGit));
  const known = plain
    ? plain.upstream.get(branch ?? "")
    : await ask("remote").then(async (remote) => ({ remote, merge: await ask("merge") }));
  if (known?.remote) return known;
  if (remotes.includes("origin")) return { remote: "origin" };
  if (remotes.length > 1) {
    throw new UsageError(
      `which remote? the checkout has ${remotes.join(", ")}; run: git branch --set-upstream-to=REMOTE/BRANCH`,
    );
  }
  return { remote: remotes[0] };

  async function ask(what: string): Promise<string | undefined> {
    if (branch === undefined) return undefined;
    const { stdout } = await git(["config", "--get", `branch.${branch}.${what}`], {
      ...options,
      check: false,
    });
    return stdout.trim() || undefined;
  }
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** git refuses to work in another user's folder; say what to do about it. */
export function explainGit(error: unknown): never {
  if (error instanceof CommandFailed && /dubious ownership/.test(error.result.stderr))
    throw dubious();
  throw error;
}

export function dubious(dir = "the checkout"): Refused {
  return new Refused(
    `${dir} belongs to another user, whose code a build would run; build as its owner (runuser -u OWNER -- build DIR), or allow it: git config --global --add safe.directory DIR`,
  );
}

/** HOME and what else the stages get; git reads the user's own configuration from there. */
export function homeOf({ env }: BuildContext): Record<string, string | undefined> {
  return { HOME: env.HOME, USER: env.USER, LOGNAME: env.LOGNAME };
}
