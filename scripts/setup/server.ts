import { defineCommand } from "../../lib/cli/command.ts";
import { planServer } from "../../lib/setup/plan-server.ts";
import { setUp } from "../../lib/setup/setup.ts";
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
  run: async (input) => setUp(planServer(await facts(input.flags)), options(input)),
});
