import { defineCommand } from "../../lib/cli/command.ts";
import { commonFlags } from "./flags.ts";

/** `hook-server status`. */
export const status = defineCommand({
  name: "hook-server status",
  summary: "show all repos, failed ones first: last runs, runs in progress, waiting runs",
  usage: ["hook-server status [--watch]"],
  flags: {
    ...commonFlags,
    watch: {
      type: "boolean",
      short: "w",
      help: "update it until Ctrl-C: each second on a terminal, otherwise when it changes",
    },
  },
  examples: [
    ["hook-server status", "what the page shows, in a terminal"],
    ["hook-server status --watch", "and update it until Ctrl-C"],
    ["hook-server status --json", "the same as JSON, for a script"],
  ],
  run: async ({ flags, terminal, signal }) => {
    const hook = await import("../../lib/hook/hook.ts");
    await hook.showStatus(await hook.connect(flags), terminal, { watch: flags.watch, signal });
  },
});
