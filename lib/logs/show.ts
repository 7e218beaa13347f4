import process from "node:process";
import { isFailure, markStage, parseMark } from "../log/format.ts";
import type { Terminal } from "../cli/terminal.ts";
import { cleanText, isHarmless } from "./clean.ts";
import type { Chosen } from "./select.ts";

/** Prints chosen lines: coloured on a terminal, plain elsewhere, one JSON object a line with --json. */
export interface Printer {
  print(chosen: Chosen): void;
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
  const text = (chosen: Chosen): string => {
    const { raw, context, gap } = chosen;
    const prefix = gap ? `${paint.dim("--")}\n` : "";
    if (!coloured && isHarmless(raw)) return prefix + raw;
    const { line } = chosen;
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
    print(chosen) {
      if (!terminal.json) lines.push(text(chosen));
      else {
        const { raw, line, context } = chosen;
        const { time = null, run = null, stage = null } = line ?? {};
        const match = context ? { context } : {};
        terminal.printJson({ time, run, stage, text: cleanText(line?.text ?? raw), ...match });
      }
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
export function localTime(time: string): string {
  const at = new Date(time);
  const two = (number: number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${localClock(time)}`;
}
