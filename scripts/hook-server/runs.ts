import { defineCommand } from "../../lib/cli/command.ts";
import { UsageError } from "../../lib/core/errors.ts";
import { commonFlags, repos, runArgument, runs } from "./flags.ts";

/** hook-server list, show and log: what there is to see of the runs. */

export const list = defineCommand({
  name: "hook-server list",
  summary: "list runs that wait, are in progress or have ended, newest first",
  usage: [
    "hook-server list [--repo OWNER/NAME] [--only STATE] [-n 20]",
    "hook-server list --ignored [--repo OWNER/NAME] [-n 20]",
  ],
  flags: {
    ...commonFlags,
    repo: {
      type: "string",
      value: "OWNER/NAME",
      help: "runs of this repo only",
      complete: repos,
    },
    only: {
      type: "string",
      value: "STATE",
      help: "runs in this state only",
      choices: ["waiting", "starting", "running", "succeeded", "failed", "cancelled", "superseded"],
    },
    ignored: {
      type: "boolean",
      help: "instead of runs, the genuine deliveries that started nothing, with the reason",
    },
    lines: { type: "number", short: "n", value: "N", default: 20, help: "how many" },
  },
  examples: [
    ["hook-server list", "the last 20 runs"],
    ["hook-server list --only failed --json", "failed ones, for a script"],
    ["hook-server list --ignored", "why did my push not run?"],
  ],
  run: async ({ flags, terminal }) => {
    const hook = await import("../../lib/hook/hook.ts");
    const filter = { repo: flags.repo, state: flags.only, limit: flags.lines };
    const show = flags.ignored ? hook.listIgnored : hook.list;
    if (flags.ignored && flags.only !== undefined)
      throw new UsageError("--ignored lists deliveries, which have no state; leave out --only");
    await show(await hook.connect(flags), terminal, filter);
  },
});

export const show = defineCommand({
  name: "hook-server show",
  summary: "show all that is recorded about a run",
  usage: ["hook-server show RUN"],
  args: [runArgument],
  minArgs: 1,
  maxArgs: 1,
  flags: commonFlags,
  examples: [
    ["hook-server show 20261120T101500Z-3f2a9c", "its record"],
    ["hook-server show --json 20261120T101500Z-3f2a9c", "its record as JSON"],
  ],
  run: async ({ flags, args, terminal }) => {
    const hook = await import("../../lib/hook/hook.ts");
    await hook.show(await hook.connect(flags), terminal, args[0] ?? "");
  },
});

export const log = defineCommand({
  name: "hook-server log",
  summary: "show the output of a run",
  usage: ["hook-server log [-f] [RUN]"],
  args: [["RUN", "a run's id; default: the newest that was started", runs]],
  maxArgs: 1,
  flags: {
    ...commonFlags,
    follow: { type: "boolean", short: "f", help: "follow it until the run ends" },
  },
  examples: [
    ["hook-server log", "of the newest run"],
    ["hook-server log -f 20261120T101500Z-3f2a9c", "as it grows"],
  ],
  exits: { 1: "the run that was followed did not succeed" },
  run: async ({ flags, args }) => {
    const hook = await import("../../lib/hook/hook.ts");
    return await hook.log(await hook.connect(flags), args[0], flags.follow);
  },
});
