import { randomHex } from "./random.ts";

/** A run's id, which sorts by time: `20261120T101500Z-3f2a9c` (UTC, then six random hex digits). */
export function newRunId(at: Date = new Date()): string {
  const time = at.toISOString().replace(/[-:]|\.\d+/g, "");
  return `${time}-${randomHex(6)}`;
}

/** Whether a text has the form of a run's id. */
export function isRunId(text: string): boolean {
  return /^\d{8}T\d{6}Z-[0-9a-f]{6}$/.test(text);
}
