import {
  type EndMark,
  type LogLine,
  markStage,
  parseLine,
  parseMark,
  type Result,
  type StageMark,
  type StartMark,
} from "../log/format.ts";
import { finderIn, needleOf } from "./bytes.ts";
import { type Block, blocksBackwards, blocksOf, type LogFiles } from "./source.ts";

/** A place in a log: which of its files, and how many (uncompressed) bytes into it. */
export interface Place {
  source: number;
  offset: number;
}

/** What the marks of a log tell of a run. */
export interface Run {
  id: string;
  start: StartMark | undefined;
  end: EndMark | undefined;
  /** In the order of the log. */
  stages: (StageMark & { place: Place })[];
  /** When it began and ended, as its lines say. */
  startedAt: string | undefined;
  endedAt: string | undefined;
  /** Its first line. */
  place: Place | undefined;
  /** Its last line. */
  endPlace: Place | undefined;
}

/** How a run stands: its result, or that it has none. */
export type Standing = Result | "running" | "cut off";

const markNeedle = needleOf(` ${markStage} | `);
const notRun = /^-?$/;
/** Bytes at the end of a log in which no line belongs to a run: then it is not a log of runs. */
const hopeless = 8 << 20;

export interface Search {
  /** Called after each block with all runs found so far; true ends the search. */
  enough?: (runs: Map<string, Run>) => boolean;
  /** Told of a part that is damaged; what could be read of it counts. */
  onDamage?: (path: string, error: unknown) => void;
}

/**
 * The runs of a log, the newest first. Reads from the end and only as far as `enough` asks: only the
 * marks are decoded, all other lines are passed over as bytes.
 */
export async function findRuns(
  { sources }: LogFiles,
  { enough, onDamage }: Search = {},
): Promise<Run[]> {
  const runs = new Map<string, Run>();
  let passed = 0;
  let seen = false;
  search: for (let index = sources.length - 1; index >= 0; index -= 1) {
    const source = sources[index];
    if (!source) continue;
    await source.handle();
    try {
      for await (const block of source.packed ? blocksOf(source) : blocksBackwards(source)) {
        readMarks(block, index, runs);
        passed += block.bytes.length;
        seen ||= runs.size > 0 || lastRunIn(block) !== undefined;
        if (!source.packed && enough?.(runs)) break search;
        if (!seen && enough && passed > hopeless) break search;
      }
    } catch (error) {
      onDamage?.(source.path, error);
    }
    if (enough?.(runs)) break;
  }
  for (const { stages } of runs.values()) stages.sort((a, b) => comparePlaces(a.place, b.place));
  return [...runs.values()].sort((a, b) =>
    newest(a) < newest(b) ? 1 : newest(a) > newest(b) ? -1 : 0,
  );
}

function comparePlaces(a: Place, b: Place): number {
  return a.source - b.source || a.offset - b.offset;
}

function newest(run: Run): string {
  return run.startedAt ?? run.endedAt ?? "";
}

function lastRunIn({ bytes }: Block): string | undefined {
  const tail = bytes.toString("latin1", Math.max(0, bytes.length - 4096));
  return tail
    .split("\n")
    .map((line) => parseLine(line)?.run)
    .find((run) => run !== undefined && !notRun.test(run));
}

function readMarks({ bytes, offset }: Block, source: number, runs: Map<string, Run>): void {
  const find = finderIn(bytes);
  for (let at = find(markNeedle, 0); at >= 0; ) {
    const begin = bytes.lastIndexOf(10, at) + 1;
    const newline = bytes.indexOf(10, at);
    const end = newline < 0 ? bytes.length : newline;
    // a mark has its stage in the head of the line; the same words in a text are just text
    if (at - begin < 120) {
      const line = parseLine(bytes.toString("utf8", begin, end));
      if (line?.stage === markStage) noteMark(line, { source, offset: offset + begin }, runs);
    }
    at = find(markNeedle, end);
  }
}

/** Add what a mark tells to what is known of its run. */
function noteMark({ run: id, time, text }: LogLine, place: Place, runs: Map<string, Run>): void {
  const mark = parseMark(text);
  if (!mark || notRun.test(id)) return;
  const run = runs.get(id) ?? {
    id,
    start: undefined,
    end: undefined,
    stages: [],
    startedAt: undefined,
    endedAt: undefined,
    place: undefined,
    endPlace: undefined,
  };
  runs.set(id, run);
  if (mark.kind === "start") Object.assign(run, { start: mark, startedAt: time, place });
  else if (mark.kind === "end") Object.assign(run, { end: mark, endedAt: time, endPlace: place });
  else run.stages.push({ ...mark, place });
}

/** How a run stands; one without an end is running only while somebody holds the log open for writing. */
export function standingOf(run: Run, beingWritten: boolean): Standing {
  return run.end?.result ?? (beingWritten ? "running" : "cut off");
}

/** Milliseconds that a run took, or has taken until `now`. */
export function durationOf(run: Run, now: number): number | undefined {
  if (run.end) return run.end.seconds * 1000;
  return run.startedAt === undefined ? undefined : Math.max(0, now - Date.parse(run.startedAt));
}
