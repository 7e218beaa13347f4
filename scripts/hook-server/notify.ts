import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { commonFlags } from "./flags.ts";

/** `hook-server notify test`. */
export const notify = defineCommand({
  name: "hook-server notify",
  summary: "send a sample to every target of notify:",
  usage: ["hook-server notify test [--config hooks.yml]"],
  args: [["test", "send a sample"]],
  minArgs: 1,
  maxArgs: 1,
  flags: commonFlags,
  examples: [["hook-server notify test", "does every target receive messages?"]],
  exits: { 1: "a target did not accept it" },
  run: async ({ flags, args, terminal }) => {
    if (args[0] !== "test") throw new UsageError(`"${args[0]}" is not "test"`);
    const { sendSample } = await import("../../lib/hook/hook.ts");
    return await sendSample(flags, terminal);
  },
});
