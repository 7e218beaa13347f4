import { type BigIntStats, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { sep } from "node:path";
import { Refused, systemCode, UsageError } from "../core/errors.ts";

/** The files of the folder that is published, and by what it is noticed that one has changed. */

/** A file that is to be published. */
export interface LocalFile {
  /** Within the folder, parts joined by `/`. */
  path: string;
  /** Where it is read, absolute. */
  file: string;
  /** Bytes. */
  size: number;
  executable: boolean;
  stamp: Stamp;
}

/**
 * All files of a folder, in the order of their paths. Links are followed as long as they stay inside.
 * @throws {UsageError} when there is no such folder.
 * @throws {Refused} a link leads out of the folder, in a circle or nowhere, a name or kind of file cannot be published.
 */
export function scanFolder(root: string): LocalFile[] {
  let real: string;
  try {
    real = realpathSync(root);
    if (!statSync(real).isDirectory()) throw new UsageError(`${root} is not a folder; correct from:`);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new UsageError(`there is no folder ${root}; build first, or correct from: in uploads.yml`);
  }
  const files: LocalFile[] = [];
  const problems: string[] = [];
  // sync: for thousands of small calls the way through the thread pool costs several times the work
  const visit = (folder: string, path: string, above: readonly string[]) => {
    for (const name of readdirSync(folder)) {
      const file = `${folder}${sep}${name}`;
      const itsPath = path === "" ? name : `${path}/${name}`;
      const shown = JSON.stringify(itsPath);
      if (name.includes("\ufffd")) {
        problems.push(`${shown}: the name is not UTF-8; rename it`);
        continue;
      }
      let stat = lstatSync(file, { bigint: true });
      let target = file;
      if (stat.isSymbolicLink()) {
        const followed = follow(file, real);
        if (typeof followed === "string") {
          problems.push(`${shown}: ${followed}`);
          continue;
        }
        ({ stat, target } = followed);
      }
      if (stat.isDirectory()) {
        const place = realpathSync(target);
        if (above.includes(place) || place === real)
          problems.push(`${shown}: the link leads back to a folder that holds it; remove it`);
        else visit(file, itsPath, [...above, place]);
      } else if (stat.isFile()) {
        const executable = (stat.mode & 0o100n) !== 0n;
        files.push({ path: itsPath, file, size: Number(stat.size), executable, stamp: stampOf(stat) });
      } else {
        problems.push(`${shown}: neither a file nor a folder; remove it`);
      }
    }
  };
  visit(real, "", []);
  if (problems.length > 0) throw new Refused(problems.map((problem) => `cannot publish ${problem}`).join("\n"));
  return files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

/** The first file that is no longer what it was when the folder was scanned. */
export function changedSince(files: readonly LocalFile[]): LocalFile | undefined {
  return files.find(({ file, stamp }) => {
    const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
    return !stat || stampOf(stat) !== stamp;
  });
}

function follow(link: string, root: string): { stat: BigIntStats; target: string } | string {
  let target: string;
  try {
    target = realpathSync(link);
  } catch (error) {
    return systemCode(error) === "ELOOP"
      ? "the link leads in a circle; remove it"
      : "the link leads nowhere; remove it";
  }
  if (target !== root && !target.startsWith(root + sep))
    return `the link leads out of the folder, to ${target}; copy what it names, or remove it`;
  return { stat: statSync(target, { bigint: true }), target };
}

/**
 * What the file system says of a file's content: as long as it is equal, the content is. A program can set back
 * the size and the modification time, but not the change time.
 *
 * But two changes within one tick of the file system's clock leave one change time: a stamp proves nothing about
 * a content that was read within the tick of its change (git calls such files racy: racy-git.txt).
 */
export type Stamp = string;

/** The stamp: size, modification time, change time (both in ns), inode. */
export function stampOf(stat: BigIntStats): Stamp {
  return `${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.ino}`;
}

/** The change time in a stamp, in ns since 1970. */
function changeTimeOf(stamp: Stamp): bigint {
  return BigInt(stamp.split(" ")[2] ?? "0");
}

/** In ms: 10 at most on Linux; a second or two where times are whole seconds. */
export function tickOf(stamp: Stamp): number {
  return changeTimeOf(stamp) % 1_000_000_000n === 0n ? 2000 : 20;
}

/** Whether a file with this stamp may have changed within this tick. */
export function isFresh(stamp: Stamp, now = Date.now()): boolean {
  const age = now - Number(changeTimeOf(stamp) / 1_000_000n);
  return Math.abs(age) < tickOf(stamp);
}

/** Whether hashes that were made at `when` still stand for a file with this stamp. */
export function isProof(stamp: Stamp, when: number): boolean {
  // a time in the future says that one of the clocks is wrong: the stamp is then no proof either
  return !isFresh(stamp, when) && Number(changeTimeOf(stamp) / 1_000_000n) < when;
}
