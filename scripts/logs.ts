#!/usr/bin/env node
import { defineCommand, runScript } from "../lib/cli.ts";
import { UsageError } from "../lib/errors.ts";
import { logFileOf } from "../lib/logs/read.ts";
import { grepPattern } from "../lib/logs/select.ts";
import { pointInTime } from "../lib/logs/times.ts";
import { viewLog } from "../lib/logs/view.ts";

const place = [
  "DIR",
  "the checkout whose logs.txt is meant, or a log file; default: the current folder",
] as const;

const rotate = defineCommand({
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
    if (!Number.isInteger(flags.keep) || flags.keep < 0)
      throw new UsageError("--keep is a number of parts, such as 10");
    const files = await Promise.all((args.length > 0 ? args : ["."]).map(logFileOf));
    const options = {
      maxSize: flags["max-size"],
      maxAge: flags["max-age"],
      keep: flags.keep,
      maxTotal: flags["max-total"],
      dryRun: flags["dry-run"],
      signal,
    };
    const { rotateLogs } = await import("../lib/logs/rotate.ts");
    return rotateLogs(files, options, terminal);
  },
});

const stats = defineCommand({
  name: "logs stats",
  summary: "how often each stage ran and failed, and how long it takes",
  usage: ["logs stats [DIR] [-n 50] [--since 30d]"],
  args: [place],
  maxArgs: 1,
  flags: {
    lines: { type: "number", short: "n", value: "N", help: "the last N runs; default: all" },
    since: {
      type: "string",
      value: "TIME",
      help: "runs that began since: 2h, 2026-11-20, 2026-11-20T10:15, 10:15",
    },
  },
  examples: [
    ["logs stats", "all runs of the checkout in the current folder"],
    ["logs stats ~/site --since 30d --json", "a month, for another program"],
  ],
  run: async ({ flags, args, terminal }) => {
    const since =
      flags.since === undefined ? undefined : pointInTime("--since", flags.since, new Date());
    const { printStats } = await import("../lib/logs/stats.ts");
    await printStats(await logFileOf(args[0] ?? "."), { count: flags.lines, since }, terminal);
  },
});

const command = defineCommand({
  name: "logs",
  summary: "show the last run of a checkout, or search, follow and rotate its log",
  usage: ["logs [DIR] [flags]", "logs rotate [DIR ...] [flags]", "logs stats [DIR] [flags]"],
  args: [place],
  maxArgs: 1,
  flags: {
    list: {
      type: "boolean",
      help: "runs instead of lines, with result, duration and ref; -n of them, else 20",
    },
    run: {
      type: "string",
      value: "ID",
      help: "this run; the beginning or the end of its id will do",
    },
    stage: { type: "string", value: "NAME", help: "lines of this stage only" },
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
      help: "--grep takes small and capital letters alike",
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
      help: "the last N lines only, of a list the last N runs",
    },
    follow: {
      type: "boolean",
      short: "f",
      help: "go on with lines as they are written, across rotations",
    },
    "until-done": { type: "boolean", help: "follow, and end with the run and with its exit code" },
  },
  examples: [
    ["logs", "the last run"],
    ["logs ~/site --list", "the last 20 runs"],
    ["logs --failed --since 1d", "what went wrong since yesterday"],
    ["logs --grep 'npm (ERR|error)' -C 3", "in all runs, compressed ones too"],
    ["logs -f --until-done", "wait for the run that is under way"],
  ],
  exits: {
    1: "no line matches --grep, or there is no log; with --until-done the run's own exit code",
  },
  subcommands: { rotate, stats },
  run: async ({ flags, args, terminal, signal }) => {
    const now = new Date();
    for (const name of ["context", "before-context", "after-context", "lines"] as const) {
      if (flags[name] !== undefined && !(Number.isInteger(flags[name]) && flags[name] >= 0)) {
        throw new UsageError(`--${name} is a number of lines, such as 50`);
      }
    }
    const follow = flags.follow || flags["until-done"];
    if (follow && (flags.list || flags.failed || flags.until !== undefined)) {
      throw new UsageError(
        "--follow goes with neither --list, --failed nor --until; leave one out",
      );
    }
    const time = (flag: string, text: string | undefined) => text && pointInTime(flag, text, now);
    return viewLog(
      {
        file: await logFileOf(args[0] ?? "."),
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

await runScript(command);
