import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { dirFlags } from "./flags.ts";

export const notify = defineCommand({
  name: "launchfit notify",
  summary: "send a sample to every target of notify: in launchify.yml",
  usage: ["launchfit notify test [flags]"],
  args: [["test", "send a sample"]],
  minArgs: 1,
  maxArgs: 1,
  flags: dirFlags,
  examples: [
    ["launchfit notify test", "does every target receive messages?"],
    ["launchfit notify test --dir /srv/app", "of another directory"],
  ],
  exits: { 1: "a target did not accept it" },
  run: async ({ args, flags, terminal }) => {
    if (args[0] !== "test") throw new UsageError(`"${args[0]}": write launchfit notify test`);
    const { notifyTest } = await import("../../lib/launch/launch.ts");
    const results = await notifyTest(flags.dir);
    for (const { target, ok, error } of results)
      terminal.print(`${target}: ${ok ? "told" : `not told: ${error}`}`);
    terminal.printJson(results);
    return results.every(({ ok }) => ok) ? 0 : 1;
  },
});
