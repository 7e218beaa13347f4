import { Failure, messageOf, UsageError } from "../core/errors.ts";
import { markStage, noRun, parseMark } from "../log/format.ts";
import { didYouMean } from "../core/names.ts";
import type { Terminal } from "../cli/terminal.ts";
import { hasFailed, isBeingWritten, printRuns } from "./list.ts";
import { placeBefore, readLines } from "./read.ts";
import { findRuns, type Run } from "./runs.ts";
import type { Chosen, Selection } from "./select.ts";
import { createPrinter } from "./show.ts";
import { closeLogFiles, type LogFiles, openLogFiles } from "./source.ts";

/** What `logs` is asked to show. */
export interface View {
  file: string;
  /** A run's id, or the beginning or end of one. */
  run?: string | undefined;
  failed: boolean;
  /** Stage, times, pattern and context. */
  selection: Selection;
  /** At most so many lines, or runs in a list: the last ones. */
  count?: number | undefined;
  list: boolean;
  follow: boolean;
  untilDone: boolean;
  signal: AbortSignal;
}

/** Lines shown of a log that has no runs. */
const usualCount = 200;
const usualRuns = 20;

/**
 * Show a log: the last run, or what the view asks for.
 * @returns the exit code: that of the run with `untilDone`; 1 when a pattern was found nowhere.
 * @throws {Failure} when there is no log, or no such run.
 */
export async function viewLog(view: View, terminal: Terminal): Promise<number> {
  const files = await openLogFiles(view.file);
  try {
    if (files.sources.length === 0 && !view.follow) {
      throw new Failure(
        `there is no ${view.file} yet; name the folder of a checkout that was built`,
      );
    }
    return view.list
      ? await listRuns(files, view, terminal)
      : await showLines(files, view, terminal);
  } finally {
    await closeLogFiles(files);
  }
}

/** A damaged part is named, and the rest is shown. */
export function damageReport(terminal: Terminal) {
  const told = new Set<string>();
  return (path: string, error: unknown) => {
    if (!told.has(path))
      terminal.warn(`${path} is damaged, its end is missing here: ${messageOf(error)}`);
    told.add(path);
  };
}

async function listRuns(files: LogFiles, view: View, terminal: Terminal): Promise<number> {
  const { count = usualRuns, failed, run: wanted, selection } = view;
  const { since = "", until = "~" } = selection;
  const beingWritten = await isBeingWritten(view.file);
  const fits = (run: Run) =>
    (!failed || hasFailed(run, beingWritten)) &&
    (wanted === undefined || isMeant(run.id, wanted)) &&
    (run.endedAt ?? run.startedAt ?? "") >= since &&
    (run.startedAt ?? "") <= until;
  const enough = (runs: Map<string, Run>) => {
    const found = [...runs.values()].filter((run) => run.start);
    return found.filter(fits).length >= count || found.some((run) => (run.endedAt ?? "~") < since);
  };
  const runs = await findRuns(files, { enough, onDamage: damageReport(terminal) });
  const chosen = runs.filter(fits).slice(0, count);
  if (chosen.length === 0)
    terminal.note(runs.length === 0 ? "the log has no runs" : "no such runs");
  printRuns(chosen, beingWritten, terminal);
  return 0;
}

function isMeant(id: string, wanted: string): boolean {
  return id.startsWith(wanted) || id.endsWith(wanted);
}

async function showLines(files: LogFiles, view: View, terminal: Terminal): Promise<number> {
  const { selection, signal } = view;
  const onDamage = damageReport(terminal);
  const runs = await chooseRuns(files, view, terminal, onDamage);
  if (view.failed && runs?.length === 0) {
    terminal.note("no run has failed");
    return 0;
  }
  const only = runs?.length === 1 ? runs[0] : undefined;
  const chosen: Selection = { ...selection, runs: runs && new Set(runs.map(({ id }) => id)) };
  const printer = createPrinter(terminal, { short: only !== undefined && !view.follow });
  const isSearch = selection.grep !== undefined || selection.since !== undefined || view.failed;
  const count = view.count ?? (runs || isSearch ? undefined : usualCount);
  const oldest = runs?.reduce(
    (a, b) => ((b.startedAt ?? "") < (a.startedAt ?? "") ? b : a),
    runs[0] as Run,
  );
  let from = oldest?.place ?? { source: 0, offset: 0 };
  // with a pattern the last matches may be anywhere: then all is read
  if (count !== undefined && !selection.grep) from = await placeBefore(files, chosen, count, from);
  const last: Chosen[] = [];
  let found = 0;
  let code = only?.end?.code;
  const live = await readLines(
    files,
    chosen,
    (line) => {
      found += line.context ? 0 : 1;
      // it may have ended since its marks were read
      if (only && view.untilDone && line.line?.stage === markStage)
        code ??= exitCodeIn(line.line.text);
      if (count === undefined) return printer.print(line);
      last.push(line);
      if (last.length > 2 * count + 100) last.splice(0, last.length - count);
    },
    {
      from,
      // a run that has ended has nothing after its end
      to: view.follow ? undefined : only?.endPlace,
      whole: view.follow,
      onDamage,
      afterBlock: () => {
        if (signal.aborted) throw new Failure("interrupted");
        return printer.flush();
      },
    },
  );
  if (count !== undefined)
    for (const line of count === 0 ? [] : last.slice(-count)) printer.print(line);
  await printer.flush();
  if (view.follow) {
    if (view.untilDone && only && code !== undefined) return code;
    const run = view.run !== undefined || view.untilDone ? only?.id : undefined;
    const { watchLog } = await import("./watch.ts");
    return watchLog(files, { ...view, run }, live, printer);
  }
  if (found === 0) terminal.note("no line fits");
  return found === 0 && selection.grep ? 1 : 0;
}

function exitCodeIn(text: string): number | undefined {
  const mark = parseMark(text);
  return mark?.kind === "end" ? mark.code : undefined;
}

/** The runs whose lines are shown; undefined: all lines, of whatever run. */
async function chooseRuns(
  files: LogFiles,
  view: View,
  terminal: Terminal,
  onDamage: (path: string, error: unknown) => void,
): Promise<Run[] | undefined> {
  const { run: wanted, failed, selection } = view;
  if (wanted !== undefined) {
    // a whole id names one run: nothing is gained by reading on
    const enough = (runs: Map<string, Run>) => runs.get(wanted)?.start !== undefined;
    const runs = await findRuns(files, { enough, onDamage });
    const meant = runs.filter(({ id }) => isMeant(id, wanted));
    if (meant.length === 1) return meant;
    const ids = runs.map(({ id }) => id);
    if (meant.length === 0)
      throw new Failure(`there is no run ${wanted}${didYouMean(wanted, ids)}; see logs --list`);
    throw new UsageError(
      `--run: ${wanted} may be ${meant.map(({ id }) => id).join(" or ")}; write more of it`,
    );
  }
  if (failed) {
    const beingWritten = await isBeingWritten(view.file);
    return (await findRuns(files, { onDamage })).filter((run) => hasFailed(run, beingWritten));
  }
  if (selection.grep || selection.since !== undefined || selection.until !== undefined)
    return undefined;
  const [last] = await findRuns(files, {
    enough: (runs) => [...runs.values()].some((run) => run.start),
    onDamage,
  });
  if (last) return [last];
  if (!view.follow && !terminal.json)
    terminal.note(`the log has no runs: its last lines (RUN is ${noRun})`);
  return undefined;
}
