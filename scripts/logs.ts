import { defineCommand, runScript } from "../lib/cli/command.ts";
import { UsageError } from "../lib/core/errors.ts";
import { place } from "./logs/place.ts";
import { rotate } from "./logs/rotate.ts";
import { stats } from "./logs/stats.ts";

async function known([dir = "."]: readonly string[]) {
  const { knownRuns, logFileOf } = await import("../lib/logs/logs.ts");
  return await knownRuns(await logFileOf(dir));
}

const command = defineCommand({
  name: "logs",
  summary: "show the last run of a checkout, or search, follow and rotate its log",
  usage: ["logs [DIR] [flags]", "logs rotate [DIR ...] [flags]", "logs stats [DIR] [flags]"],
  args: [place],
  maxArgs: 1,
  flags: {
    list: {
      type: "boolean",
      help: "runs instead of lines, with result, duration and ref; the last 20, or -n",
    },
    run: {
      type: "string",
      value: "ID",
      complete: async ({ args }) => (await known(args)).ids,
      help: "this run; the start or the end of its ID is enough",
    },
    stage: {
      type: "string",
      value: "NAME",
      help: "lines of this stage only",
      complete: async ({ args }) => (await known(args)).stages,
    },
    failed: { type: "boolean", help: "runs that failed or were cut off" },
    since: {
      type: "string",
      value: "TIME",
      help: "lines since: 2h (ago), 2026-11-20, 2026-11-20T10:15, 10:15",
    },
    until: { type: "string", value: "TIME", help: "lines up to then" },
    grep: {
      type: "string",
      value: "RE",
      help: "lines whose text matches this JavaScript regular expression",
    },
    "ignore-case": {
      type: "boolean",
      short: "i",
      help: "--grep ignores case",
    },
    context: {
      type: "number",
      short: "C",
      value: "N",
      default: 0,
      help: "lines shown around each match of --grep",
    },
    "before-context": {
      type: "number",
      short: "B",
      value: "N",
      help: "lines shown before each match",
    },
    "after-context": {
      type: "number",
      short: "A",
      value: "N",
      help: "lines shown after each match",
    },
    lines: {
      type: "number",
      short: "n",
      value: "N",
      help: "only the last N lines; with --list the last N runs",
    },
    follow: {
      type: "boolean",
      short: "f",
      help: "follow new lines, also across rotations",
    },
    "until-done": {
      type: "boolean",
      help: "follow until the run ends, and exit with its exit code",
    },
  },
  examples: [
    ["logs", "the last run"],
    ["logs ~/site --list", "the last 20 runs"],
    ["logs --failed --since 1d", "what went wrong since yesterday"],
    ["logs --grep 'npm (ERR|error)' -C 3", "in all runs, compressed ones too"],
    ["logs -f --until-done", "wait for the run in progress"],
  ],
  exits: {
    1: "no line matches --grep, or there is no log; with --until-done the run's own exit code",
  },
  subcommands: { rotate, stats },
  run: async ({ flags, args, terminal, signal }) => {
    const now = new Date();
    const follow = flags.follow || flags["until-done"];
    if (follow && (flags.list || flags.failed || flags.until !== undefined)) {
      throw new UsageError(
        "--follow goes with neither --list, --failed nor --until; leave one out",
      );
    }
    const { existingLogOf, grepPattern, logFileOf, pointInTime, viewLog } = await import(
      "../lib/logs/logs.ts"
    );
    const time = (flag: string, text: string | undefined) => text && pointInTime(flag, text, now);
    return viewLog(
      {
        // what is followed may come later
        file: await (follow ? logFileOf : existingLogOf)(args[0] ?? "."),
        run: flags.run,
        failed: flags.failed,
        selection: {
          stage: flags.stage,
          since: time("--since", flags.since),
          until: time("--until", flags.until),
          grep:
            flags.grep === undefined ? undefined : grepPattern(flags.grep, flags["ignore-case"]),
          before: flags["before-context"] ?? flags.context,
          after: flags["after-context"] ?? flags.context,
        },
        count: flags.lines,
        list: flags.list,
        follow,
        untilDone: flags["until-done"],
        signal,
      },
      terminal,
    );
  },
});

void runScript(command);
