import { lstatSync, mkdirSync, readdirSync, realpathSync, rmdirSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { Refused, systemCode } from "../core/errors.ts";

/** Where a file may land under `downloads/`, and where the one before goes. */

/** What `downloads` keeps for itself in its folder; no line may name these, in any case of letters. */
export const recordName = "saved.txt";
export const oldFolder = "old";
/** Partial and temporary files; on the same file system as what they become. */
export const partialFolder = ".partial";
export const lockName = ".lock";
export const journalName = ".saved.journal";

const reserved = new Set([recordName, oldFolder, partialFolder, lockName, journalName]);

/** Most paths to their end, all of which may be used: seen at a glance. A part of regular expressions. */
export const plainPath =
  "(?!(?:[sS][aA][vV][eE][dD]\\.[tT][xX][tT]|[oO][lL][dD])(?:/|$))" +
  "(?:[A-Za-z0-9_-][A-Za-z0-9 ._-]{0,99}/)*[A-Za-z0-9_-][A-Za-z0-9 ._-]{0,99}";
const isPlainPath = new RegExp(`^${plainPath}$`);

export interface PathFault {
  /** true: the path would leave the folder, which is refused for safety. */
  unsafe: boolean;
  reason: string;
}

/** What is wrong with a path as it is written in the manifest; undefined when it may be used. Pure. */
export function pathFault(path: string): PathFault | undefined {
  if (isPlainPath.test(path)) return undefined;
  const wrong = (reason: string) => ({ unsafe: false, reason });
  const unsafe = (reason: string) => ({ unsafe: true, reason });
  if (path === "") return wrong("no path; write URL PATH");
  if (/[\u0000-\u001f\u007f]/.test(path)) return wrong("the path has a control character");
  if (path.includes("\ufffd")) return wrong("the path is not UTF-8");
  if (path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path)) return unsafe("the path is absolute");
  const parts = path.split("/");
  if (parts.includes("..") || /(?:^|[\\/])\.\.(?:[\\/]|$)/.test(path))
    return unsafe("the path leaves the folder with ..");
  if (parts.some((part) => part === "" || part === "."))
    return wrong("the path has an empty part or a dot; write it as dir/file");
  if (parts.some((part) => Buffer.byteLength(part) > 200))
    return wrong("a name in the path is longer than 200 bytes");
  if (reserved.has(twinKey(parts[0] ?? "")))
    return wrong(`${parts[0]} is a name that downloads keeps for itself; choose another`);
  return undefined;
}

/** Equal for two paths that some file system takes for one: by case, or by Unicode form. */
export function twinKey(path: string): string {
  if (/^[\u0000-\u007f]*$/.test(path)) return path.toLowerCase();
  return path.normalize("NFC").toUpperCase().toLowerCase().normalize("NFC");
}

/** `dir/file.2.ext` for version `2` of `dir/file.ext`: where the one before goes inside `old/`. Pure. */
export function oldPath(path: string, mark: string): string {
  const { dir, name, ext } = posix.parse(path);
  return posix.join(dir, `${name}.${mark}${ext}`);
}

/** The mark of an old file whose version is unknown or taken: the start of its content's sha256. */
export function contentMark(sha256: string): string {
  return `sha256-${sha256.slice(0, 12)}`;
}

/** What stands at a path: the size of a plain file, nothing, or why the path cannot be used on this disk. */
export type Found = number | undefined | PathFault;

const ifThere = { throwIfNoEntry: false } as const;

/**
 * Look at a path: for a link in it or at its end, or a folder where the file should be.
 * `folders` remembers what was looked at, so that a thousand files of one folder cost one look each.
 */
export function lookAt(
  root: string,
  path: string,
  folders: Map<string, PathFault | undefined>,
): Found {
  const slash = path.lastIndexOf("/");
  const fault = slash < 0 ? undefined : folderFault(root, path.slice(0, slash), folders);
  if (fault) return fault;
  const there = lstatSync(`${root}/${path}`, ifThere);
  if (there === undefined) return undefined;
  if (there.isFile()) return there.size;
  if (there.isSymbolicLink()) return { unsafe: true, reason: `${path} is a link on the disk` };
  return { unsafe: false, reason: `${path} is no plain file on the disk; move it away` };
}

/**
 * Look at many paths. Each folder is listed, and only the names in it are looked at one by one: the first run
 * of a long list finds none. A file system that takes two spellings for one name may show a file here as missing;
 * it is then fetched, and what stands in its place is kept (place.ts).
 */
export function lookAtAll(
  root: string,
  paths: Iterable<string>,
): Map<string, Exclude<Found, undefined>> {
  const all = new Map<string, Exclude<Found, undefined>>();
  const folders = new Map<string, PathFault | undefined>();
  const lists = new Map<string, Set<string>>();
  for (const path of paths) {
    const slash = path.lastIndexOf("/");
    const folder = path.slice(0, Math.max(0, slash));
    const fault = slash < 0 ? undefined : folderFault(root, folder, folders);
    let names = lists.get(folder);
    if (!fault && !names) lists.set(folder, (names = namesIn(join(root, folder))));
    if (!fault && !names?.has(path.slice(slash + 1))) continue;
    const found = fault ?? lookAt(root, path, folders);
    if (found !== undefined) all.set(path, found);
  }
  return all;
}

function namesIn(folder: string): Set<string> {
  try {
    return new Set(readdirSync(folder));
  } catch (error) {
    if (systemCode(error) === "ENOENT") return new Set();
    throw error;
  }
}

function folderFault(
  root: string,
  folder: string,
  folders: Map<string, PathFault | undefined>,
): PathFault | undefined {
  if (folders.has(folder)) return folders.get(folder);
  const parent = posix.dirname(folder);
  let fault = parent === "." ? undefined : folderFault(root, parent, folders);
  if (!fault) {
    const there = lstatSync(join(root, folder), { throwIfNoEntry: false });
    if (there?.isSymbolicLink())
      fault = { unsafe: true, reason: `the path goes through a link (${folder})` };
    else if (there && !there.isDirectory())
      fault = { unsafe: false, reason: `${folder} is a file on the disk; move it away` };
  }
  folders.set(folder, fault);
  return fault;
}

/**
 * The folders that a run writes into, made when they are first wanted. Each must lie where it seems to:
 * between the plan and this moment somebody may have put a link there.
 */
export class Folders {
  readonly root: string;
  readonly #made = new Set<string>();

  /** @param root an already resolved folder. */
  constructor(root: string) {
    this.root = root;
  }

  /** The folder of `path`, there and sure to be inside. */
  of(path: string): string {
    const slash = path.lastIndexOf("/");
    const folder = slash < 0 ? this.root : join(this.root, path.slice(0, slash));
    if (this.#made.has(folder)) return folder;
    mkdirSync(folder, { recursive: true });
    if (realpathSync(folder) !== folder)
      throw new Refused(`${dirname(path)} has become a link; nothing was written there`);
    this.#made.add(folder);
    return folder;
  }
}

/** Remove the folders above `path` that have become empty. */
export function removeEmptyFolders(root: string, path: string): void {
  for (let folder = posix.dirname(path); folder !== "."; folder = posix.dirname(folder)) {
    if (readdirSync(join(root, folder)).length > 0) return;
    rmdirSync(join(root, folder));
  }
}
