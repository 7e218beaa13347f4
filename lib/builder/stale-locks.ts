import { readdir, readFile, readlink, rm } from "node:fs/promises";
import { join, sep } from "node:path";
import type { Checkout } from "../git/checkout.ts";
import { exists } from "../files/files.ts";
import type { Branch } from "./branch.ts";

/**
 * Remove git's own lock files that a killed git left behind (`index.lock`): they would stop every later build.
 * Only while no git works in the checkout; the caller holds the build's lock, so that none of ours does.
 */
export async function removeStaleLocks(
  { dir, gitDir, commonDir }: Checkout,
  { branch, tracking }: Pick<Branch, "branch" | "tracking">,
  say: (line: string) => void,
): Promise<void> {
  const own = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock"].map((name) => join(gitDir, name));
  const refs = [tracking, ...(branch === undefined ? [] : [`refs/heads/${branch}`])];
  const shared = [
    "config.lock",
    "packed-refs.lock",
    "shallow.lock",
    ...refs.map((ref) => `${ref}.lock`),
  ];
  const files = [...own, ...shared.map((name) => join(commonDir, name))];
  const present = await Promise.all(files.map(exists));
  const stale = files.filter((_, index) => present[index]);
  if (stale.length === 0 || (await gitWorksIn([dir, gitDir, commonDir]))) return;
  for (const file of stale) {
    await rm(file, { force: true });
    say(`removed ${file}, which a killed git had left behind`);
  }
}

/** Whether a git process stands in one of the folders; others' processes that cannot be looked at count as elsewhere. */
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
