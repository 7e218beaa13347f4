import { basename } from "node:path";
import { defineCommand } from "../lib/cli/command.ts";
import { rotateUnlessHeld } from "../lib/logs/lock.ts";
import { existingLogOf, openLogFiles } from "../lib/logs/log-files.ts";
import { findRuns, type Run } from "../lib/logs/runs.ts";
import { pointInTime } from "../lib/logs/select.ts";
import { statsHeader, statsOf, statsRow } from "../lib/logs/stats.ts";

/** The operand that all of them take. */
export const place = "  [DIR]  the checkout whose logs.txt is meant, or a log file; default: the current folder";

export const rotate = defineCommand({
  usage: `
logs rotate: rename a log that is large or old, compress the parts, remove the oldest; no line is lost

Usage
  logs rotate [DIR ...] [--max-size 10M] [--max-age 7d] [--keep 10]

Operands
  [DIR ...]  the checkout whose logs.txt is meant, or a log file; default: the current folder

Flags
  --max-size SIZE=10M  rotate a log of at least this size
  --max-age TIME=7d    rotate a log whose first line is as old as this
  --keep N=10          how many rotated parts stay
  --max-total SIZE     how much all rotated parts together may take; the oldest go first
  --dry-run            only list what would be rotated, compressed and removed

Examples
  logs rotate --dry-run               show what would go
  logs rotate /home/*/site --max-size 50M --keep 4  several checkouts, as from cron

Exit codes
  1  a part could not be compressed or removed
`,
  run: async ({ flags, args, terminal }) => {
    const files = await Promise.all((args.length > 0 ? args : ["."]).map(existingLogOf));
    const dryRun = flags["dry-run"];
    let code = 0;
    for (const file of files) {
      const { "max-size": maxSize, "max-age": maxAge, "max-total": maxTotal, keep } = flags;
      // while a build writes it rotates by itself
      const done = await rotateUnlessHeld(file, { maxSize, maxAge, maxTotal, keep, dryRun });
      const { rotated, compressed, pruned, problems, held } = done;
      const lists = { compressed, pruned, held: held ? [file] : [], problems };
      terminal.printJson({ file, dryRun, rotated: rotated ?? null, ...lists });
      if (rotated) terminal.print(`${dryRun ? "would rotate" : "rotated"} ${file} to ${basename(rotated)}`);
      for (const path of compressed) terminal.print(`${dryRun ? "would compress" : "compressed"} ${path}`);
      for (const path of pruned) terminal.print(`${dryRun ? "would remove" : "removed"} ${path}`);
      for (const problem of problems) terminal.warn(problem);
      if (held) terminal.note(`left ${file} as it is: ${held.message}`);
      else if (!rotated && compressed.length + pruned.length === 0) terminal.note(`${file}: nothing to do`);
      if (problems.length > 0) code = 1;
    }
    return code;
  },
});

export const stats = defineCommand({
  usage: `
logs stats: show how often each stage ran and failed, and how long it takes

Usage
  logs stats [DIR] [-n 50] [--since 30d]

Operands
${place}

Flags
  -n, --lines N  the last N runs; default: all
  --since WHEN   runs that started since: 2h, 2026-11-20, 2026-11-20T10:15, 10:15

Examples
  logs stats                          all runs of the checkout in the current folder
  logs stats ~/site --since 30d --json  a month, for another program
`,
  run: async ({ flags, args, terminal }) => {
    const since = flags.since === undefined ? "" : pointInTime("--since", flags.since);
    const files = openLogFiles(await existingLogOf(args[0] ?? "."), terminal.warn);
    const { lines: count = Number.POSITIVE_INFINITY } = flags;
    const enough = (found: readonly Run[]) => {
      const started = found.filter(({ start }) => start);
      return started.length >= count || started.some(({ startedAt = "" }) => startedAt < since);
    };
    const found = await findRuns(files, enough);
    const runs = found.filter(({ startedAt = "" }) => startedAt >= since).slice(0, count);
    const stages = statsOf(runs);
    terminal.printJson({ runs: runs.length, stages });
    if (stages.length === 0 && !terminal.json) return terminal.note("the log has no runs that have finished");
    const rows = stages.map((stage) => statsRow(stage, terminal.paint));
    const table = terminal.table(rows, { header: statsHeader, right: [1, 2, 3, 4, 5] });
    for (const line of table) terminal.print(line);
  },
});
