import { appendFile, mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Refused, systemCode } from "../core/errors.ts";
import { exists, readIfThere } from "../files/files.ts";
import { gitIn } from "./git.ts";

/** A git checkout: a work tree and the git folder that belongs to it (gitrepository-layout(5)). */
export interface Checkout {
  /** The work tree's top. */
  dir: string;
  /** Its git folder; a worktree's or submodule's lies elsewhere. */
  gitDir: string;
  /** The git folder that all worktrees of the repository share. */
  commonDir: string;
}

/**
 * The checkout whose top is `dir`, or undefined when there is none.
 * @throws {Refused} when it belongs to another user, so that git does not work in it.
 */
export async function findCheckout(dir: string): Promise<Checkout | undefined> {
  const top = resolve(dir);
  if (!(await exists(join(top, ".git")))) return undefined;
  const git = gitIn(top, { nothrow: true });
  const found = await git`git rev-parse --path-format=absolute --git-dir --git-common-dir`;
  if (!found.ok) {
    if (found.stderr.includes("dubious ownership"))
      throw new Refused(
        `${top} belongs to another user, whose code a build would run; ` +
          "build as its owner (runuser -u OWNER -- build DIR), or allow it: " +
          `git config --global --add safe.directory ${top}`,
      );
    throw found;
  }
  const [gitDir = "", commonDir = ""] = found.stdout.split("\n");
  return { dir: top, gitDir, commonDir };
}

/** The short name of the branch that HEAD is on; undefined when it is detached. */
export async function currentBranch({ dir }: Checkout): Promise<string | undefined> {
  const git = gitIn(dir, { nothrow: true });
  return (await git`git symbolic-ref --quiet --short HEAD`).stdout.trim() || undefined;
}

/**
 * The folder where the toolkit keeps its state of a folder: locks, records. It is inside the git folder, where there is
 * one. No git is run: another user may ask too.
 */
export async function stateFolder(dir: string): Promise<string> {
  const git = join(dir, ".git");
  if (!(await exists(git))) return join(dir, ".boatyard");
  // a worktree's or submodule's is a file that names the folder
  const [, named = git] = /^gitdir: (.+)/.exec((await readIfThere(git).catch(() => "")) ?? "") ?? [];
  return join(resolve(dir, named), "boatyard");
}

/** The lock of a folder: who holds it builds or releases it, and alone writes its logs.txt. */
export async function buildLockOf(dir: string): Promise<string> {
  return join(await stateFolder(dir), "build.lock");
}

/** Exclude files that the toolkit writes into a checkout from git, in this clone only (.git/info/exclude). */
export async function excludeFromGit({ commonDir }: Checkout, patterns: readonly string[]): Promise<void> {
  const file = join(commonDir, "info", "exclude");
  const text = (await readIfThere(file)) ?? "";
  const known = new Set(text.split("\n"));
  const missing = patterns.filter((pattern) => !known.has(pattern));
  if (missing.length === 0) return;
  const start = text === "" || text.endsWith("\n") ? "" : "\n";
  try {
    await mkdir(dirname(file), { recursive: true });
    await appendFile(file, `${start}${missing.join("\n")}\n`);
  } catch (error) {
    // a checkout that we may not write to fails elsewhere, with better words
    if (systemCode(error) !== "EACCES" && systemCode(error) !== "EROFS") throw error;
  }
}
