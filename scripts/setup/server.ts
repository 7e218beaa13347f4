import { defineCommand } from "../../lib/cli/command.ts";
import { busClient, common, facts, onBus, options } from "./flags.ts";

export const serverCommand = defineCommand({
  name: "setup server",
  summary: "install scripts, folders, hooks.yml and services of a server that builds",
  usage: ["setup server [--bus URL [--ca FILE]] [--dry-run] [--yes] [--root DIR]"],
  flags: { ...common, ...onBus },
  examples: [
    ["setup server", "show the plan, ask, do it"],
    ["setup server --yes --root /mnt/image", "into an image"],
  ],
  run: async (input) => {
    const { busNotes, planServer, setUp } = await import("../../lib/setup/setup.ts");
    const bus = await busClient(input.flags);
    const known = await facts(input.flags);
    const words = ["master", "--role", "master"];
    const closing = async () =>
      bus ? await busNotes(known.root, "/etc/server-update/bus.seed", words) : [];
    return await setUp(planServer(known, bus), { ...options(input), closing });
  },
});
