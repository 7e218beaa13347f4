import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../core/id.ts";
import { fsyncFolder, readIfThere, writeAtomic } from "../files/files.ts";
import { isComment } from "./manifest.ts";
import { isFileAt, journalName, pathFault, recordName } from "./paths.ts";
import { hashFile } from "./place.ts";

/**
 * The record of what was saved: `downloads/saved.txt`, replaced as a whole at the end of a run, and beside it,
 * while a run is under way, a journal with a line for each file done, so that a killed run is not done twice.
 * A line a file, six fields with a space between, then the path with its spaces. A person can delete a line,
 * and the file is looked at anew.
 */
export interface Saved {
  path: string;
  sha256: string;
  /** Bytes. */
  size: number;
  /** When it was saved: ISO 8601, UTC, whole seconds. */
  time: string;
  /** Where it came from, without fragment and login. */
  url: string;
  version?: string;
  /** The server's ETag as sent, or `lm:` and its Last-Modified in seconds when it gave no ETag. */
  tag?: string;
}

/** New files are not waited for until the disk has them: a restart of the machine may lose such ones. */
export interface Unsynced {
  /** The id of the machine's start under which they were saved. */
  boot: string;
  /** Files saved at this time or later: ISO 8601, as in the lines. */
  since: string;
}

export interface Record {
  /** By path. */
  saved: Map<string, Saved>;
  unsynced?: Unsynced;
}

const head = `# What downloads saved, written by it. Delete a line to have that file looked at anew.
# SHA256 SIZE TIME VERSION ETAG URL PATH
`;

/** The whole file, its lines in the order of their paths, so that two records compare with diff. */
export function formatRecord({ saved, unsynced }: Record): string {
  const lines = [...saved.values()]
    .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
    .map((each) => formatSaved(each));
  const doubt = unsynced
    ? `# Saved since ${unsynced.since} in boot ${unsynced.boot}: hashed again after a restart of the machine.\n`
    : "";
  return head + doubt + lines.join("");
}

/** One line with its end. */
function formatSaved({ sha256, size, time, version, tag, url, path }: Saved): string {
  return `${sha256} ${size} ${time} ${version ?? "-"} ${tag ?? "-"} ${url} ${path}\n`;
}

/**
 * Parse a record. A line that cannot be understood is left out and its number given, and one that names what no
 * manifest may name was not written by us: these files are looked at anew.
 */
export function parseRecord(text: string): Record & { wrong: number[] } {
  const saved = new Map<string, Saved>();
  const wrong: number[] = [];
  text.split("\n").forEach((line, index) => {
    if (isComment(line)) return;
    const entry = parseSaved(line);
    if (!entry) wrong.push(index + 1);
    else if (!pathFault(entry.path)) saved.set(entry.path, entry);
  });
  const [, since, boot] = /^# Saved since (\S+) in boot (\S+): /m.exec(text) ?? [];
  return { saved, wrong, ...(since && boot ? { unsynced: { since, boot } } : {}) };
}

const line =
  /^([0-9a-f]{64}) (\d{1,15}) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) ([^ ]+) ([^ ]+) ([a-z][a-z0-9+.-]*:\/\/[^ ]+) (.+)$/is;

function parseSaved(text: string): Saved | undefined {
  const match = line.exec(text);
  if (!match) return undefined;
  const [, sha256 = "", size = "", time = "", version = "", tag = "", url = "", path = ""] = match;
  return {
    path,
    sha256,
    size: Number(size),
    time,
    url,
    ...(version === "-" ? {} : { version }),
    ...(tag === "-" ? {} : { tag }),
  };
}

/** An ETag that a line can hold: one word. Others are not kept, which costs a fetch at --check. */
export function recordableTag(
  etag: string | undefined,
  lastModified: number | undefined,
): string | undefined {
  if (
    etag !== undefined &&
    /^[\u0021-\u007e\u0080-\u00ff]{2,300}$/.test(etag) &&
    !etag.startsWith("lm:")
  )
    return etag;
  return lastModified === undefined ? undefined : `lm:${Math.floor(lastModified / 1000)}`;
}

export interface ReadRecord extends Record {
  /** Lines of saved.txt that could not be understood. */
  wrong: number[];
  /** Paths whose file is not the one that was saved: to be fetched again. */
  lost: Set<string>;
}

/** Read saved.txt, and make sure of what a restart of the machine or a killed run has left in doubt. */
export async function readRecord(root: string): Promise<ReadRecord> {
  const record = parseRecord((await readIfThere(join(root, recordName))) ?? "");
  const { saved, unsynced } = record;
  const lost = new Set<string>();
  const isAsSaved = async ({ path, sha256 }: Saved): Promise<boolean> => {
    if (!isFileAt(root, path)) return false;
    const same = (await hashFile(join(root, path))) === sha256;
    if (same) lost.delete(path);
    else lost.add(path);
    return same;
  };
  if (unsynced && unsynced.boot !== bootId()) {
    // what had not reached the disk before the restart may be lost
    for (const each of saved.values()) if (each.time >= unsynced.since) await isAsSaved(each);
    delete record.unsynced;
  }
  // what a killed run had noted counts where the bytes on the disk are those
  const journal = parseRecord((await readIfThere(join(root, journalName))) ?? "");
  for (const each of journal.saved.values())
    if (await isAsSaved(each)) addSaved(record, each, { synced: false });
  return { ...record, lost };
}

/** @param synced false: a new file that the disk may not have yet. */
export function addSaved(record: Record, saved: Saved, { synced }: { synced: boolean }): void {
  record.saved.set(saved.path, saved);
  if (!synced) record.unsynced ??= { boot: bootId(), since: saved.time };
}

/** The journal, open for a run. */
export class Journal {
  readonly #path: string;
  #fd: number | undefined;

  constructor(root: string) {
    this.#path = join(root, journalName);
  }

  /** Note one file as done. What is not written costs a look at that file later, nothing more. */
  add(saved: Saved): void {
    try {
      writeSync((this.#fd ??= openSync(this.#path, "a")), formatSaved(saved));
    } catch {
      // a full disk; the end of the run will say so
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/**
 * Write saved.txt when it changed, after the names it speaks of are safe on the disk; the journal is done with.
 * @param written the folders whose entries changed.
 */
export async function writeRecord(
  root: string,
  record: Record,
  written: Iterable<string>,
): Promise<void> {
  await Promise.all([...written].map((folder) => fsyncFolder(folder).catch(() => {})));
  const text = formatRecord(record);
  const path = join(root, recordName);
  // nothing saved yet is no record yet
  const current = (await readIfThere(path)) ?? head;
  if (current !== text) await writeAtomic(path, text);
  rmSync(join(root, journalName), { force: true });
}
