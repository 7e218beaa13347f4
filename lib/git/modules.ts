import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { git, type OldGitOptions } from "./git.ts";

/** A work tree, how git is called in it, and where its lines go. */
export interface WorkTree {
  options: OldGitOptions & { dir: string };
  say: (line: string) => void;
}

/**
 * Bring submodules to the commits that the checkout names.
 * @returns a few words for the table, or undefined where there are none.
 */
export async function updateSubmodules({ options, say }: WorkTree): Promise<string | undefined> {
  if (!(await exists(join(options.dir, ".gitmodules")))) return undefined;
  // an address that changed in .gitmodules has to be taken over first
  await git(["submodule", "sync", "--quiet", "--recursive"], options);
  await git(["submodule", "update", "--init", "--recursive", "--force"], {
    ...options,
    output: { onLine: say },
  }).catch((error) => {
    throw new Failure(
      `a submodule cannot be had: see the lines above (${String(error.message ?? error)})`,
    );
  });
  return "submodules";
}

/**
 * Whether a commit keeps files in Git LFS.
 * @throws {Failure} when it does, and git-lfs is not installed: the build would work on pointers.
 */
export async function usesLfs({ options }: WorkTree, sha: string): Promise<boolean> {
  const paths = [".gitattributes", ":(glob)**/.gitattributes"];
  const search = ["grep", "--quiet", "-I", "-E", "filter=lfs", sha, "--", ...paths];
  if ((await git(search, { ...options, check: false })).code !== 0) return false;
  if ((await git(["lfs", "version"], { ...options, check: false })).code === 0) return true;
  throw new Failure(
    "the repository keeps files in Git LFS, but git-lfs is not installed; run: apt-get install git-lfs",
  );
}

/** Have later checkouts of this clone bring the files themselves; to be called before the checkout. */
export async function prepareLfs({ options }: WorkTree): Promise<void> {
  await git(["lfs", "install", "--local", "--skip-repo"], options);
}

/** Replace Git LFS pointers that a former checkout has left by their files. */
export async function pullLfs({ options, say }: WorkTree, remote: string): Promise<void> {
  await git(["lfs", "pull", remote], { ...options, output: { onLine: say } });
}
