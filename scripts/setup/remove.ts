import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import type { Removable } from "../../lib/setup/setup.ts";
import { facts, options, planned } from "./flags.ts";

export const removeCommand = defineCommand({
  name: "setup remove",
  summary: "remove what setup has installed; data is kept unless --purge",
  usage: ["setup remove repo OWNER/NAME [flags]", "setup remove app NAME|slave|server|bus [flags]"],
  args: [
    [
      "WHAT",
      "repo, app, slave, server or bus",
      async () => ["repo", "app", "slave", "server", "bus"],
    ],
    [
      "NAME",
      "of the repo or app",
      async ({ args: [what], flags: { root = "/" } }) => {
        const { apps, repos } = await facts({ root, "dry-run": true });
        return what === "repo" ? repos.map(({ repo }) => repo) : apps.map(({ app }) => app);
      },
    ],
  ],
  minArgs: 1,
  maxArgs: 2,
  flags: {
    ...planned,
    purge: {
      type: "boolean",
      help: "also accounts, checkouts, releases, state, secrets and settings",
    },
  },
  examples: [
    ["setup remove repo jostylr/site", "it is not built any more; its checkout stays"],
    ["setup remove app my-app --purge --dry-run", "what would go, with all data"],
  ],
  run: async (input) => {
    const what = removable(input.args);
    const { planRemoval, setUp } = await import("../../lib/setup/setup.ts");
    const known = await facts(input.flags);
    return await setUp(await planRemoval(known, what, input.flags), options(input));
  },
});

function removable([kind = "", name]: readonly string[]): Removable {
  if (kind === "repo" || kind === "app") {
    if (name === undefined)
      throw new UsageError(
        `${kind === "repo" ? "OWNER/NAME" : "NAME"} is missing; see setup remove --help`,
      );
    return { kind, name };
  }
  if (kind !== "slave" && kind !== "server" && kind !== "bus")
    throw new UsageError(
      `"${kind}" is not what setup makes; write repo OWNER/NAME, app NAME, slave, server or bus`,
    );
  if (name !== undefined)
    throw new UsageError(`unexpected operand "${name}"; see setup remove --help`);
  return { kind };
}
