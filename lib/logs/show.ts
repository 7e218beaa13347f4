import { cleanText, isHarmless } from "../core/clean.ts";
import type { Paint } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";
import { isFailure, markStage, parseLine, parseMark } from "../log/format.ts";
import { hasFailed, type Run } from "./runs.ts";
import type { SelectedLine } from "./select.ts";

/** What is shown of lines and runs: coloured on a terminal, plain elsewhere, objects for --json. Pure. */

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

/**
 * A line for people; nothing in it acts on a terminal.
 * @param short leave out the run and the date, where all lines are of one run.
 */
export function lineText({ raw, context, gap }: SelectedLine, paint: Paint, short = false): string {
  const coloured = paint.level > 0;
  const prefix = gap ? `${paint.dim("--")}\n` : "";
  if (!coloured && isHarmless(raw)) return prefix + raw;
  const line = parseLine(raw);
  if (!line) return prefix + cleanText(raw, coloured);
  const body = cleanText(line.text, coloured);
  if (!coloured) return `${prefix}${line.time} ${line.run} ${line.stage} | ${body}`;
  const when = short ? localTime(line.time).slice(11) : `${line.time} ${line.run}`;
  const head = `${paint.dim(when)} ${paint[colourOf(line.stage)](line.stage)} ${paint.dim("|")} `;
  return prefix + head + (line.stage === markStage ? markText(body, paint) : context ? paint.dim(body) : body);
}

/** A mark as a sentence: `test failed after 3.2s: exit code 1`. */
function markText(body: string, paint: Paint): string {
  const mark = parseMark(body);
  if (!mark) return body;
  if (mark.kind === "start") {
    const what = [mark.repo, mark.ref, mark.sha && `at ${mark.sha.slice(0, 10)}`].filter(Boolean).join(" ");
    return paint.bold(`started (${mark.event})${what && `: ${what}`}`);
  }
  const { result, seconds, why } = mark;
  const took = seconds === undefined || result === "skipped" ? "" : ` after ${formatDuration(seconds * 1000)}`;
  const text = `${mark.kind === "stage" ? mark.name : "run"} ${result}${took}${why ? `: ${why}` : ""}`;
  return isFailure(result) ? paint.red(text) : result === "ok" ? paint.green(text) : paint.dim(text);
}

function colourOf(stage: string) {
  let sum = 0;
  for (const character of stage) sum = (sum * 31 + character.charCodeAt(0)) % 997;
  return stageColours[sum % stageColours.length] ?? "cyan";
}

export function lineJson({ raw, context }: SelectedLine): object {
  const { time = null, run = null, stage = null, text = raw } = parseLine(raw) ?? {};
  return { time, run, stage, text: cleanText(text), ...(context ? { context } : {}) };
}

/** Date and time where the reader is: `2026-11-20 10:15:00`. */
function localTime(time: string): string {
  const at = new Date(time);
  const two = (number: number) => String(number).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${at.toTimeString().slice(0, 8)}`;
}

export const runTable = { header: ["RUN", "EVENT", "REF", "COMMIT", "RESULT", "TOOK", "WHEN"], right: [5] };

/** A run as a row of the table. */
export function runRow(run: Run, paint: Paint): string[] {
  const { id, start, end, startedAt, status } = run;
  const colour = status === "running" ? paint.cyan : hasFailed(run) ? paint.red : paint.green;
  const running = status === "running" && startedAt ? Math.max(0, Date.now() - Date.parse(startedAt)) : undefined;
  const took = end ? end.seconds * 1000 : running;
  return [
    id,
    ...[start?.event, start?.ref, (end?.sha ?? start?.sha)?.slice(0, 8)].map((text) => (text ? cleanText(text) : "-")),
    colour(status),
    took === undefined ? "-" : formatDuration(took),
    startedAt ? localTime(startedAt) : "-",
  ];
}

export function runJson({ id, start, end, startedAt, finishedAt, status, stages }: Run): object {
  return {
    run: id,
    event: start?.event ?? null,
    ref: start?.ref ?? null,
    sha: end?.sha ?? start?.sha ?? null,
    repo: start?.repo ?? null,
    result: status,
    code: end?.code ?? null,
    seconds: end?.seconds ?? null,
    started: startedAt ?? null,
    ended: finishedAt ?? null,
    why: end?.why ?? null,
    stages: stages.map(({ name, result, code, seconds, why }) => ({ name, result, code, seconds, why })),
  };
}
