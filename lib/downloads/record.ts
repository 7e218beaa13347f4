import { closeSync, constants, fstatSync, lstatSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../core/id.ts";
import { fsyncFolder, readIfThere, writeAtomic } from "../files/files.ts";
import { isComment } from "./manifest.ts";
import { checkPath, hashFile, recordName } from "./paths.ts";

/**
 * The record of what was saved, `downloads/saved.txt`: appended to as files are done, so that a killed run is not
 * done twice, and replaced as a whole at the end. A line a file, six fields with a space between, then the path with
 * its spaces; the last line of a path counts. A person can delete a line, and the file is looked at anew.
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
  version?: string | undefined;
  /** The server's ETag as sent, or `lm:` and its Last-Modified in seconds when it gave no ETag. */
  tag?: string | undefined;
}

/** New files are not waited for until the disk has them: a restart of the machine may lose those of `boot` since. */
type Unsynced = { boot: string; since: string };

interface Parsed {
  /** By path. */
  saved: Map<string, Saved>;
  /** Lines that could not be understood. */
  wrong: number[];
  unsynced?: Unsynced | undefined;
}

const head = `# What downloads saved, written by it. Delete a line to have that file looked at anew.
# SHA256 SIZE TIME VERSION ETAG URL PATH
`;

/** The whole file, its lines in the order of their paths, so that two records compare with diff. */
export function formatRecord({ saved, unsynced }: Pick<Parsed, "saved" | "unsynced">): string {
  const lines = [...saved.values()]
    .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
    .map((each) => formatSaved(each));
  return head + (unsynced ? formatDoubt(unsynced) : "") + lines.join("");
}

function formatDoubt({ since, boot }: Unsynced): string {
  return `# Saved since ${since} in boot ${boot}: hashed again after a restart of the machine.\n`;
}

/** One line with its end. */
function formatSaved({ sha256, size, time, version, tag, url, path }: Saved): string {
  return `${sha256} ${size} ${time} ${version ?? "-"} ${tag ?? "-"} ${url} ${path}\n`;
}

/**
 * Parse a record. A line that cannot be understood is left out and its number given, and one that names what no
 * manifest may name was not written by us: these files are looked at anew.
 */
export function parseRecord(text: string): Parsed {
  const saved = new Map<string, Saved>();
  const wrong: number[] = [];
  text.split("\n").forEach((line, index) => {
    if (isComment(line)) return;
    const entry = parseSaved(line);
    if (!entry) wrong.push(index + 1);
    else if (isPath(entry.path)) saved.set(entry.path, entry);
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
  const said = (word: string) => (word === "-" ? undefined : word);
  return { path, sha256, size: Number(size), time, url, version: said(version), tag: said(tag) };
}

function isPath(path: string): boolean {
  try {
    checkPath(path);
    return true;
  } catch {
    return false;
  }
}

/** Whether a file is there that has not these bytes. */
async function isOther(path: string, sha256: string): Promise<boolean> {
  const isFile = lstatSync(path, { throwIfNoEntry: false })?.isFile() === true;
  return isFile && (await hashFile(path)) !== sha256;
}

/** An ETag that a line can hold: one word. Others are not kept, which costs a fetch at --check. */
export function recordableTag(etag: string | undefined, lastModified: number | undefined): string | undefined {
  if (etag !== undefined && /^[\u0021-\u007e\u0080-\u00ff]{2,300}$/.test(etag) && !etag.startsWith("lm:")) return etag;
  return lastModified === undefined ? undefined : `lm:${Math.floor(lastModified / 1000)}`;
}

/** saved.txt as it is read, kept up to date while files are saved, and written as a whole at the end. */
export class Record {
  readonly saved: Map<string, Saved>;
  /** Lines of saved.txt that could not be understood. */
  readonly wrong: readonly number[];
  /** Paths whose file is not the one that was saved: to be fetched again. */
  readonly lost = new Set<string>();
  readonly #path: string;
  #unsynced: Unsynced | undefined;
  #fd: number | undefined;

  private constructor(root: string, { saved, wrong, unsynced }: Parsed) {
    this.#path = join(root, recordName);
    [this.saved, this.wrong, this.#unsynced] = [saved, wrong, unsynced];
  }

  /** Read it, and make sure of what a restart of the machine has left in doubt. */
  static async read(root: string): Promise<Record> {
    const record = new Record(root, parseRecord((await readIfThere(join(root, recordName))) ?? ""));
    const doubt = record.#unsynced;
    if (doubt === undefined || doubt.boot === bootId()) return record;
    for (const { path, sha256, time } of record.saved.values())
      if (time >= doubt.since && (await isOther(join(root, path), sha256))) record.lost.add(path);
    record.#unsynced = undefined;
    return record;
  }

  /**
   * A file is done: noted at once, so that a run that is killed later has not done it in vain.
   * @param synced false: a new file that the disk may not have yet.
   */
  add(saved: Saved, { synced }: { synced: boolean }): void {
    this.saved.set(saved.path, saved);
    const doubt = { since: saved.time, boot: bootId() };
    if (!synced) this.#unsynced ??= doubt;
    try {
      this.#fd ??= this.open(this.#unsynced ?? doubt);
      writeSync(this.#fd, formatSaved(saved));
    } catch {
      // a full disk, which the end of the run will say, or a link, which it will replace
    }
  }

  /** Open it for more lines, which a restart of the machine leaves in doubt until it is written as a whole. */
  private open(doubt: Unsynced): number {
    const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
    const fd = openSync(this.#path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o666);
    // the last line of a run that was killed may have no end
    writeSync(fd, `${fstatSync(fd).size === 0 ? head : "\n"}${formatDoubt(doubt)}`);
    return fd;
  }

  /**
   * Write it when it changed, after the names it speaks of are safe on the disk.
   * @param written the folders whose entries changed.
   */
  async write(written: Iterable<string>): Promise<void> {
    if (this.#fd !== undefined) closeSync(this.#fd);
    await Promise.all([...written].map((folder) => fsyncFolder(folder).catch(() => {})));
    const text = formatRecord({ saved: this.saved, unsynced: this.#unsynced });
    // nothing saved yet is no record yet
    const current = (await readIfThere(this.#path)) ?? head;
    if (current !== text) await writeAtomic(this.#path, text);
  }
}
