import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers";
import { bootId } from "../core/id.ts";
import { fsyncFolder, readIfThere, writeAtomic } from "../files/files.ts";
import { systemCode } from "../core/errors.ts";
import { journalName, pathFault, recordName } from "./paths.ts";
import { formatRecord, formatSaved, readRecord, type Saved, type Unflushed } from "./record.ts";

/**
 * The record on the disk: saved.txt, replaced as a whole at the end of a run, and beside it, while a run
 * is under way, a journal with a line for each file done, so that a killed run is not done twice.
 */
export interface Record {
  saved: Map<string, Saved>;
  /** Lines of saved.txt that could not be understood. */
  wrong: number[];
  /** Files that were not flushed when they were saved. */
  unflushed?: Unflushed;
  /** What a killed run had done: to be believed only after a look at the bytes. */
  journal: Map<string, Saved>;
}

export function readStore(root: string): Record {
  const record = readRecord(readText(join(root, recordName)));
  const journal = readRecord(readText(join(root, journalName)));
  // a line that names what no manifest may name was not written by us
  for (const saved of [record.saved, journal.saved])
    for (const path of saved.keys()) if (pathFault(path)) saved.delete(path);
  return { ...record, journal: journal.saved };
}

/** Recorded files that a restart of the machine may have lost, since they were not flushed before it. */
export function doubtful({ saved, unflushed }: Record): Saved[] {
  if (unflushed === undefined || unflushed.boot === bootId()) return [];
  return [...saved.values()].filter(({ time }) => time >= unflushed.since);
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return "";
    throw error;
  }
}

/** The journal, open for a run. */
export class Journal {
  readonly #path: string;
  #fd: number | undefined;
  #lines = "";

  constructor(root: string) {
    this.#path = join(root, journalName);
  }

  /**
   * Note one file as done; those that are done in one turn of the event loop are written together.
   * What is not written costs a look at that file later, nothing more.
   */
  add(saved: Saved): void {
    if (this.#lines === "") setImmediate(() => this.#write());
    this.#lines += formatSaved(saved);
  }

  #write(): void {
    const lines = this.#lines;
    this.#lines = "";
    try {
      if (lines !== "") writeSync((this.#fd ??= openSync(this.#path, "a")), lines);
    } catch {
      // a full disk; the end of the run will say so
    }
  }

  close(): void {
    this.#write();
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** Write the whole record, after the names it speaks of are safe on the disk. */
export async function writeStore(
  root: string,
  { saved, unflushed }: Pick<Record, "saved" | "unflushed">,
  touched: Iterable<string>,
): Promise<void> {
  await Promise.all([...new Set(touched)].map((folder) => fsyncFolder(folder).catch(() => {})));
  const text = formatRecord(saved.values(), unflushed);
  const path = join(root, recordName);
  if ((await readIfThere(path)) !== text) await writeAtomic(path, text);
  rmSync(join(root, journalName), { force: true });
}
