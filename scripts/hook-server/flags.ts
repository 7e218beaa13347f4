import type { HookClient } from "../../lib/hook/client.ts";

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

/** Speaks to the server whose state folder the flags name. */
export async function clientOf(flags: {
  config?: string | undefined;
  state?: string | undefined;
}): Promise<HookClient> {
  const { HookClient } = await import("../../lib/hook/client.ts");
  const { findState } = await import("../../lib/hook/config.ts");
  return new HookClient(await findState(flags.config, flags.state));
}

/** The argument of the commands about one run. */
export const runArgument = ["RUN", "a run's id, as `hook-server list` shows it"] as const;
