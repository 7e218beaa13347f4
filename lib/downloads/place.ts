import { createHash } from "node:crypto";
import { createReadStream, linkSync, lstatSync, renameSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { systemCode } from "../core/errors.ts";
import type { Entry } from "./manifest.ts";
import { contentMark, type Folders, oldFolder, oldPath } from "./paths.ts";

/**
 * Files into their places. The one before is linked into `old/` first, and then the new one is renamed
 * over it: at every instant the final name holds one whole file, and the one before is never without a name.
 */

/** What the record says of the file that is there. */
type Before = { sha256: string; version?: string } | undefined;

/**
 * Put the whole and checked file `temporary` at its entry's path.
 * @param sha256 of the new file.
 * @returns same: the file there has these bytes, and stays; it goes to `old/` even so when its version was another.
 * old: where the one before is now, under the root.
 */
export async function placeFile(
  folders: Folders,
  { path, version }: Entry,
  temporary: string,
  sha256: string,
  before: Before,
): Promise<{ same: boolean; old?: string }> {
  const target = folders.fileAt(path);
  let old: string | undefined;
  if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) {
    const there = await hashFile(target);
    // a run that was killed after this very rename left the new file under the old record
    const isRecorded = before?.sha256 === there;
    if (there === sha256 && (!isRecorded || before?.version === version)) {
      rmSync(temporary);
      return { same: true };
    }
    old = await keepOld(folders, path, there, isRecorded ? before?.version : undefined);
  }
  renameSync(temporary, target);
  return { same: false, ...(old === undefined ? {} : { old }) };
}

/**
 * Move what is at `path` into `old/`.
 * @returns where it is now, under the root.
 */
export async function moveToOld(folders: Folders, path: string, before: Before): Promise<string> {
  const target = folders.fileAt(path);
  const there = await hashFile(target);
  const version = before?.sha256 === there ? before.version : undefined;
  const old = await keepOld(folders, path, there, version);
  rmSync(target, { force: true });
  return old;
}

/** Give the file at `path` a second name in `old/`, one that says its version or, for want of one, its content. */
async function keepOld(
  folders: Folders,
  path: string,
  sha256: string,
  version: string | undefined,
): Promise<string> {
  const byContent = contentMark(sha256);
  const marks = version === undefined ? [] : [version, `${version}.${byContent}`];
  for (const mark of [...marks, byContent, `${byContent}-${sha256.slice(12)}`]) {
    const name = join(oldFolder, oldPath(path, mark));
    // NAME_MAX of Linux, which a long name with a long version exceeds
    if (Buffer.byteLength(basename(name)) > 255) continue;
    const old = folders.fileAt(name);
    const there = lstatSync(old, { throwIfNoEntry: false });
    if (there === undefined) {
      linkOrMove(folders.fileAt(path), old);
      return name;
    }
    // an earlier try, or the same bytes under the same version: they are kept already
    if (there.isFile() && (await hashFile(old)) === sha256) return name;
  }
  throw new Error(`no free name in ${oldFolder}/ for ${path}`);
}

function linkOrMove(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    // FAT and some network file systems have no hard links; there a crash may leave the final name empty
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK", "ENOSYS"].includes(systemCode(error) ?? ""))
      throw error;
    renameSync(from, to);
  }
}

/** The sha256 of a file's content, in hex. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}
