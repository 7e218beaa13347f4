import { linkSync, lstatSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { systemCode } from "../core/errors.ts";
import { hashFile } from "./hash.ts";
import { contentMark, type Folders, oldFolder, oldPath } from "./paths.ts";
import type { Saved } from "./record.ts";

/**
 * Files into their places. The one before is linked into `old/` first, and then the new one is renamed
 * over it: at every instant the final name holds one whole file, and the one before is never without a name.
 */

export interface Placed {
  /** Where the one before is now, under the root; undefined when there was none. */
  moved?: string;
  /** The folders whose entries changed, to be flushed before the record says so. */
  touched: string[];
}

/**
 * Put the whole and checked file `temporary` at `path`.
 * @param sha256 of the new file.
 * @param before what the record says of the file that stands there.
 * @param version of the new file: the one before is kept even when its bytes are the same, if its version was another.
 */
export async function placeFile(
  folders: Folders,
  path: string,
  temporary: string,
  sha256: string,
  version: string | undefined,
  before: Saved | undefined,
): Promise<Placed & { same: boolean }> {
  const target = join(folders.root, path);
  const touched = [folders.of(path)];
  let moved: string | undefined;
  if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) {
    const there = await hashFile(target);
    // a run that was killed after this very rename left the new file under the old record
    const isRecorded = before?.sha256 === there;
    if (there === sha256 && (!isRecorded || before?.version === version)) {
      rmSync(temporary);
      return { touched: [], same: true };
    }
    const kept = await keepOld(folders, path, there, isRecorded ? before?.version : undefined);
    moved = kept.moved;
    touched.push(...kept.touched);
  }
  renameSync(temporary, target);
  return { ...(moved === undefined ? {} : { moved }), touched, same: false };
}

/** Move what stands at `path` into `old/`. */
export async function moveToOld(
  folders: Folders,
  path: string,
  before: Saved | undefined,
): Promise<Placed> {
  const { root } = folders;
  const there = await hashFile(join(root, path));
  const version = before?.sha256 === there ? before.version : undefined;
  const kept = await keepOld(folders, path, there, version);
  rmSync(join(root, path), { force: true });
  return { moved: kept.moved, touched: [...kept.touched, folders.of(path)] };
}

/** Give the file at `path` a second name in `old/`, one that says its version or, for want of one, its content. */
async function keepOld(
  folders: Folders,
  path: string,
  sha256: string,
  version: string | undefined,
): Promise<{ moved: string; touched: string[] }> {
  const { root } = folders;
  const marks = version === undefined ? [] : [version, `${version}.${contentMark(sha256)}`];
  const byContent = contentMark(sha256);
  for (const mark of [...marks, byContent, `${byContent}-${sha256.slice(12)}`]) {
    const name = join(oldFolder, oldPath(path, mark));
    const folder = folders.of(name);
    const there = lstatSync(join(root, name), { throwIfNoEntry: false });
    if (there === undefined) {
      linkOrMove(join(root, path), join(root, name));
      return { moved: name, touched: [folder] };
    }
    // an earlier try, or the same bytes under the same version: they are kept already
    if (there.isFile() && (await hashFile(join(root, name))) === sha256)
      return { moved: name, touched: [] };
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
