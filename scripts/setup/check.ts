import { resolve } from "node:path";
import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { root } from "./flags.ts";

export const checkCommand = defineCommand({
  name: "setup check",
  summary: "what is missing or wrong on this machine, and how to mend it",
  usage: ["setup check [--root DIR] [--forge URL]"],
  flags: {
    root,
    forge: {
      type: "string",
      value: "URL",
      default: "https://github.com/",
      help: "must be reachable; its clock is compared",
    },
  },
  examples: [
    ["setup check", "everything"],
    ["setup check --json --forge https://git.example.com/", "for a script, with another forge"],
  ],
  exits: { 1: "something is to be mended" },
  run: async ({ flags, terminal, signal }) => {
    if (!/^https?:\/\/[^/]/.test(flags.forge))
      throw new UsageError(`--forge: "${flags.forge}" is no URL; write https://git.example.com/`);
    const { checkMachine } = await import("../../lib/setup/check.ts");
    const findings = await checkMachine({
      root: resolve(flags.root),
      forge: flags.forge,
      signal,
    });
    terminal.printJson({ findings });
    for (const { what, mend } of findings)
      terminal.print(
        mend === undefined
          ? `${terminal.paint.green("ok")}    ${what}`
          : `${terminal.paint.red("mend")}  ${what}: ${mend}`,
      );
    return findings.some(({ mend }) => mend !== undefined) ? 1 : 0;
  },
});
