import { defineCommand } from "../../lib/cli/command.ts";
import { place } from "./place.ts";

export const stats = defineCommand({
  name: "logs stats",
  summary: "show how often each stage ran and failed, and how long it takes",
  usage: ["logs stats [DIR] [-n 50] [--since 30d]"],
  args: [place],
  maxArgs: 1,
  flags: {
    lines: { type: "number", short: "n", value: "N", help: "the last N runs; default: all" },
    since: {
      type: "string",
      value: "TIME",
      help: "runs that started since: 2h, 2026-11-20, 2026-11-20T10:15, 10:15",
    },
  },
  examples: [
    ["logs stats", "all runs of the checkout in the current folder"],
    ["logs stats ~/site --since 30d --json", "a month, for another program"],
  ],
  run: async ({ flags, args, terminal }) => {
    const { existingLogOf, pointInTime, printStats } = await import("../../lib/logs/logs.ts");
    const since =
      flags.since === undefined ? undefined : pointInTime("--since", flags.since, new Date());
    await printStats(await existingLogOf(args[0] ?? "."), { count: flags.lines, since }, terminal);
  },
});
