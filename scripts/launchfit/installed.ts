import { defineCommand } from "../../lib/cli/command.ts";
import { dirFlags } from "./flags.ts";

export const list = defineCommand({
  name: "launchfit list",
  summary: "the installed versions, the newest first",
  usage: ["launchfit list [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit list", "the current one has a star"],
    ["launchfit list --json", "for a script"],
  ],
  run: async ({ flags, terminal }) => {
    const { status } = await import("../../lib/launch/launch.ts");
    const { version, installed } = await status(flags.dir);
    for (const each of installed) terminal.print(`${each === version ? "*" : " "} ${each}`);
    terminal.printJson({ current: version, installed });
  },
});

export const config = defineCommand({
  name: "launchfit config",
  summary: "the configuration with all defaults, and where each value comes from",
  usage: ["launchfit config [flags]"],
  flags: dirFlags,
  examples: [
    ["launchfit config", "a table"],
    ["launchfit config --json", "for a script"],
  ],
  run: async ({ flags, terminal }) => {
    const { effectiveConfig } = await import("../../lib/launch/launch.ts");
    const rows = await effectiveConfig(flags.dir);
    const shown = rows.map(({ name, written, origin }) => [name, written, origin]);
    for (const line of terminal.table(shown, { header: ["key", "value", "from"] }))
      terminal.print(line);
    terminal.printJson(rows);
  },
});
