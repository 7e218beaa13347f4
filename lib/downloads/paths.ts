import { lstatSync, mkdirSync, readdirSync, realpathSync, rmdirSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { Refused } from "../core/errors.ts";

/** Where a file may land under `downloads/`, and where the one before goes. */

/** What `downloads` keeps for itself in its folder; no line may name these, in any case of letters. */
export const recordName = "saved.txt";
export const oldFolder = "old";
/** Partial and temporary files; on the same file system as what they become. */
export const partialFolder = ".partial";
export const lockName = ".lock";
export const journalName = ".saved.journal";

const reserved = new Set([recordName, oldFolder, partialFolder, lockName, journalName]);

export interface PathFault {
  /** true: the path would leave the folder, which is refused for safety. */
  unsafe: boolean;
  reason: string;
}

/** What is wrong with a path as it is written in the manifest; undefined when it may be used. Pure. */
export function pathFault(path: string): PathFault | undefined {
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

const ifThere = { throwIfNoEntry: false } as const;

/**
 * What is at a path: the size of a regular file, undefined for nothing, or why the path cannot be used on this
 * disk: a link in it or at its end, or a folder where the file should be.
 */
export function statEntry(root: string, path: string): number | undefined | PathFault {
  for (let slash = path.indexOf("/"); slash > 0; slash = path.indexOf("/", slash + 1)) {
    const folder = path.slice(0, slash);
    const there = lstatSync(join(root, folder), ifThere);
    if (there === undefined) return undefined;
    if (there.isSymbolicLink())
      return { unsafe: true, reason: `the path goes through a link (${folder})` };
    if (!there.isDirectory())
      return { unsafe: false, reason: `${folder} is a file on the disk; move it away` };
  }
  const there = lstatSync(join(root, path), ifThere);
  if (there === undefined) return undefined;
  if (there.isFile()) return there.size;
  if (there.isSymbolicLink()) return { unsafe: true, reason: `${path} is a link on the disk` };
  return { unsafe: false, reason: `${path} is not a regular file on the disk; move it away` };
}

/** Whether a regular file is at a path that may be used. */
export function isFileAt(root: string, path: string): boolean {
  return typeof statEntry(root, path) === "number";
}

/** The folders that a run writes into, made when they are first needed. */
export class Folders {
  readonly root: string;
  /** What has to be flushed before the record speaks of the names in it. */
  readonly written = new Set<string>();

  /** @param root an already resolved folder. */
  constructor(root: string) {
    this.root = root;
  }

  /**
   * The full form of `path`, whose folder is there and sure to be inside.
   * @throws {Refused} when somebody has put a link there since the plan.
   */
  fileAt(path: string): string {
    const file = join(this.root, path);
    const folder = dirname(file);
    if (this.written.has(folder)) return file;
    mkdirSync(folder, { recursive: true });
    if (realpathSync(folder) !== folder)
      throw new Refused(`${dirname(path)} has become a link; nothing was written there`);
    this.written.add(folder);
    return file;
  }
}

/** Remove the folders above `path` that have become empty. */
export function removeEmptyFolders(root: string, path: string): void {
  for (let folder = posix.dirname(path); folder !== "."; folder = posix.dirname(folder)) {
    if (readdirSync(join(root, folder)).length > 0) return;
    rmdirSync(join(root, folder));
  }
}
