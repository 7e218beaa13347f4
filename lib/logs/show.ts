import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { messageOf } from "../core/errors.ts";
import { formatDuration } from "../core/units.ts";
import { isFailure, markStage, parseLine, parseMark } from "../log/format.ts";
import { cleanText, isHarmless } from "../core/clean.ts";
import { durationOf, type Run, type RunStatus, statusOf } from "./runs.ts";
import type { SelectedLine } from "./select.ts";

/** Prints lines: coloured on a terminal, plain elsewhere, one JSON object a line with --json. */
export interface Printer {
  print(selected: SelectedLine): void;
  /** Hand what was printed on; a promise when the reader is slower than the log. */
  flush(): Promise<void> | undefined;
}

const stageColours = [
  "cyan",
  "magenta",
  "blue",
  "yellow",
  "green",
  "cyanBright",
  "magentaBright",
  "blueBright",
] as const;

/** @param short leave out the run and the date, where all lines are of one run. */
export function createPrinter(
  terminal: Terminal,
  { short = false }: { short?: boolean } = {},
): Printer {
  const { paint } = terminal;
  const coloured = paint.level > 0;
  let lines: string[] = [];
  const text = ({ raw, context, gap }: SelectedLine): string => {
    const prefix = gap ? `${paint.dim("--")}\n` : "";
    if (!coloured && isHarmless(raw)) return prefix + raw;
    const line = parseLine(raw);
    if (!line) return prefix + cleanText(raw, coloured);
    const body = cleanText(line.text, coloured);
    if (!coloured) return `${prefix}${line.time} ${line.run} ${line.stage} | ${body}`;
    const when = short ? localClock(line.time) : `${line.time} ${line.run}`;
    const head = `${paint.dim(when)} ${paint[colourOf(line.stage)](line.stage)} ${paint.dim("|")} `;
    return (
      prefix +
      head +
      (line.stage === markStage ? colourMark(body) : context ? paint.dim(body) : body)
    );
  };
  const colourMark = (body: string): string => {
    const mark = parseMark(body);
    if (!mark || mark.kind === "start") return paint.bold(body);
    return isFailure(mark.result)
      ? paint.red(body)
      : mark.result === "ok"
        ? paint.green(body)
        : paint.dim(body);
  };
  return {
    print(selected) {
      if (!terminal.json) return void lines.push(text(selected));
      const { raw, context } = selected;
      const { time = null, run = null, stage = null, text: body = raw } = parseLine(raw) ?? {};
      const match = context ? { context } : {};
      terminal.printJson({ time, run, stage, text: cleanText(body), ...match });
    },
    flush() {
      if (lines.length > 0) terminal.print(lines.join("\n"));
      lines = [];
      // a pager that is not asked for more, or has gone: do not read gigabytes into memory for it
      return process.stdout.writableNeedDrain ? drained() : undefined;
    },
  };
}

async function drained(): Promise<void> {
  while (process.stdout.writableNeedDrain) {
    await new Promise<void>((resolve) => {
      process.stdout.once("drain", resolve);
    });
  }
}

/** A damaged part is named once, and the rest is shown. */
export function damageReport(terminal: Terminal) {
  const told = new Set<string>();
  return (path: string, error: unknown) => {
    if (!told.has(path))
      terminal.warn(`${path} is damaged, its end is missing here: ${messageOf(error)}`);
    told.add(path);
  };
}

function colourOf(stage: string) {
  let sum = 0;
  for (const character of stage) sum = (sum * 31 + character.charCodeAt(0)) % 997;
  return stageColours[sum % stageColours.length] ?? "cyan";
}

/** The time of day where the reader is. */
function localClock(time: string): string {
  return new Date(time).toTimeString().slice(0, 8);
}

/** Date and time where the reader is: `2026-11-20 10:15:00`. */
function localTime(time: string): string {
  const at = new Date(time);
  const two = (number: number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${localClock(time)}`;
}

/**
 * Prints runs as a table, the newest first; with --json one object a line.
 * @param isWritten somebody has the log open for writing.
 */
export function printRuns(runs: readonly Run[], isWritten: boolean, terminal: Terminal): void {
  const now = Date.now();
  for (const run of runs) {
    const { id, start, end, startedAt, finishedAt, stages } = run;
    terminal.printJson({
      run: id,
      event: start?.event ?? null,
      ref: start?.ref ?? null,
      sha: start?.sha ?? null,
      repo: start?.repo ?? null,
      result: statusOf(run, isWritten),
      code: end?.code ?? null,
      seconds: end?.seconds ?? null,
      started: startedAt ?? null,
      ended: finishedAt ?? null,
      why: end?.why ?? null,
      stages: stages.map(({ name, result, code, seconds, why }) => ({
        name,
        result,
        code,
        seconds,
        why,
      })),
    });
  }
  if (terminal.json || runs.length === 0) return;
  const rows = runs.map((run) => {
    const took = durationOf(run, now);
    return [
      run.id,
      cell(run.start?.event),
      cell(run.start?.ref),
      cell(run.start?.sha?.slice(0, 8)),
      paintStatus(statusOf(run, isWritten), terminal),
      took === undefined || (!run.end && !isWritten) ? "-" : formatDuration(took),
      run.startedAt ? localTime(run.startedAt) : "-",
    ];
  });
  const header = ["RUN", "EVENT", "REF", "COMMIT", "RESULT", "TOOK", "WHEN"];
  for (const line of terminal.table(rows, { header, right: [5] })) terminal.print(line);
}

function cell(text: string | undefined): string {
  return text ? cleanText(text) : "-";
}

/** A result in its colour. */
function paintStatus(status: RunStatus, { paint }: Terminal): string {
  if (status === "running") return paint.cyan(status);
  if (status === "cut off" || isFailure(status)) return paint.red(status);
  return status === "ok" ? paint.green(status) : paint.dim(status);
}
