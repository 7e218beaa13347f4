import { defineCommand } from "../../lib/cli/command.ts";
import { place } from "./place.ts";

export const rotate = defineCommand({
  name: "logs rotate",
  summary:
    "rename a log that is large or old, compress the parts, remove the oldest; no line is lost",
  usage: ["logs rotate [DIR ...] [--max-size 10M] [--max-age 7d] [--keep 10]"],
  args: [place],
  maxArgs: 10_000,
  flags: {
    "max-size": {
      type: "size",
      value: "SIZE",
      default: "10M",
      help: "rotate a log of at least this size",
    },
    "max-age": {
      type: "duration",
      value: "TIME",
      default: "7d",
      help: "rotate a log whose first line is as old as this",
    },
    keep: { type: "number", value: "N", default: 10, help: "how many rotated parts stay" },
    "max-total": {
      type: "size",
      value: "SIZE",
      help: "how much all rotated parts together may take; the oldest go first",
    },
    "dry-run": { type: "boolean", help: "only list what would be rotated, compressed and removed" },
  },
  examples: [
    ["logs rotate --dry-run", "show what would go"],
    ["logs rotate /home/*/site --max-size 50M --keep 4", "several checkouts, as from cron"],
  ],
  exits: { 1: "a part could not be compressed or removed" },
  run: async ({ flags, args, terminal, signal }) => {
    const { existingLogOf, rotateLogs } = await import("../../lib/logs/logs.ts");
    const files = await Promise.all((args.length > 0 ? args : ["."]).map(existingLogOf));
    const options = {
      maxSize: flags["max-size"],
      maxAge: flags["max-age"],
      keep: flags.keep,
      maxTotal: flags["max-total"],
      dryRun: flags["dry-run"],
      signal,
    };
    return rotateLogs(files, options, terminal);
  },
});
