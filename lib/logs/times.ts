import { UsageError } from "../core/errors.ts";
import { parseDuration } from "../core/units.ts";

/**
 * A point in time as the log writes it, from `2h` (so long ago), `2026-11-20`, `2026-11-20T10:15` (local
 * time unless it ends in Z or an offset) or `10:15` (today).
 * @throws {UsageError} for anything else.
 */
export function pointInTime(flag: string, text: string, now: Date): string {
  const clock = /^(\d{1,2}):(\d\d)(?::(\d\d))?$/.exec(text);
  if (clock) {
    const today = new Date(now);
    today.setHours(Number(clock[1]), Number(clock[2]), Number(clock[3] ?? 0), 0);
    return iso(flag, text, today);
  }
  if (/^\d{4}-\d\d-\d\d$/.test(text)) return iso(flag, text, new Date(`${text}T00:00:00`));
  if (/^\d{4}-\d\d-\d\d[T ]\d\d:\d\d/.test(text))
    return iso(flag, text, new Date(text.replace(" ", "T")));
  try {
    return iso(flag, text, new Date(now.getTime() - parseDuration(text)));
  } catch {
    throw wrongTime(flag, text);
  }
}

function iso(flag: string, text: string, time: Date): string {
  if (Number.isNaN(time.getTime())) throw wrongTime(flag, text);
  return time.toISOString();
}

function wrongTime(flag: string, text: string): UsageError {
  return new UsageError(
    `${flag}: "${text}" is no time; write 2h, 2026-11-20, 2026-11-20T10:15 or 10:15`,
  );
}
