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
export const runArgument = ["RUN", "a run's id, as `hook-server list` shows it"] as const;
