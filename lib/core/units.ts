import { UsageError } from "./errors.ts";

const milliseconds: Record<string, number> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

const longNames: Record<string, string> = {
  millisecond: "ms",
  second: "s",
  sec: "s",
  minute: "m",
  min: "m",
  hour: "h",
  day: "d",
  week: "w",
};

/**
 * A duration in milliseconds from `90s`, `15m`, `1h30m`, or the long form `15 minutes 32 seconds`.
 * @throws {UsageError} when the text is anything else, also a bare number (its unit would be a guess).
 */
export function parseDuration(text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)\s*([a-z]+)\s*,?\s*/gy)];
  const read = parts.reduce((length, part) => length + part[0].length, 0);
  let total = 0;
  for (const [, count, name] of parts) {
    const unit = milliseconds[name ?? ""] ?? milliseconds[longNames[(name ?? "").replace(/s$/, "")] ?? ""];
    if (unit === undefined) throw wrongDuration(text);
    total += Number(count) * unit;
  }
  if (parts.length === 0 || read !== text.length) throw wrongDuration(text);
  return Math.round(total);
}

function wrongDuration(text: string): UsageError {
  return new UsageError(`"${text}" is not a duration; write 90s, 15m, 2h, 1d or "15 minutes 32 seconds"`);
}

const sizeUnits = ["", "k", "M", "G", "T"];

/**
 * A number of bytes from `10k`, `5M`, `2G` (powers of 1024) or a bare number.
 * @throws {UsageError} when the text is anything else.
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text);
  const power = sizeUnits.findIndex((unit) => unit.toLowerCase() === match?.[2]?.toLowerCase());
  if (!match || power < 0) throw new UsageError(`"${text}" is not a size; write 10k, 5M, 2G or a number of bytes`);
  return Math.round(Number(match[1]) * 1024 ** power);
}

/** Milliseconds in a form for people: `0.8s`, `42s`, `3m 05s`, `10m`, `2h 05m`, `4d 1h`. */
export function formatDuration(ms: number): string {
  if (ms < 9950) return `${(ms / 1000).toFixed(1)}s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const withRest = (whole: string, rest: number, unit: string) =>
    rest === 0 ? whole : `${whole} ${String(rest).padStart(2, "0")}${unit}`;
  if (seconds < 3600) return withRest(`${Math.floor(seconds / 60)}m`, seconds % 60, "s");
  const minutes = Math.round(seconds / 60);
  if (minutes < 1440) return withRest(`${Math.floor(minutes / 60)}h`, minutes % 60, "m");
  const hours = Math.round(minutes / 60);
  return `${Math.floor(hours / 24)}d ${hours % 24}h`;
}

/** Bytes in a form for people: `512 B`, `9.8 kB`, `12.3 MB`, in powers of 1024 as `parseSize` takes them. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let power = 0;
  while (value >= 1000 && power < sizeUnits.length - 1) {
    value /= 1024;
    power += 1;
  }
  return power === 0 ? `${Math.round(value)} B` : `${value.toFixed(value < 10 ? 1 : 0)} ${sizeUnits[power]}B`;
}
