import { resolve } from "node:path";
import { defineCommand } from "../../lib/cli/command.ts";
import { cleanLine } from "../../lib/core/clean.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { root } from "./flags.ts";

export const checkCommand = defineCommand({
  name: "setup check",
  summary: "list what is missing or wrong on this machine, and how to fix it",
  usage: ["setup check [--root DIR] [--forge URL]"],
  flags: {
    root,
    forge: {
      type: "string",
      value: "URL",
      default: "https://github.com/",
      help: "the forge to reach, whose clock is compared",
    },
  },
  examples: [
    ["setup check", "everything"],
    ["setup check --json --forge https://git.example.com/", "for a program, with another forge"],
  ],
  exits: { 1: "something is to be fixed" },
  run: async ({ flags, terminal, signal }) => {
    if (!/^https?:\/\/[^/]/.test(flags.forge))
      throw new UsageError(
        `--forge: "${flags.forge}" is not a URL; write https://git.example.com/`,
      );
    const { checkMachine } = await import("../../lib/setup/setup.ts");
    const findings = await checkMachine({
      root: resolve(flags.root),
      forge: flags.forge,
      signal,
    });
    terminal.printJson({ findings });
    for (const { what, fix } of findings)
      terminal.print(
        fix === undefined
          ? `${terminal.paint.green("ok")}    ${cleanLine(what)}`
          : `${terminal.paint.red("fix")}   ${cleanLine(`${what}: ${fix}`)}`,
      );
    return findings.some(({ fix }) => fix !== undefined) ? 1 : 0;
  },
});
