import { type BigIntStats, lstatSync, readdirSync, realpathSync, statSync } from "node:fs";
import { sep } from "node:path";
import { Refused, systemCode, UsageError } from "../core/errors.ts";

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
 * What the file system says of a file's content: as long as it is equal, the content is (content.ts says when
 * that can be trusted). A program can set back the size and the modification time, but not the change time.
 */
export type Stamp = string;

/** The stamp: size, modification time, change time (both in ns), inode. */
export function stampOf(stat: BigIntStats): Stamp {
  return `${stat.size} ${stat.mtimeNs} ${stat.ctimeNs} ${stat.ino}`;
}

/** The change time in a stamp, in ns since 1970. */
export function changeTimeOf(stamp: Stamp): bigint {
  return BigInt(stamp.split(" ")[2] ?? "0");
}

/**
 * All files of a folder, in the order of their paths. Links are followed as long as they stay inside.
 * @throws {UsageError} when there is no such folder.
 * @throws {Refused} when a link leads out of the folder, in a circle or nowhere, or a name or kind of file cannot be published.
 */
export function scanFolder(root: string): LocalFile[] {
  let real: string;
  try {
    real = realpathSync(root);
    if (!statSync(real).isDirectory()) throw new UsageError(`${root} is no folder; mend from:`);
  } catch (error) {
    if (systemCode(error) !== "ENOENT") throw error;
    throw new UsageError(`there is no folder ${root}; build first, or mend from: in uploads.yml`);
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
        const place = target === file && above.length === 0 ? file : realpathSync(target);
        if (above.includes(place) || place === real)
          problems.push(`${shown}: the link leads back to a folder that holds it; remove it`);
        else visit(file, itsPath, [...above, place]);
      } else if (stat.isFile()) {
        const executable = (stat.mode & 0o100n) !== 0n;
        files.push({
          ...{ path: itsPath, file, size: Number(stat.size), executable, stamp: stampOf(stat) },
        });
      } else {
        problems.push(`${shown}: neither a file nor a folder; remove it`);
      }
    }
  };
  visit(real, "", []);
  if (problems.length > 0)
    throw new Refused(problems.map((problem) => `cannot publish ${problem}`).join("\n"));
  return files.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

/** Which of the files are no longer what they were when the folder was looked at. */
export function changedSince(files: readonly LocalFile[]): string[] {
  const isChanged = ({ file, stamp }: LocalFile) => {
    try {
      return stampOf(statSync(file, { bigint: true })) !== stamp;
    } catch {
      return true;
    }
  };
  return files.filter(isChanged).map(({ path }) => path);
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
