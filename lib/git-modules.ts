import { join } from "node:path";
import { Failure } from "./errors.ts";
import { exists } from "./files.ts";
import { git, type GitOptions } from "./git.ts";

/** A work tree, how git is called in it, and where its lines go. */
export interface WorkTree {
  options: GitOptions & { dir: string };
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
 * Replace Git LFS pointers by their files, where the repository uses LFS.
 * @throws {Failure} when git-lfs is not installed: the build would work on pointers.
 */
export async function updateLfs(
  { options, say }: WorkTree,
  remote: string,
): Promise<string | undefined> {
  const { code } = await git(
    ["grep", "--quiet", "--cached", "-I", "-E", "filter=lfs", "--", ":(glob)**/.gitattributes"],
    { ...options, check: false },
  );
  if (code !== 0) return undefined;
  if ((await git(["lfs", "version"], { ...options, check: false })).code !== 0) {
    throw new Failure(
      "the repository keeps files in Git LFS, but git-lfs is not installed; run: apt-get install git-lfs",
    );
  }
  // settings of this clone alone, so that later checkouts bring the files right away
  await git(["lfs", "install", "--local", "--skip-repo"], options);
  await git(["lfs", "pull", remote], { ...options, output: { onLine: say } });
  return "LFS files";
}
