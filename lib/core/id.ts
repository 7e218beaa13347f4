import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";

/** A run's id, which sorts by time: `20261120T101500Z-3f2a9c` (UTC, then six hex digits, by default random). */
export function newRunId(
  at: Date | number = Date.now(),
  digits = randomBytes(3).toString("hex"),
): string {
  const second = new Date(at).toISOString().replace(/[-:]|\.\d+/g, "");
  return `${second}-${digits}`;
}

/** Whether a text has the form of a run's id. */
export function isRunId(text: string): boolean {
  return /^\d{8}T\d{6}Z-[0-9a-f]{6}$/.test(text);
}

/**
 * An id of this start of the machine (Linux: boot_id, random(4)); the same empty text always where the
 * system gives none. What was written under another id and not flushed may have been lost.
 */
export function bootId(): string {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return "";
  }
}
