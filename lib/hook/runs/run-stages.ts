import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { isFailure, type Result } from "../../log/format.ts";
import type { StageEvent } from "../../run/stage-file.ts";
import type { RunStage } from "../../run-store/run-store.ts";

/**
 * The stages of a run, as `build` and `release` tell of them in a file of the run's folder, and the `then` commands,
 * which the server times itself. What a stage prints is in another file, and cannot add to this one. The repo's user
 * can write into the file of its own run on purpose; the run's result and times do not come from there.
 */

const maxBytes = 256 * 1024;
const maxStages = 200;
const results: readonly string[] = ["ok", "failed", "skipped", "timeout", "cancelled"];

/** The stages that a file tells of; none when it is not a plain file. */
export async function readStages(path: string): Promise<RunStage[]> {
  // a build with the server's own user can put anything in its place: a pipe would hold the server up
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch(() => undefined);
  if (!file) return [];
  try {
    if (!(await file.stat()).isFile()) return [];
    const { buffer, bytesRead } = await file.read(Buffer.alloc(maxBytes), 0, maxBytes, 0);
    return stagesIn(buffer.subarray(0, bytesRead).toString("utf8"));
  } finally {
    await file.close();
  }
}

/** The stages that lines of events tell of. Pure: what is not an event is left out. */
export function stagesIn(text: string): RunStage[] {
  const stages: RunStage[] = [];
  for (const line of text.split("\n")) {
    const event = eventOf(line);
    if (!event || stages.length >= maxStages) continue;
    const open = stages.at(-1);
    if (event.result === undefined) {
      stages.push({ name: event.name, started: event.time, from: event.at });
    } else if (open?.name === event.name && open.result === undefined) {
      open.result = event.result as Result;
      open.seconds = event.seconds;
      open.why = event.why;
      open.to = event.at;
    }
  }
  return stages;
}

function eventOf(line: string): StageEvent | undefined {
  try {
    const { time, name, at, result, seconds, why } = JSON.parse(line) as Record<string, unknown>;
    if (typeof name !== "string" || typeof time !== "string") return undefined;
    if (Number.isNaN(Date.parse(time))) return undefined;
    const number = (value: unknown) =>
      typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined;
    const place = (value: unknown) => (Number.isSafeInteger(value) ? number(value) : undefined);
    const known = typeof result === "string" && results.includes(result) ? result : "failed";
    return {
      time: new Date(time).toISOString(),
      name: plain(name, 80),
      at: place(at),
      result: result === undefined ? undefined : known,
      seconds: number(seconds),
      why: typeof why === "string" ? plain(why, 500) : undefined,
    };
  } catch {
    return undefined;
  }
}

/** Text in one line, without control characters. */
function plain(text: string, max: number): string {
  return text.replace(/\p{Cc}+/gu, " ").slice(0, max);
}

/** The stages of a run that ends now: what is under way has the run's end. Pure. */
export function closeStages(
  stages: readonly RunStage[],
  { result, now, size }: { result: Result; now: Date; size?: number | undefined },
): RunStage[] {
  return stages.map((stage) =>
    stage.result !== undefined
      ? stage
      : {
          ...stage,
          result,
          seconds: Math.max(0, now.getTime() - Date.parse(stage.started)) / 1000,
          to: size,
        },
  );
}

/** The stage that ended a run badly. */
export function failedStage(stages: readonly RunStage[] | undefined): RunStage | undefined {
  return stages?.findLast(({ result }) => result !== undefined && isFailure(result));
}
