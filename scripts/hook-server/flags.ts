import type { Live } from "../../lib/cli/command.ts";

/** The newest runs, for completion. */
export const runs: Live = async ({ flags: { config, state } }) => {
  const { knownRuns } = await import("../../lib/hook/hook.ts");
  return await knownRuns({ config, state });
};

/** The repos of hooks.yml, for completion. */
export const repos: Live = async ({ flags: { config, state } }) => {
  const { knownRepos } = await import("../../lib/hook/hook.ts");
  return await knownRepos({ config, state });
};

/** The flags that every command of hook-server has. */
export const commonFlags = {
  config: {
    type: "string",
    value: "FILE",
    env: "BOATYARD_HOOKS",
    help: "the configuration (default: hooks.yml here, else /etc/boatyard/hooks.yml)",
  },
  state: {
    type: "string",
    value: "DIR",
    env: "BOATYARD_STATE",
    help: "where queue and runs are kept (default: the file's state:, else /var/lib/boatyard for root, ~/.local/state/boatyard for others)",
  },
} as const;

/** The argument of the commands about one run. */
export const runArgument = ["RUN", "a run's id, as `hook-server list` shows it", runs] as const;
