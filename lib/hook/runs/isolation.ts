import { currentUser } from "../../exec/users.ts";
import type { HookConfig } from "../config/config.ts";
import { thenFolder } from "./run-command.ts";

/** How runs are kept apart from the server and from each other, in words. Pure. */

/** Why limits cannot be set. */
export const needScopes = "systemd sets them, for a server that runs as root";

/** What `--check` says of how runs are ended and limited; `fix`: what to do where hooks.yml asks for too much. */
export function describeRuns(config: HookConfig, scopes: boolean): { what: string; fix?: string | undefined }[] {
  const [ends, outlives] = scopes
    ? [
        "each run is in a scope of systemd, with which all that it started is ended",
        "runs go on when the server is killed, restarted or upgraded",
      ]
    : [
        "runs are in no scopes of systemd; what clears its environment, leaves its session and forks twice at once, " +
          "or forks without end, is not ended with them",
        "runs under way when the server ends run again at its next start",
      ];
  const fix = scopes ? undefined : needScopes;
  return [
    { what: ends },
    { what: outlives },
    ...(hasLimits(config) ? [{ what: "limits: can be set", fix }] : []),
    ...notes(config).map((what) => ({ what })),
  ];
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
    ...own.map(({ name }) => `${name}: builds as the server's own user, and could change the server's files`),
    ...thenElsewhere(config),
  ];
}
