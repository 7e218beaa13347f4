import { lstatSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import type { Terminal } from "../core/terminal.ts";
import { Failure, Refused, systemCode, UsageError } from "../core/errors.ts";
import { reasonOf } from "../fetch/fetch.ts";
import { readIfThere, removeStaleTemporaries } from "../files/files.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { parseCloudinary } from "./cloudinary.ts";
import {
  clashes,
  type Entry,
  type Fault,
  formatEntry,
  parseManifest,
  shownUrl,
  throwFaults,
} from "./manifest.ts";
import { Folders, journalName, lockName, partialFolder, statEntry } from "./paths.ts";
import { makePlan, type Manifest } from "./plan.ts";
import { readRecord, writeRecord } from "./record.ts";
import { Report } from "./report.ts";
import { Work, type WorkOptions } from "./work.ts";

/** Which manifest, and for which folder. */
export interface ManifestOptions {
  dir: string;
  /** A manifest in place of manifest.txt and cloudinary.txt; `-`: standard input. */
  manifest?: string | undefined;
}

/** What the user asked for. */
export interface DownloadsOptions extends ManifestOptions, WorkOptions {
  /** Hash what is there again, and ask the servers for newer files. */
  check: boolean;
  /** Fetch everything again. */
  force: boolean;
  /** Move what is no longer listed to `old/`. */
  prune: boolean;
  /** Wait for another run in the same folder to end. */
  wait: boolean;
}

/**
 * Fetch what the manifest lists and what is not there yet.
 * @returns whether every file is as it should be.
 * @throws {UsageError | Refused} for wrong lines; then nothing was touched.
 * @throws {Busy} when another run holds the folder.
 * @throws {Failure} when the folder or the record cannot be written.
 */
export async function downloads(options: DownloadsOptions, terminal: Terminal): Promise<boolean> {
  const { wait, signal, prune } = options;
  const root = rootOf(options.dir);
  const stdin = await readStdin(options);
  // a wrong manifest is refused, and nothing is made where there is none: not even the lock file
  if (!(await readLists(options, root, stdin))) return nothingListed(options, terminal);
  let lock: Lock | undefined;
  try {
    lock = await acquireLock(join(root, lockName), { what: "downloads", wait, signal });
    for (const name of [journalName, partialFolder]) refuseLink(root, name);
    await removeStaleTemporaries(root);
    const manifest = await readLists(options, root, stdin);
    if (!manifest) return nothingListed(options, terminal);
    const record = await readRecord(root);
    const plan = makePlan(manifest, record, options);

    const report = new Report(terminal);
    if (record.wrong.length > 0) report.damaged(record.wrong);
    const folders = new Folders(root);
    const work = new Work(folders, record, options, report);
    await work.obtainAll(plan.steps);
    if (prune) await work.moveUnlisted(plan.unlisted);

    await writeRecord(root, record, folders.written);
    return report.end();
  } catch (error) {
    if (systemCode(error) === undefined || signal.aborted) throw error;
    // not a file's own failure: the folder itself cannot be written, or the record cannot
    const { path = root } = error as { path?: string };
    throw new Failure(
      `${path}: ${reasonOf(error)}; make room or fix its permissions, and run again`,
    );
  } finally {
    lock?.release();
  }
}

/** `--print`: the manifest that both files stand for. Nothing is fetched. */
export async function printManifest(options: ManifestOptions, terminal: Terminal): Promise<void> {
  const manifest = await readLists(options, rootOf(options.dir), await readStdin(options));
  for (const entry of manifest?.entries ?? []) {
    terminal.print(formatEntry(entry));
    const { where, url, path, version, sha256 } = entry;
    terminal.printJson({ where, url: shownUrl(url), path, version, sha256 });
  }
}

/** @throws {Refused} for a link: a stranger's repository can have one there, and what it leads to would be written to, or removed. */
function refuseLink(root: string, name: string): void {
  if (lstatSync(join(root, name), { throwIfNoEntry: false })?.isSymbolicLink())
    throw new Refused(`${join(root, name)} is a link; remove it`);
}

/** The folder that files land in. It need not be there yet; it may be a link to another disk. */
function rootOf(dir: string): string {
  const folder = resolve(dir);
  const info = lstatSync(folder, { throwIfNoEntry: false });
  if (info === undefined)
    throw new UsageError(`${dir}: there is no such folder; name the one with manifest.txt`);
  if (info.isFile()) throw new UsageError(`${dir} is a file; name its folder, or use --manifest`);
  const root = join(realpathSync(folder), "downloads");
  return lstatSync(root, { throwIfNoEntry: false }) === undefined ? root : realpathSync(root);
}

/** No list at all means that nothing is known, rather than that nothing is wanted. */
function nothingListed({ dir, prune }: DownloadsOptions, terminal: Terminal): true {
  if (prune)
    throw new UsageError(
      `${dir}: no manifest.txt, so --prune would empty downloads/; name one with --manifest`,
    );
  terminal.note("nothing to do: there is no manifest.txt and no cloudinary.txt");
  return true;
}

/** Standard input can be read only once. */
async function readStdin({ manifest }: ManifestOptions): Promise<string | undefined> {
  return manifest === "-" ? await text(process.stdin) : undefined;
}

/**
 * All that is wanted, from manifest.txt and cloudinary.txt or the one manifest in their place, and what of it is there.
 * @returns undefined when there is no list at all.
 * @throws {UsageError | Refused} with every wrong line of both files.
 */
export async function readLists(
  { dir, manifest }: ManifestOptions,
  root: string,
  stdin?: string,
): Promise<Manifest | undefined> {
  const lists: { entries: Entry[]; faults: Fault[] }[] = [];
  if (stdin !== undefined) lists.push(parseManifest(stdin, "stdin"));
  else if (manifest !== undefined) {
    const listed = await readList(manifest);
    if (listed === undefined)
      throw new UsageError(`${manifest}: there is no such file; name the manifest`);
    lists.push(parseManifest(listed, manifest));
  } else {
    for (const [name, parse] of [
      ["manifest.txt", parseManifest],
      ["cloudinary.txt", parseCloudinary],
    ] as const) {
      const listed = await readList(join(dir, name));
      if (listed !== undefined) lists.push(parse(listed, name));
    }
  }
  if (lists.length === 0) return undefined;
  const entries = lists.flatMap((list) => list.entries);
  const faults = [...lists.flatMap((list) => list.faults), ...clashes(entries)];
  const sizes = new Map<string, number>();
  for (const { where, path } of entries) {
    const there = statEntry(root, path);
    if (typeof there === "number") sizes.set(path, there);
    else if (there !== undefined) faults.push({ where, ...there });
  }
  throwFaults(faults);
  return { entries, sizes };
}

async function readList(path: string): Promise<string | undefined> {
  try {
    return await readIfThere(path);
  } catch (error) {
    if (systemCode(error) === "EISDIR") throw new UsageError(`${path}: is a folder; name a file`);
    throw new UsageError(`${path}: cannot be read (${systemCode(error)}); fix its permissions`);
  }
}
