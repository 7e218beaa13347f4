import { createHash } from "node:crypto";
import {
  createReadStream,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
} from "node:fs";
import { basename, dirname, join, posix, resolve } from "node:path";
import { Refused, systemCode, UsageError } from "../core/errors.ts";

/** Where a file may land under `downloads/`, and where the one before goes. */

/** What `downloads` keeps for itself in its folder; no line may name these, in any case of letters. */
export const recordName = "saved.txt";
const oldFolder = "old";
/** Partial and temporary files; on the same file system as what they become. */
export const partialFolder = ".partial";
export const lockName = ".lock";

const reserved = new Set([recordName, oldFolder, partialFolder, lockName]);

/** What the record says of the file that is there. */
type Before = { sha256: string; version?: string | undefined } | undefined;

/** The folder that files land in. It need not be there yet; it may be a link to another disk. */
export function downloadsIn(dir: string): string {
  const folder = resolve(dir);
  const info = lstatSync(folder, ifThere);
  if (info === undefined) throw new UsageError(`${dir}: there is no such folder; name the one with manifest.txt`);
  if (info.isFile()) throw new UsageError(`${dir} is a file; name its folder, or use --manifest`);
  const root = join(realpathSync(folder), "downloads");
  const partial = join(root, partialFolder);
  // a stranger's repository can have a link there, and what it leads to would be written to, or removed
  if (lstatSync(partial, ifThere)?.isSymbolicLink()) throw new Refused(`${partial} is a link; remove it`);
  return lstatSync(root, ifThere) === undefined ? root : realpathSync(root);
}

const ifThere = { throwIfNoEntry: false } as const;

/**
 * Whether a path may be written in a manifest. Pure.
 * @throws {Refused} when it would leave the folder. @throws {UsageError} when it is merely wrong.
 */
export function checkPath(path: string): void {
  const wrong = (reason: string) => new UsageError(reason);
  if (path === "") throw wrong("no path; write URL PATH");
  if (/[\u0000-\u001f\u007f]/.test(path)) throw wrong("the path has a control character");
  if (path.includes("\ufffd")) throw wrong("the path is not UTF-8");
  if (path.startsWith("/") || /^[A-Za-z]:[\\/]/.test(path)) throw new Refused("the path is absolute");
  if (/(?:^|[\\/])\.\.(?:[\\/]|$)/.test(path)) throw new Refused("the path leaves the folder with ..");
  const parts = path.split("/");
  if (parts.some((part) => part === "" || part === "."))
    throw wrong("the path has an empty part or a dot; write it as dir/file");
  if (parts.some((part) => Buffer.byteLength(part) > 200)) throw wrong("a name in the path is longer than 200 bytes");
  if (reserved.has(twinKey(parts[0] ?? "")))
    throw wrong(`${parts[0]} is a name that downloads keeps for itself; choose another`);
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

/**
 * The size of the regular file at a path; undefined: there is nothing.
 * @throws {Refused} for a link in it or at its end. @throws {UsageError} for something else in the file's place.
 */
export function sizeAt(root: string, path: string): number | undefined {
  for (let slash = path.indexOf("/"); slash > 0; slash = path.indexOf("/", slash + 1)) {
    const folder = path.slice(0, slash);
    const there = lstatSync(join(root, folder), ifThere);
    if (there === undefined) return undefined;
    if (there.isSymbolicLink()) throw new Refused(`the path goes through a link (${folder})`);
    if (!there.isDirectory()) throw new UsageError(`${folder} is a file on the disk; move it away`);
  }
  const there = lstatSync(join(root, path), ifThere);
  if (there?.isSymbolicLink()) throw new Refused(`${path} is a link on the disk`);
  if (there && !there.isFile()) throw new UsageError(`${path} is not a regular file on the disk; move it away`);
  return there?.size;
}

/** The folder that files land in, and the folders inside it, made when they are first needed. */
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

  /**
   * Put the whole and checked file `temporary` at its entry's path. The one before is linked into `old/` first, and
   * then the new one is renamed over it: at every instant the final name holds one whole file, and the one before is
   * never without a name.
   * @param sha256 of the new file.
   * @returns same: the file there has these bytes, and stays; it goes to `old/` even so when its version was another.
   * old: where the one before is now, under the root.
   */
  async place(
    { path, version }: { path: string; version?: string },
    temporary: string,
    sha256: string,
    before: Before,
  ): Promise<{ same: boolean; old?: string }> {
    const target = this.fileAt(path);
    let old: string | undefined;
    if (lstatSync(target, ifThere) !== undefined) {
      const there = await hashFile(target);
      // a run that was killed after this very rename left the new file under the old record
      const isRecorded = before?.sha256 === there;
      if (there === sha256 && (!isRecorded || before?.version === version)) {
        rmSync(temporary);
        return { same: true };
      }
      old = await this.keepOld(path, there, before);
    }
    renameSync(temporary, target);
    return { same: false, ...(old === undefined ? {} : { old }) };
  }

  /**
   * Move what is at `path` into `old/`, and remove the folders above it that have become empty.
   * @returns where it is now, under the root; undefined: nothing was there.
   */
  async moveToOld(path: string, before: Before): Promise<string | undefined> {
    if (sizeAt(this.root, path) === undefined) return undefined;
    const target = this.fileAt(path);
    const old = await this.keepOld(path, await hashFile(target), before);
    rmSync(target, { force: true });
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) {
      if (readdirSync(join(this.root, folder)).length > 0) break;
      rmdirSync(join(this.root, folder));
    }
    return old;
  }

  /** Give the file at `path` a second name in `old/`, one that says its version or, for want of one, its content. */
  private async keepOld(path: string, sha256: string, before: Before): Promise<string> {
    const version = before?.sha256 === sha256 ? before.version : undefined;
    const byContent = `sha256-${sha256.slice(0, 12)}`;
    const marks = version === undefined ? [] : [version, `${version}.${byContent}`];
    for (const mark of [...marks, byContent, `sha256-${sha256}`]) {
      const name = join(oldFolder, oldPath(path, mark));
      // NAME_MAX of Linux, which a long name with a long version exceeds
      if (Buffer.byteLength(basename(name)) > 255) continue;
      const old = this.fileAt(name);
      const there = lstatSync(old, ifThere);
      if (there === undefined) {
        linkOrMove(this.fileAt(path), old);
        return name;
      }
      // an earlier try, or the same bytes under the same version: they are kept already
      if (there.isFile() && (await hashFile(old)) === sha256) return name;
    }
    throw new Error(`no free name in ${oldFolder}/ for ${path}`);
  }
}

function linkOrMove(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    // FAT and some network file systems have no hard links; there a crash may leave the final name empty
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS"].includes(systemCode(error) ?? "")) throw error;
    renameSync(from, to);
  }
}

/** The sha256 of a file's content, in hex. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
