import { lstat, readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { systemCode } from "../core/errors.ts";

/**
 * The rotated parts of a log. `logs.txt` becomes `logs.txt.20261121T024404Z` (UTC, when it was rotated;
 * `-2`, `-3` … for the second and third of one second), and `….gz` once it is compressed.
 * Only names of exactly this form are ever read as parts, or removed.
 */
export interface LogPart {
  /** The name without `.gz`: it stays the same when the part is compressed. */
  name: string;
  /** When it was rotated, `20261121T024404Z`: no line in it is younger. */
  stamp: string;
  /** 1, or more for further ones of the same second. */
  number: number;
  /** The uncompressed file, while there is one. Where both are there, this is the one to trust. */
  plain?: string;
  /** The compressed file, once it is complete. */
  packed?: string;
}

/** The name of a part. */
function partName(file: string, stamp: string, number = 1): string {
  return `${basename(file)}.${stamp}${number > 1 ? `-${number}` : ""}`;
}

const ending = /^\.(\d{8}T\d{6}Z)(?:-([1-9]\d{0,5}))?(\.gz)?$/;

/** The parts of `file` among the names of its folder, the oldest first. */
export function partsAmong(file: string, names: readonly string[]): LogPart[] {
  const base = basename(file);
  const parts = new Map<string, LogPart>();
  for (const name of names) {
    const match = name.startsWith(base) ? ending.exec(name.slice(base.length)) : null;
    if (!match) continue;
    const [, stamp = "", number = "1", packed] = match;
    const key = partName(file, stamp, Number(number));
    const part = parts.get(key) ?? { name: key, stamp, number: Number(number) };
    part[packed ? "packed" : "plain"] = join(dirname(file), name);
    parts.set(key, part);
  }
  return [...parts.values()].sort(compareParts);
}

/** Orders parts from the oldest to the newest. */
export function compareParts(a: LogPart, b: LogPart): number {
  return a.stamp === b.stamp ? a.number - b.number : a.stamp < b.stamp ? -1 : 1;
}

/** The parts of a log that are there now, the oldest first. What is not a plain file is none: a pipe, a link. */
export async function listParts(file: string): Promise<LogPart[]> {
  const names = async () => {
    try {
      return (await readdir(dirname(file), { withFileTypes: true }))
        .filter((entry) => entry.isFile() && entry.name.startsWith(basename(file)))
        .map(({ name }) => name)
        .sort();
    } catch (error) {
      if (systemCode(error) === "ENOENT") return [];
      throw error;
    }
  };
  // a folder that changes while it is read may show neither the old nor the new name of a file
  let before = await names();
  for (;;) {
    const now = await names();
    if (now.join("/") === before.join("/")) return partsAmong(file, now);
    before = now;
  }
}

/**
 * The part that `file` becomes when it is rotated at `now`. It sorts after all there are, also when
 * the clock was set back.
 */
export function nextPart(file: string, parts: readonly LogPart[], now: Date): string {
  const time = now.toISOString().replace(/[-:]|\.\d+/g, "");
  const last = parts.at(-1);
  if (last === undefined || last.stamp < time) return join(dirname(file), partName(file, time));
  return join(dirname(file), partName(file, last.stamp, last.number + 1));
}

/** What stands at `path` itself, links not followed; undefined when there is nothing. */
export async function statIfThere(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw error;
  }
}
