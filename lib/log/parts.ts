import { readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { ifMissing } from "../core/errors.ts";

/**
 * The rotated parts of a log. `logs.txt` becomes `logs.txt.20261121T024404Z` (UTC, when it was rotated), and `….gz`
 * once it is compressed. Only names of exactly this form are ever read as parts, or removed.
 */
export interface LogPart {
  /** The path without `.gz`: it stays the same when the part is compressed. Paths sort as the parts do. */
  path: string;
  /** When it was rotated, `20261121T024404Z`: no line in it is younger. */
  stamp: string;
  /** The uncompressed file, while there is one. Where both are there, this is the one to trust. */
  plain?: string | undefined;
  /** The compressed file, once it is complete. */
  packed?: string | undefined;
}

const ending = /^\.(\d{8}T\d{6}Z)(\.gz)?$/;

/** The parts of a log that are there now, the oldest first. What is not a plain file is none: a pipe, a link. */
export function listParts(file: string): LogPart[] {
  const parts = new Map<string, LogPart>();
  for (const entry of entriesOf(dirname(file))) {
    if (!entry.isFile() || !entry.name.startsWith(basename(file))) continue;
    const [, stamp, packed] = ending.exec(entry.name.slice(basename(file).length)) ?? [];
    if (stamp === undefined) continue;
    const part = parts.get(stamp) ?? { path: `${file}.${stamp}`, stamp };
    part[packed ? "packed" : "plain"] = join(dirname(file), entry.name);
    parts.set(stamp, part);
  }
  return [...parts.values()].sort((a, b) => (a.stamp < b.stamp ? -1 : 1));
}

function entriesOf(folder: string) {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    ifMissing(error);
    return [];
  }
}

/** A time as it stands in the names of parts. */
export function stampOf(time: Date): string {
  return time.toISOString().replace(/[-:]|\.\d+/g, "");
}

/** The part that `file` becomes when it is rotated now: one after all there are, also when the clock was set back. */
export function nextPart(file: string): LogPart {
  const last = listParts(file)
    .at(-1)
    ?.stamp.replace(/^(....)(..)(..)T(..)(..)/, "$1-$2-$3T$4:$5:");
  const time = Math.max(Date.now(), last === undefined ? 0 : Date.parse(last) + 1000);
  const stamp = stampOf(new Date(time));
  return { path: `${file}.${stamp}`, stamp, plain: `${file}.${stamp}` };
}
