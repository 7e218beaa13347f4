import { readFileSync } from "node:fs";

let id: string | undefined;

/**
 * An id of this start of the machine (Linux: boot_id, random(4)); the same empty text always where the
 * system gives none. What was written under another id and not flushed may have been lost.
 */
export function bootId(): string {
  try {
    id ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    id = "";
  }
  return id;
}
