import { appendFileSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fsyncFolder, readIfThere, writeAtomic } from "../files.ts";
import { systemCode } from "../errors.ts";
import { journalName, pathFault, recordName } from "./paths.ts";
import { formatRecord, formatSaved, readRecord, type Saved } from "./record.ts";

/**
 * The record on the disk: saved.txt, replaced as a whole at the end of a run, and beside it, while a run
 * is under way, a journal with a line for each file done, so that a killed run is not done twice.
 */
export interface Record {
  saved: Map<string, Saved>;
  /** Lines of saved.txt that could not be understood. */
  wrong: number[];
  /** What a killed run had done: to be believed only after a look at the bytes. */
  journal: Map<string, Saved>;
}

export function readStore(root: string): Record {
  const record = readRecord(readText(join(root, recordName)));
  const journal = readRecord(readText(join(root, journalName)));
  // a line that names what no manifest may name was not written by us
  for (const saved of [record.saved, journal.saved])
    for (const path of saved.keys()) if (pathFault(path)) saved.delete(path);
  return { saved: record.saved, wrong: record.wrong, journal: journal.saved };
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return "";
    throw error;
  }
}

/** Note one file as done. A journal that cannot be written costs a look at that file later, nothing more. */
export function note(root: string, saved: Saved): void {
  try {
    appendFileSync(join(root, journalName), formatSaved(saved));
  } catch {
    // a full disk; the end of the run will say so
  }
}

/** Write the whole record, after the files it speaks of are safe on the disk. */
export async function writeStore(
  root: string,
  saved: Map<string, Saved>,
  touched: Iterable<string>,
): Promise<void> {
  await Promise.all([...new Set(touched)].map((folder) => fsyncFolder(folder).catch(() => {})));
  const text = formatRecord(saved.values());
  const path = join(root, recordName);
  if ((await readIfThere(path)) !== text) await writeAtomic(path, text);
  rmSync(join(root, journalName), { force: true });
}
