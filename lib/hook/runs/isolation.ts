import type { Plan } from "../../exec/delegation.ts";
import { currentUser } from "../../exec/users.ts";
import type { HookConfig } from "../config/config.ts";
import { thenFolder } from "./run-command.ts";

/** How runs are kept apart from the server and from each other, in words. Pure. */

/** Why limits cannot be set although nothing forbids it. */
export const needSystemd = "only a server that systemd started can set them";

/** What `--check` says of how runs are ended and limited; `fix`: what to do where hooks.yml asks for too much. */
export function describeRuns(
  config: HookConfig,
  plan: Plan & { readonly byHand: boolean },
): { what: string; fix?: string | undefined }[] {
  const why = plan.why === undefined ? "" : `: ${plan.why}`;
  const ends =
    plan.way === "none"
      ? `runs have no cgroups${why}; what clears its environment, leaves its session and forks twice at once, or ` +
        "forks without end, is not ended with them"
      : "each run has a cgroup, by which all that it started is ended";
  const outlives = plan.outlives
    ? "runs go on when the server is killed, restarted or upgraded"
    : `runs under way when the server ends run again at its next start${plan.way === "none" ? "" : why}`;
  const limits =
    !hasLimits(config) || (plan.way !== "none" && !plan.byHand)
      ? []
      : [{ what: "limits: can be set", fix: plan.byHand ? undefined : plan.why }];
  return [{ what: ends }, { what: outlives }, ...limits, ...notes(config).map((what) => ({ what }))];
}

/** Whether any repo has a limit. */
export function hasLimits(config: HookConfig): boolean {
  return [...config.repos.values()].some(({ limits }) => Object.values(limits).some((each) => each !== undefined));
}

/** The repos whose `on_success:`, `on_failure:` or `on_change:` commands do not run in their checkout, a line each. */
export function thenElsewhere(config: HookConfig): string[] {
  return [...config.repos.values()]
    .filter(
      (repo) =>
        [repo.afterwards, repo.onFailure, repo.onChange].some(({ length }) => length > 0) &&
        thenFolder(repo) !== repo.dir,
    )
    .map(
      (repo) =>
        `${repo.name}: its on_success, on_failure and on_change commands run as ${currentUser().name} in /, as ` +
        `${repo.dir} is ${repo.user.name}'s; HOOK_DIR names it`,
    );
}

function notes(config: HookConfig): string[] {
  const own = [...config.repos.values()].filter(({ user }) => user.uid === currentUser().uid);
  return [
    ...own.map(
      ({ name }) =>
        `${name}: builds as the server's own user, and could leave its cgroup and change the server's files`,
    ),
    ...thenElsewhere(config),
  ];
}
