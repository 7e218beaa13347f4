import { randomBytes } from "node:crypto";

/** A run's id, which sorts by time: `20261120T101500Z-3f2a9c` (UTC, then six random hex digits). */
export function newRunId(at: Date = new Date()): string {
  const time = at.toISOString().replace(/[-:]|\.\d+/g, "");
  return `${time}-${randomDigits()}`;
}

// asked for in one go: a call for three bytes costs as much as one for hundreds
let pool = "";

function randomDigits(): string {
  if (pool === "") pool = randomBytes(384).toString("hex");
  const digits = pool.slice(0, 6);
  pool = pool.slice(6);
  return digits;
}

/** Whether a text has the form of a run's id. */
export function isRunId(text: string): boolean {
  return /^\d{8}T\d{6}Z-[0-9a-f]{6}$/.test(text);
}
