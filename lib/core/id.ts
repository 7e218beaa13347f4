import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";

let digits = randomInt(2 ** 24);

/**
 * A run's id, which sorts by time: `20261120T101500Z-3f2a9c` (UTC, six hex digits). A process makes no two the same:
 * random digits would meet when thousands come in one second, but from a random start an odd step leads through all.
 */
export function newRunId(at: Date | number = Date.now()): string {
  digits = (digits + 0x9e3779) % 0x1000000;
  const second = new Date(at).toISOString().replace(/[-:]|\.\d+/g, "");
  return `${second}-${digits.toString(16).padStart(6, "0")}`;
}

/** Whether a text has the form of a run's id. */
export function isRunId(text: string): boolean {
  return /^\d{8}T\d{6}Z-[0-9a-f]{6}$/.test(text);
}

/** The part of a run's id that is typed: its six hex digits. */
export function shortRun(id: string): string {
  return id.slice(-6);
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
