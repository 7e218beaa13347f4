import { defineCommand } from "../../lib/cli/command.ts";
import { cleanLine } from "../../lib/core/clean.ts";
import { dirFlags, folderFlag } from "./flags.ts";

export const list = defineCommand({
  name: "launchfit list",
  summary: "list the installed versions, newest first, or the apps of this machine",
  usage: ["launchfit list [flags]", "launchfit list [--all] [DIR…] [flags]"],
  args: [["DIR…", "the apps in these deploy directories"]],
  maxArgs: Number.POSITIVE_INFINITY,
  flags: {
    dir: folderFlag,
    all: {
      type: "boolean",
      help: "the apps of this machine: from setup app, units launchfit@NAME, and running ones (other users' for root only)",
    },
  },
  examples: [
    ["launchfit list", "the current one has a star"],
    ["launchfit list --all", "each app with its version, state, uptime and memory"],
    [
      "launchfit list --all --quiet --json",
      "for a monitor: the exit code tells whether all is well",
    ],
  ],
  exits: {
    1: "of apps: one does not run, is unhealthy or does not answer",
    2: "of apps: one has no server",
    4: "of apps: updates of one are refused",
  },
  run: async ({ flags, args, terminal }) => {
    const { listApps, listLines, status, worstCode } = await import("../../lib/launch/launch.ts");
    if (flags.all || args.length > 0) {
      const apps = await listApps(args, { all: flags.all });
      if (apps.length === 0) terminal.note("no app was found");
      else for (const line of listLines(apps, terminal)) terminal.print(line);
      terminal.printJson(apps);
      return worstCode(apps);
    }
    const { version, installed } = await status(flags.dir);
    if (installed.length === 0) terminal.note(`nothing is installed in ${flags.dir}`);
    for (const each of installed) terminal.print(`${each === version ? "*" : " "} ${each}`);
    terminal.printJson({ current: version, installed });
    return 0;
  },
});

export const config = defineCommand({
  name: "launchfit config",
  summary: "show the configuration with all defaults, and the source of each value",
  usage: ["launchfit config [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit config", "a table"],
    ["launchfit config --json", "for a script"],
  ],
  run: async ({ flags, terminal }) => {
    const { effectiveConfig } = await import("../../lib/launch/launch.ts");
    const rows = await effectiveConfig(flags.dir);
    const shown = rows.map(({ name, written, origin }) => [name, written, origin].map(cleanLine));
    for (const line of terminal.table(shown, { header: ["key", "value", "from"] }))
      terminal.print(line);
    terminal.printJson(rows);
  },
});
