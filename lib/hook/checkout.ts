import type { Shell } from "../exec/exec.ts";
import { as } from "../exec/users.ts";
import { gitIn, textOf } from "../git/git.ts";
import type { RepoConfig } from "./config.ts";

/** What git says of a repo's checkout. */

/** Git in a repo's checkout, as the repo's user. */
export function gitAs(repo: RepoConfig): Shell {
  const { env, prefix } = as(repo.user);
  return gitIn(repo.dir, { env, prefix });
}

/** The branch that a repo's checkout is on, as git tells its user; undefined: none, or there is no checkout yet. */
export async function checkoutBranch(repo: RepoConfig): Promise<string | undefined> {
  const git = gitAs(repo)({ timeout: 5000 });
  return await textOf(git`git symbolic-ref --quiet --short HEAD`).catch(() => undefined);
}
