import { defineCommand } from "../../lib/cli/command.ts";
import { common, facts, options } from "./flags.ts";

export const serverCommand = defineCommand({
  name: "setup server",
  summary: "scripts, folders, hooks.yml and services of a server that builds",
  usage: ["setup server [--dry-run] [--yes] [--root DIR]"],
  flags: common,
  examples: [
    ["setup server", "show the plan, ask, do it"],
    ["setup server --yes --root /mnt/image", "into an image"],
  ],
  run: async (input) => {
    const { planServer, setUp } = await import("../../lib/setup/setup.ts");
    return await setUp(planServer(await facts(input.flags)), options(input));
  },
});
