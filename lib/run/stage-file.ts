import { appendFileSync, fstatSync } from "node:fs";
import process from "node:process";
import type { Result } from "../log/format.ts";

/** Variable that names the file in which hook-server wants to be told of a run's stages. No stage gets to see it. */
export const stageFileVariable = "BOATYARD_STAGES";

/** A line of that file: a stage begins, or ends with a result. */
export interface StageEvent {
  /** ISO. */
  readonly time: string;
  readonly name: string;
  /** How many bytes the output had by then, where it is a file. */
  readonly at?: number | undefined;
  /** Undefined: it begins. */
  readonly result?: string | undefined;
  readonly seconds?: number | undefined;
  readonly why?: string | undefined;
}

/**
 * Tell hook-server that a stage begins, or how it ended. It is a file beside the output, not a line in it: whatever a
 * stage prints, it cannot pass for this.
 */
export function reportStage(name: string, ended?: { result: Result; seconds: number; note: string }): void {
  const file = process.env[stageFileVariable];
  if (!file) return;
  const event: StageEvent = {
    time: new Date().toISOString(),
    name,
    at: outputSize(),
    ...(ended && {
      result: ended.result,
      seconds: Math.round(ended.seconds * 1000) / 1000,
      ...(ended.result === "ok" || ended.note === "" ? {} : { why: ended.note.slice(0, 500) }),
    }),
  };
  try {
    appendFileSync(file, `${JSON.stringify(event)}\n`);
  } catch {
    // the run matters more than what is told of it
  }
}

function outputSize(): number | undefined {
  try {
    const found = fstatSync(2);
    return found.isFile() ? found.size : undefined;
  } catch {
    return undefined;
  }
}
