// `build` within the test's own process: a start of the script costs more than most builds.
import process from "node:process";
import { parseArgs } from "node:util";
import { build } from "../../lib/builder/build.ts";
import { exitCodeOf, messageOf } from "../../lib/core/errors.ts";
import type { Terminal } from "../../lib/core/terminal.ts";
import { runTable } from "../../lib/run/report.ts";
import { createTerminal } from "../../lib/cli/terminal.ts";

/** The exit code, and all that would have gone to the terminal. */
export type Built = { code: number; text: string };

// nobody's git configuration
process.env["GIT_CONFIG_GLOBAL"] = "/dev/null";
process.env["GIT_CONFIG_NOSYSTEM"] = "1";

/** Builds `dir` with some of the flags of the script. */
export async function buildHere(dir: string, args: string[] = []): Promise<Built> {
  const { values: flags } = parseArgs({
    args,
    options: {
      only: { type: "string", default: "" },
      skip: { type: "string", default: "" },
      from: { type: "string" },
      ref: { type: "string" },
      sha: { type: "string" },
      "if-changed": { type: "boolean", default: false },
      force: { type: "boolean", default: false },
      quiet: { type: "boolean", default: false },
    },
  });
  const lines: string[] = [];
  const terminal: Terminal = {
    ...createTerminal({ quiet: flags.quiet }),
    note: (line) => void (flags.quiet || lines.push(line)),
    warn: (line) => void lines.push(line),
  };
  const names = (list: string) => list.split(",").filter((name) => name !== "");
  try {
    const result = await build({
      dir,
      only: names(flags.only),
      skip: names(flags.skip),
      from: flags.from,
      ref: flags.ref,
      sha: flags.sha,
      ifChanged: flags["if-changed"],
      force: flags.force,
      wait: false,
      terminal,
      signal: new AbortController().signal,
    });
    if (result.result === "unchanged") terminal.note(result.stages.at(-1)?.note ?? "");
    else lines.push(...runTable("build", result, terminal));
    return { code: result.code, text: lines.join("\n") };
  } catch (error) {
    const code = exitCodeOf(error);
    if (code === undefined) throw error;
    return { code, text: messageOf(error) };
  }
}
