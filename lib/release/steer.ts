import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import type { CurrentLine, VersionFile } from "../web-folder/version-file.ts";
import {
  archivesIn,
  type Archive,
  defaultExpires,
  digestOf,
  lockFolder,
  nextDate,
  readVersion,
  writeVersion,
} from "./folder.ts";
import type { Signer } from "./signer.ts";

/** Steering what is current in a web folder that exists: sign it anew, list it, take a version back. */

async function change(
  out: string,
  signer: Signer,
  expires: number | undefined,
  edit: (file: VersionFile) => Promise<CurrentLine[]> | CurrentLine[],
): Promise<VersionFile> {
  const missing = new UsageError(`${out} has no VERSION; make it with release pack`);
  if (!(await exists(join(out, "VERSION")))) throw missing;
  const lock = await lockFolder(out);
  try {
    const before = await readVersion(out, signer);
    if (!before) throw missing;
    const date = nextDate(before.date);
    // what was agreed on before goes on, unless told otherwise
    const span =
      expires ??
      (before.expires && before.date
        ? before.expires.getTime() - before.date.getTime()
        : defaultExpires);
    const file = {
      ...before,
      current: await edit(before),
      date,
      expires: new Date(date.getTime() + span),
    };
    await writeVersion(out, file, signer);
    return file;
  } finally {
    lock.release();
  }
}

/** `release refresh`: the same VERSION with a new DATE and EXPIRES. */
export async function refresh(out: string, signer: Signer, expires?: number): Promise<VersionFile> {
  return await change(out, signer, expires, (file) => file.current);
}

/**
 * `release withdraw VERSION`: wherever it is current, the archive signed before it is current again. Clients go back,
 * since the new VERSION is signed later. The withdrawn archive stays, so that its version is never given other bytes.
 * @throws {UsageError} when it is not current, or nothing is there to go back to.
 */
export async function withdraw(
  out: string,
  version: string,
  signer: Signer,
  to?: string,
): Promise<VersionFile> {
  const archives = await archivesIn(out);
  return await change(out, signer, undefined, async (file) => {
    if (!file.current.some((line) => line.version === version))
      throw new UsageError(
        `${version} is not current in ${out}; current is ${file.current.map((line) => line.version).join(", ")}`,
      );
    const lines: CurrentLine[] = [];
    for (const line of file.current) {
      if (line.version !== version) {
        lines.push(line);
        continue;
      }
      const own = archives.find((each) => each.file === line.file);
      const earlier = archives.find(
        (each) =>
          each.app === own?.app &&
          each.platform === own?.platform &&
          each.version !== version &&
          each.signed !== undefined &&
          (to === undefined ? each.signed <= (own?.signed ?? new Date()) : each.version === to),
      );
      if (!earlier)
        throw new UsageError(
          `there is no ${to ?? "older release"} of ${line.file} in ${out} to go back to; pack another version instead`,
        );
      const { platform } = line;
      lines.push({
        version: earlier.version,
        file: earlier.file,
        ...(platform === undefined ? {} : { platform }),
        ...(await digestOf(join(out, earlier.file))),
      });
    }
    // it named the one that is withdrawn
    delete file.release;
    return lines;
  });
}

/** `release list`: the archives, the newest first, and which are current. */
export async function list(out: string): Promise<(Archive & { current: boolean })[]> {
  const file = await readVersion(out);
  const named = new Set(file?.current.map((line) => line.file));
  return (await archivesIn(out)).map((archive) => ({
    ...archive,
    current: named.has(archive.file),
  }));
}
