import { randomHex } from "./id.ts";

/** A run's id, which sorts by time: `20261120T101500Z-3f2a9c` (UTC, then six hex digits, by default random). */
export function newRunId(at: Date | number = Date.now(), digits = randomHex(6)): string {
  const second = Math.floor(Number(at) / 1000);
  if (second !== last.second) {
    last = { second, text: new Date(at).toISOString().replace(/[-:]|\.\d+/g, "") };
  }
  return `${last.text}-${digits}`;
}

// thousands of one second share its text
let last = { second: Number.NaN, text: "" };

/** Whether a text has the form of a run's id. */
export function isRunId(text: string): boolean {
  return /^\d{8}T\d{6}Z-[0-9a-f]{6}$/.test(text);
}
