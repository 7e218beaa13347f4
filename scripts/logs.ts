import { once } from "node:events";
import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { Failure, UsageError } from "../lib/core/errors.ts";
import { followLog } from "../lib/logs/follow.ts";
import { isHeld } from "../lib/logs/lock.ts";
import { existingLogOf, logFileOf, openLogFiles, readLog } from "../lib/logs/log-files.ts";
import { findRun, findRuns, hasFailed, isNamed, knownRuns, type Run, RunEnd } from "../lib/logs/runs.ts";
import { grepPattern, lineFilter, pointInTime, type SelectedLine } from "../lib/logs/select.ts";
import { lineJson, lineText, runJson, runRow, runTable } from "../lib/logs/show.ts";
import { place, rotate, stats } from "./logs-commands.ts";

async function known([dir = "."]: readonly string[]) {
  return await knownRuns(await logFileOf(dir));
}

/** Milliseconds without a line after which it is asked whether anybody still writes. */
const silence = 3000;

const command = defineCommand({
  usage: `
logs: show the last run of a checkout, or search, follow and rotate its log

Usage
  logs [DIR] [flags]
  logs rotate [DIR ...] [flags]
  logs stats [DIR] [flags]

Operands
${place}

Flags
  --list                  runs instead of lines, with result, duration and ref; the last 20, or -n
  --run ID                this run; the start or the end of its ID is enough
  --stage NAME            lines of this stage only
  --failed                runs that failed or were cut off
  --since WHEN            lines since: 2h (ago), 2026-11-20, 2026-11-20T10:15, 10:15
  --until WHEN            lines up to then
  --grep RE               lines whose text matches this JavaScript regular expression
  -i, --ignore-case       --grep ignores case
  -C, --context N=0       lines shown around each match of --grep
  -B, --before-context N  lines shown before each match
  -A, --after-context N   lines shown after each match
  -n, --lines N           only the last N lines; with --list the last N runs
  -f, --follow            follow new lines, also across rotations
  --until-done            follow until the run ends, and exit with its exit code

Examples
  logs                                the last run
  logs ~/site --list                  the last 20 runs
  logs --failed --since 1d            what went wrong since yesterday
  logs --grep 'npm (ERR|error)' -C 3  in all runs, compressed ones too
  logs -f --until-done                wait for the run in progress

Exit codes
  1  no line matches --grep, or there is no log; with --until-done the run's own exit code
`,
  complete: { run: async ({ args }) => (await known(args)).ids, stage: async ({ args }) => (await known(args)).stages },
  subcommands: { rotate, stats },
  run: async ({ flags, args, terminal, signal }) => {
    const { list, failed, stage } = flags;
    const follow = flags.follow || flags["until-done"];
    if (follow && (list || failed || flags.until !== undefined)) {
      throw new UsageError("--follow goes with neither --list, --failed nor --until; leave one out");
    }
    // what is followed may come later
    const file = await (follow ? logFileOf : existingLogOf)(args[0] ?? ".");
    const since = flags.since === undefined ? undefined : pointInTime("--since", flags.since);
    const until = flags.until === undefined ? undefined : pointInTime("--until", flags.until);
    const grep = flags.grep === undefined ? undefined : grepPattern(flags.grep, flags["ignore-case"]);
    const { "before-context": before = flags.context, "after-context": after = flags.context } = flags;
    const files = openLogFiles(file, terminal.warn);
    if (files.sources.length === 0 && !follow)
      throw new Failure(`there is no ${file} yet; name the folder of a checkout that was built`);

    if (list) {
      const { lines: count = 20, run: id } = flags;
      const fits = (run: Run) =>
        (!failed || hasFailed(run)) &&
        (id === undefined || isNamed(run, id)) &&
        (run.finishedAt ?? run.startedAt ?? "") >= (since ?? "") &&
        (run.startedAt ?? "") <= (until ?? "~");
      const enough = (found: readonly Run[]) =>
        found.filter((run) => run.start && fits(run)).length >= count ||
        found.some(({ finishedAt = "~" }) => finishedAt < (since ?? ""));
      const all = await findRuns(files, enough);
      const runs = all.filter(fits).slice(0, count);
      for (const run of runs) terminal.printJson(runJson(run));
      if (runs.length === 0) terminal.note(all.length === 0 ? "the log has no runs" : "no such runs");
      else
        for (const line of terminal.table(
          runs.map((run) => runRow(run, terminal.paint)),
          runTable,
        ))
          terminal.print(line);
      return 0;
    }

    /** The runs whose lines are shown; undefined: all lines, of whatever run. */
    let runs: Run[] | undefined;
    if (flags.run !== undefined) runs = [await findRun(files, flags.run)];
    else if (failed) runs = (await findRuns(files)).filter(hasFailed);
    else if (grep === undefined && since === undefined && until === undefined) {
      runs = (await findRuns(files, (found) => found.some(({ start }) => start))).slice(0, 1);
      if (runs.length === 0) runs = undefined;
      if (!runs && !follow && !terminal.json) terminal.note("the log has no runs: its last lines (RUN is -)");
    }
    if (runs?.length === 0) {
      terminal.note("no run has failed");
      return 0;
    }
    const only = runs?.length === 1 ? runs[0] : undefined;
    const newest = async () => (await findRuns(files, (found) => found.some(({ start }) => start)))[0];
    const last = only ?? (flags["until-done"] ? await newest() : undefined);
    const waits = follow && !(flags["until-done"] && last?.end);
    const oldest = runs?.at(-1);
    const from = oldest?.start && oldest.place;
    // behind a run that is followed others may come
    if (waits && flags.run === undefined && !flags["until-done"]) runs = undefined;

    let count = flags.lines ?? (oldest || grep || since !== undefined ? undefined : 200);
    let found = 0;
    let chosen: SelectedLine[] = [];
    const ids = runs && new Set(runs.map(({ id }) => id));
    const filter = lineFilter({ runs: ids, stage, since, until, grep, before, after }, (line) => {
      chosen.push(line);
      if (!line.context) found += 1;
    });
    const show = async () => {
      const lines = count === undefined ? chosen : chosen.slice(chosen.length - Math.min(count, chosen.length));
      chosen = [];
      for (const line of lines) terminal.printJson(lineJson(line));
      const short = only !== undefined && !follow;
      if (lines.length > 0) terminal.print(lines.map((line) => lineText(line, terminal.paint, short)).join("\n"));
      // a pager that is not asked for more, or has gone: do not read gigabytes into memory for it
      while (process.stdout.writableNeedDrain) await once(process.stdout, "drain");
    };
    const end = new RunEnd(last?.id);
    let grownAt = Date.now();
    const texts = waits ? followLog(files, from, signal) : readLog(files, { from, to: only?.endSource, since });
    for await (const text of texts) {
      filter(text);
      const code = waits && flags["until-done"] ? end.codeIn(text) : undefined;
      if (count === undefined || text === "" || code !== undefined) await show();
      else if (chosen.length > 2 * count + 100) chosen = chosen.slice(chosen.length - count);
      if (code !== undefined) return code;
      // all that was there is shown: what comes now is shown as it comes
      if (text === "") count = undefined;
      else grownAt = Date.now();
      if (!flags["until-done"] || end.run === undefined || Date.now() - grownAt < silence) continue;
      grownAt = Date.now();
      if (!(await isHeld(file)))
        throw new Failure(`run ${end.run} was cut off: it has no end, and nobody writes to ${file} any more`);
    }
    await show();
    if (found === 0) terminal.note("no line matches");
    if (flags["until-done"] && last?.end) return last.end.code;
    return found === 0 && grep ? 1 : 0;
  },
});

void runScript(command);
