import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { didYouMean } from "../lib/core/names.ts";
import { listCommand, refreshCommand, verifyCommand, withdrawCommand } from "./release/folder.ts";
import { keysCommand } from "./release/keys.ts";
import { keygenCommand, packCommand } from "./release/making.ts";

const subcommands = {
  pack: packCommand,
  keygen: keygenCommand,
  keys: keysCommand,
  refresh: refreshCommand,
  withdraw: withdrawCommand,
  list: listCommand,
  verify: verifyCommand,
};

const command = defineCommand({
  name: "release",
  summary: "build a tag in a separate worktree and run the repo's release.sh",
  usage: [
    "release [DIR] --tag TAG [flags]",
    "release pack|keygen|keys|refresh|withdraw|list|verify … (each has --help)",
  ],
  args: [["DIR", "the checkout; default: the current folder"]],
  maxArgs: 1,
  flags: {
    tag: {
      type: "string",
      value: "TAG",
      env: "RELEASE_TAG",
      help: "the tag to release",
      complete: async ({ args }) => {
        const { newestTags } = await import("../lib/release/release.ts");
        return await newestTags(args[0] ?? ".");
      },
    },
    sha: {
      type: "string",
      value: "SHA",
      env: "RELEASE_SHA",
      help: "the commit that the event named; if the tag is at another one, this is reported and the tag is built",
    },
    wait: { type: "boolean", help: "wait for another release of the repo, instead of exit 3" },
  },
  examples: [
    ["release --tag v1.2.3", "in the checkout; what hook-server does on a release event"],
    ["release /home/site/site --tag v1.2.3 --json", "the result as JSON"],
  ],
  exits: { 1: "a step failed", 3: "another release of the repo is in progress" },
  environment: [
    [
      "RELEASE_NAME, RELEASE_URL, RELEASE_PRERELEASE, HOOK_*",
      "passed on to the build and to release.sh",
    ],
  ],
  subcommands,
  async run({ flags, args, terminal, signal }) {
    if (flags.tag === undefined)
      throw new UsageError(
        `which release? name its tag with --tag${didYouMean(args[0] ?? "", Object.keys(subcommands))}`,
      );
    const { releaseTag } = await import("../lib/release/release.ts");
    const { runJson, runTable } = await import("../lib/run/report.ts");
    const result = await releaseTag({
      dir: args[0] ?? ".",
      tag: flags.tag,
      sha: flags.sha,
      wait: flags.wait,
      terminal,
      signal,
    });
    terminal.printJson(runJson(result));
    for (const line of runTable("release", result, terminal)) terminal.print(line);
    return result.code;
  },
});

void runScript(command);
