import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { common, facts, options, user } from "./flags.ts";

export const appCommand = defineCommand({
  name: "setup app",
  summary: "install an app, with an account of its own, and run it as a service",
  usage: ["setup app NAME --server URL --key FINGERPRINT [flags]"],
  args: [["NAME", "the app's name"]],
  minArgs: 1,
  maxArgs: 1,
  flags: {
    ...common,
    user,
    server: { type: "string", value: "URL", help: "the web folder with its releases" },
    key: {
      type: "string",
      value: "FINGERPRINT",
      help: "the key that must have signed everything",
    },
  },
  examples: [
    [
      "setup app my-app --server https://example.com/app-updates --key 0123…CDEF",
      "install and run it",
    ],
    [
      "setup app my-app --server https://example.com/app-updates --key 0123…CDEF --dry-run",
      "show the plan",
    ],
  ],
  run: async (input) => {
    const { server, key } = input.flags;
    if (server === undefined || key === undefined)
      throw new UsageError("--server and --key are needed; release keygen prints the fingerprint");
    const { planApp, setUp } = await import("../../lib/setup/setup.ts");
    const request = { app: input.args[0] ?? "", server, key, user: input.flags.user };
    return await setUp(planApp(await facts(input.flags), request), options(input));
  },
});
