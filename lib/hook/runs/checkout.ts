import { isSha } from "../../core/names.ts";
import type { Shell } from "../../exec/exec.ts";
import { userEnvironment, wordsFor } from "../../exec/users.ts";
import { gitIn, textOf } from "../../git/git.ts";
import type { Run, RunState } from "../../run-store/run-store.ts";
import type { HookConfig, RepoConfig } from "../config/config.ts";
import { secluded } from "./run-command.ts";

/** What git says of a repo's checkout. */

/** Git in a repo's checkout, as the repo's user, who may have set there what programs git starts. */
export function gitAs({ user, dir }: RepoConfig): Shell {
  return gitIn(dir, { env: userEnvironment(user), words: secluded(wordsFor(user)) });
}

/** The branch that a repo's checkout is on, as git tells its user in time; undefined: none, or no checkout yet. */
export async function checkoutBranch(repo: RepoConfig, timeout = 5000): Promise<string | undefined> {
  const git = gitAs(repo)({ timeout });
  return await textOf(git`git symbolic-ref --quiet --short HEAD`).catch(() => undefined);
}

/** The commit of a release whose forge has not told it, for statuses: that of its tag, once the checkout has it. */
export async function builtCommit(
  { repo: name, kind, ref, sha, built }: Run,
  { repos, forges }: Pick<HookConfig, "repos" | "forges">,
): Promise<string | undefined> {
  const repo = repos.get(name);
  if (kind !== "release" || sha !== undefined || !repo || forges.length === 0) return built;
  const git = gitAs(repo)({ timeout: 5000 });
  const commit = `${ref}^{commit}`;
  const found = await textOf(git`git rev-parse --verify --quiet --end-of-options ${commit}`).catch(() => "");
  return isSha(found) ? found : undefined;
}

/** Why a push that came when the checkout had no branch does not run now; undefined: it does. */
export async function notCheckedOut(
  { ref }: Run,
  repo: RepoConfig,
): Promise<{ state: RunState; reason: string } | undefined> {
  // a busy machine is no reason to fail
  const branch = await checkoutBranch(repo, 60_000);
  if (branch === undefined)
    return {
      state: "failed",
      reason: `${repo.dir} has no branch checked out; clone the repository there, or set refs`,
    };
  if (ref === `refs/heads/${branch}`) return undefined;
  return { state: "cancelled", reason: `${repo.dir} is on ${branch}, not on ${ref}` };
}
