import { Failure, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { type EndMark, isFailure, type Mark, markStage, noRun, parseLine } from "../log/format.ts";
import { parseMark, type Result, type StageMark, type StartMark } from "../log/format.ts";
import { isHeld } from "./lock.ts";
import { type Block, blocksOf, type LogFiles, openLogFiles, type Place, type Source } from "./log-files.ts";

/** What the marks of a log tell of a run. */
export interface Run {
  id: string;
  start?: StartMark;
  end?: EndMark;
  /** In the order of the log. */
  stages: StageMark[];
  /** When it started and finished, as its lines say. */
  startedAt?: string;
  finishedAt?: string;
  /** Its first line. */
  place: Place;
  /** The file of its last line. */
  endSource?: number;
  /** Without an end only the newest can be running, while the log's lock is held. */
  status: Result | "running" | "cut off";
}

/** A mark, as it stands in a log. */
interface PlacedMark {
  run: string;
  time: string;
  mark: Mark;
  place: Place;
}

/**
 * The runs of a log, the newest first. The newest part is read first, and no further one once there are `enough`. Only
 * the marks are decoded, all other lines are passed over.
 */
export async function findRuns(
  { file, sources, onDamage }: LogFiles,
  enough: (newestFirst: readonly Run[]) => boolean = () => false,
): Promise<Run[]> {
  let marks: PlacedMark[] = [];
  let isWritten: boolean | undefined;
  for (let index = sources.length - 1; index >= 0; index -= 1) {
    const found: PlacedMark[] = [];
    for await (const block of blocksOf(sources[index] as Source, onDamage)) found.push(...marksIn(block, index));
    marks = [...found, ...marks];
    const runs = runsOf(marks);
    const [newest] = runs;
    if (newest && !newest.end && (isWritten ??= await isHeld(file))) newest.status = "running";
    if (index === 0 || enough(runs)) return runs;
  }
  return [];
}

function* marksIn({ bytes, offset }: Block, source: number): Generator<PlacedMark> {
  const stage = ` ${markStage} | `;
  for (let at = bytes.indexOf(stage), end = 0; at >= 0; at = bytes.indexOf(stage, end)) {
    const start = bytes.lastIndexOf(10, at) + 1;
    end = bytes.indexOf(10, at);
    if (end < 0) end = bytes.length;
    // the same words in a line's text are not a mark
    const line = parseLine(bytes.toString("utf8", start, end));
    const mark = line?.stage === markStage && line.run !== noRun ? parseMark(line.text) : undefined;
    if (line && mark) yield { run: line.run, time: line.time, mark, place: { source, offset: offset + start } };
  }
}

/** The runs that marks tell of, the newest first. Pure. */
function runsOf(marks: readonly PlacedMark[]): Run[] {
  const runs = new Map<string, Run>();
  for (const { run: id, time, mark, place } of marks) {
    const run: Run = runs.get(id) ?? { id, stages: [], place, status: "cut off" };
    runs.set(id, run);
    if (mark.kind === "start") Object.assign(run, { start: mark, startedAt: time, place });
    else if (mark.kind === "end")
      Object.assign(run, { end: mark, status: mark.result, finishedAt: time, endSource: place.source });
    else run.stages.push(mark);
  }
  return [...runs.values()].reverse();
}

/** Whether a text may stand for a run: its id, or the beginning or end of it. */
export function isNamed({ id }: Run, text: string): boolean {
  return id.startsWith(text) || id.endsWith(text);
}

/**
 * The run that is meant by its id, or by the beginning or end of it.
 * @throws {Failure} when there is none. @throws {UsageError} when it may be several.
 */
export async function findRun(files: LogFiles, text: string): Promise<Run> {
  // a whole id names one run: nothing is gained by reading on
  const runs = await findRuns(files, (found) => found.some(({ id, start }) => id === text && start));
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

/** The newest runs of a log and the stages in them, for completion in a shell. */
export async function knownRuns(file: string): Promise<{ ids: string[]; stages: string[] }> {
  const runs = await findRuns(
    openLogFiles(file, () => {}),
    (found) => found.length >= 50,
  );
  const stages = new Set(runs.flatMap(({ stages }) => stages.map(({ name }) => name)));
  return { ids: runs.map(({ id }) => id), stages: [...stages] };
}

/** Whether a run counts as failed: also one that was cut off. */
export function hasFailed({ status }: Run): boolean {
  return status === "cut off" || (status !== "running" && isFailure(status));
}

/** Waits for the end of a run in the texts of a log: of the one that is named, else of the next that starts. */
export class RunEnd {
  run: string | undefined;

  constructor(run: string | undefined) {
    this.run = run;
  }

  /** The run's exit code, where its end is in this text. */
  codeIn(text: string): number | undefined {
    const block = { bytes: Buffer.from(text), offset: 0 };
    for (const { run, mark } of marksIn(block, 0)) {
      if (mark.kind === "start") this.run ??= run;
      if (mark.kind === "end" && run === this.run) return mark.code;
    }
    return undefined;
  }
}
