import {
  type EndMark,
  isFailure,
  type LogLine,
  markStage,
  noRun,
  parseLine,
  parseMark,
  type Result,
  type StageMark,
  type StartMark,
} from "../log/format.ts";
import {
  type Block,
  blocksBackwards,
  blocksOf,
  closeLogFiles,
  type LogFiles,
  openLogFiles,
} from "./source.ts";

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
  /** When it started and finished, as its lines say. */
  startedAt: string | undefined;
  finishedAt: string | undefined;
  /** Its first line. */
  place: Place | undefined;
  /** Its last line. */
  endPlace: Place | undefined;
}

/** A run's result, or that it has none. */
export type RunStatus = Result | "running" | "cut off";

/** Bytes at the end of a log in which no line belongs to a run: then it is not a log of runs. */
const maxWithoutRun = 8 << 20;

export interface Search {
  /** Called after each block with all runs found so far; true ends the search. */
  enough?: (runs: readonly Run[]) => boolean;
  /** Told of a part that is damaged; what could be read of it counts. */
  onDamage?: (path: string, error: unknown) => void;
}

/**
 * The runs of a log, the newest first. Reads from the end and only as far as `enough` asks: only the
 * marks are decoded, all other lines are passed over.
 */
export async function findRuns(
  { sources }: LogFiles,
  { enough, onDamage }: Search = {},
): Promise<Run[]> {
  const runs = new Map<string, Run>();
  let passed = 0;
  let isLogOfRuns = false;
  search: for (let index = sources.length - 1; index >= 0; index -= 1) {
    const source = sources[index];
    if (source?.open() === undefined) continue;
    try {
      for await (const block of source.packed ? blocksOf(source) : blocksBackwards(source)) {
        readMarks(block, index, runs);
        passed += block.bytes.length;
        isLogOfRuns ||= runs.size > 0 || hasRun(block);
        // a compressed part is read forwards: its last run is found at its end
        if (!source.packed && enough?.([...runs.values()])) break search;
        if (!isLogOfRuns && enough && passed > maxWithoutRun) break search;
      }
    } catch (error) {
      onDamage?.(source.path, error);
    }
    if (enough?.([...runs.values()])) break;
  }
  for (const { stages } of runs.values()) stages.sort((a, b) => comparePlaces(a.place, b.place));
  return [...runs.values()].sort((a, b) => newest(b).localeCompare(newest(a)));
}

function newest(run: Run): string {
  return run.startedAt ?? run.finishedAt ?? "";
}

function comparePlaces(a: Place, b: Place): number {
  return a.source - b.source || a.offset - b.offset;
}

/** Whether a line at the end of the block belongs to a run. */
function hasRun({ bytes }: Block): boolean {
  const tail = bytes.toString("latin1", Math.max(0, bytes.length - 4096)).split("\n");
  return tail.some((line) => isRun(parseLine(line)?.run));
}

function isRun(id: string | undefined): boolean {
  return id !== undefined && id !== noRun;
}

function readMarks({ bytes, offset }: Block, source: number, runs: Map<string, Run>): void {
  // one character a byte: places in the text are places in the file
  const text = bytes.toString("latin1");
  const stage = ` ${markStage} | `;
  for (let at = text.indexOf(stage), end = 0; at >= 0; at = text.indexOf(stage, end)) {
    const start = text.lastIndexOf("\n", at) + 1;
    end = text.indexOf("\n", at);
    if (end < 0) end = text.length;
    // the same words in a line's text are not a mark
    const line = parseLine(bytes.toString("utf8", start, end));
    if (line?.stage === markStage) noteMark(line, { source, offset: offset + start }, runs);
  }
}

/** Add what a mark tells to what is known of its run. */
function noteMark({ run: id, time, text }: LogLine, place: Place, runs: Map<string, Run>): void {
  const mark = parseMark(text);
  if (!mark || !isRun(id)) return;
  const run = runs.get(id) ?? {
    id,
    start: undefined,
    end: undefined,
    stages: [],
    startedAt: undefined,
    finishedAt: undefined,
    place: undefined,
    endPlace: undefined,
  };
  runs.set(id, run);
  if (mark.kind === "start") Object.assign(run, { start: mark, startedAt: time, place });
  else if (mark.kind === "end")
    Object.assign(run, { end: mark, finishedAt: time, endPlace: place });
  else run.stages.push({ ...mark, place });
}

/** A run's status; one without an end is running only while somebody has the log open for writing. */
export function statusOf(run: Run, isWritten: boolean): RunStatus {
  return run.end?.result ?? (isWritten ? "running" : "cut off");
}

/** Whether a run counts as failed: also one that was cut off. */
export function hasFailed(run: Run, isWritten: boolean): boolean {
  const status = statusOf(run, isWritten);
  return status === "cut off" || (status !== "running" && isFailure(status));
}

/** Milliseconds that a run took, or has taken until `now`. */
export function durationOf(run: Run, now: number): number | undefined {
  if (run.end) return run.end.seconds * 1000;
  return run.startedAt === undefined ? undefined : Math.max(0, now - Date.parse(run.startedAt));
}

/** The newest runs of a log and the stages in them, for completion in a shell. */
export async function knownRuns(file: string): Promise<{ ids: string[]; stages: string[] }> {
  const files = await openLogFiles(file);
  try {
    const enough = (runs: readonly Run[]) => runs.length >= 50;
    const runs = await findRuns(files, { enough });
    const stages = new Set(runs.flatMap(({ stages }) => stages.map(({ name }) => name)));
    return { ids: runs.map(({ id }) => id), stages: [...stages] };
  } finally {
    closeLogFiles(files);
  }
}
