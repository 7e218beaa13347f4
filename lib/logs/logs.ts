import { readdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Terminal } from "../core/terminal.ts";
import { Failure, ifMissing, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { isBeingWritten } from "../log/compress.ts";
import { markStage, noRun, parseLine, parseMark } from "../log/format.ts";
import { partsAmong, statIfThere } from "../log/parts.ts";
import type { RotateOptions } from "../log/rotate.ts";
import { followLog } from "./follow.ts";
import { placeBefore, readLines } from "./read.ts";
import { findRuns, hasFailed, type Run } from "./runs.ts";
import type { SelectedLine, Selection } from "./select.ts";
import { createPrinter, damageReport, printRuns } from "./show.ts";
import { closeLogFiles, type LogFiles, openLogFiles } from "./source.ts";

export { knownRuns } from "./runs.ts";
export { grepPattern, pointInTime } from "./select.ts";
export { printStats } from "./stats.ts";

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
const defaultLines = 200;
const defaultRuns = 20;

/**
 * The log of a folder, or the file itself when a file is named.
 * @throws {UsageError} when there is neither.
 */
export async function logFileOf(path: string): Promise<string> {
  const found = await stat(path).catch(ifMissing);
  if (found?.isDirectory()) return join(path, "logs.txt");
  if (found?.isFile() || (await statIfThere(join(path, "..")).catch(ifMissing))) return path;
  throw new UsageError(
    `${path} is neither a folder nor a log; name the checkout whose log you want`,
  );
}

/**
 * The same for a log that cannot come later: a folder may have none yet, but a file that is named is there, or one of
 * its rotated parts is.
 * @throws {UsageError} when it is not, with the name that was meant.
 */
export async function existingLogOf(path: string): Promise<string> {
  const file = await logFileOf(path);
  if (file !== path || (await statIfThere(path))) return file;
  const names = await readdir(dirname(path));
  if (partsAmong(path, names).length > 0) return file;
  throw new UsageError(
    `there is no ${path}${didYouMean(basename(path), names)}; name a checkout, or its logs.txt`,
  );
}

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
    closeLogFiles(files);
  }
}

async function listRuns(files: LogFiles, view: View, terminal: Terminal): Promise<number> {
  const { count = defaultRuns, failed, run: id, selection } = view;
  const { since = "", until = "~" } = selection;
  const isWritten = await isBeingWritten(view.file);
  const fits = (run: Run) =>
    (!failed || hasFailed(run, isWritten)) &&
    (id === undefined || isNamed(run, id)) &&
    (run.finishedAt ?? run.startedAt ?? "") >= since &&
    (run.startedAt ?? "") <= until;
  const enough = (runs: readonly Run[]) => {
    const found = runs.filter((run) => run.start);
    return (
      found.filter(fits).length >= count || found.some((run) => (run.finishedAt ?? "~") < since)
    );
  };
  const runs = await findRuns(files, { enough, onDamage: damageReport(terminal) });
  const chosen = runs.filter(fits).slice(0, count);
  if (chosen.length === 0)
    terminal.note(runs.length === 0 ? "the log has no runs" : "no such runs");
  printRuns(chosen, isWritten, terminal);
  return 0;
}

function isNamed({ id }: Run, text: string): boolean {
  return id.startsWith(text) || id.endsWith(text);
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
  const selected: Selection = { ...selection, runs: runs && new Set(runs.map(({ id }) => id)) };
  const printer = createPrinter(terminal, { short: only !== undefined && !view.follow });
  const isSearch = selection.grep !== undefined || selection.since !== undefined || view.failed;
  const count = view.count ?? (runs || isSearch ? undefined : defaultLines);
  const oldest = runs?.toSorted((a, b) => (a.startedAt ?? "").localeCompare(b.startedAt ?? ""))[0];
  let from = oldest?.place ?? { source: 0, offset: 0 };
  // with a pattern the last matches may be anywhere: then all is read
  if (count !== undefined && !selection.grep) from = placeBefore(files, selected, count, from);
  const last: SelectedLine[] = [];
  let found = 0;
  let code = only?.end?.code;
  const shown = await readLines(
    files,
    selected,
    (line) => {
      found += line.context ? 0 : 1;
      // it may have finished since its marks were read
      if (only && view.untilDone) code ??= exitCodeIn(line.raw);
      if (count === undefined) return printer.print(line);
      last.push(line);
      if (last.length > 2 * count + 100) last.splice(0, last.length - count);
    },
    {
      from,
      // a run that has finished has nothing after its end
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
    return await followLog(files, { ...view, run }, shown, printer);
  }
  if (found === 0) terminal.note("no line matches");
  return found === 0 && selection.grep ? 1 : 0;
}

function exitCodeIn(raw: string): number | undefined {
  const line = parseLine(raw);
  const mark = line?.stage === markStage ? parseMark(line.text) : undefined;
  return mark?.kind === "end" ? mark.code : undefined;
}

/** The runs whose lines are shown; undefined: all lines, of whatever run. */
async function chooseRuns(
  files: LogFiles,
  { file, run: id, failed, follow, selection }: View,
  terminal: Terminal,
  onDamage: (path: string, error: unknown) => void,
): Promise<Run[] | undefined> {
  if (id !== undefined) return [await findRun(files, id, onDamage)];
  if (failed) {
    const isWritten = await isBeingWritten(file);
    return (await findRuns(files, { onDamage })).filter((run) => hasFailed(run, isWritten));
  }
  if (selection.grep || selection.since !== undefined || selection.until !== undefined)
    return undefined;
  const enough = (runs: readonly Run[]) => runs.some((run) => run.start);
  const [last] = await findRuns(files, { enough, onDamage });
  if (last) return [last];
  if (!follow && !terminal.json)
    terminal.note(`the log has no runs: its last lines (RUN is ${noRun})`);
  return undefined;
}

async function findRun(
  files: LogFiles,
  text: string,
  onDamage: (path: string, error: unknown) => void,
): Promise<Run> {
  // a whole id names one run: nothing is gained by reading on
  const enough = (runs: readonly Run[]) => runs.some(({ id, start }) => id === text && start);
  const runs = await findRuns(files, { enough, onDamage });
  const [named, ...others] = runs.filter((run) => isNamed(run, text));
  if (!named) {
    const ids = runs.map(({ id }) => id);
    throw new Failure(`there is no run ${text}${didYouMean(text, ids)}; see logs --list`);
  }
  if (others.length === 0) return named;
  const some = [named, ...others].slice(0, 5).map(({ id }) => id);
  const more = others.length < 5 ? "" : `, or one of ${others.length - 4} more`;
  throw new UsageError(`--run: ${text} may be ${some.join(" or ")}${more}; write more of it`);
}

/**
 * Rotate the logs of several folders, and say what was done.
 * @returns 1 when a part could not be compressed or removed.
 */
export async function rotateLogs(
  files: readonly string[],
  options: RotateOptions,
  terminal: Terminal,
): Promise<number> {
  const { rotateLog } = await import("../log/rotate.ts");
  const { dryRun = false } = options;
  let code = 0;
  for (const file of files) {
    const { rotated, compressed, pruned, inUse, problems } = await rotateLog(file, options);
    const report = { file, dryRun, rotated: rotated ?? null, compressed, pruned };
    terminal.printJson({ ...report, held: inUse, problems });
    const say = (done: string, planned: string, path: string) =>
      terminal.print(`${dryRun ? planned : done} ${path}`);
    if (rotated) say("rotated", "would rotate", `${file} to ${basename(rotated)}`);
    for (const path of compressed) say("compressed", "would compress", path);
    for (const path of pruned) say("removed", "would remove", path);
    for (const path of inUse) terminal.note(`left ${path} as it is: somebody has it open`);
    for (const problem of problems) terminal.warn(problem);
    if (!rotated && compressed.length + pruned.length + inUse.length === 0)
      terminal.note(`${file}: nothing to do`);
    if (problems.length > 0) code = 1;
  }
  return code;
}
