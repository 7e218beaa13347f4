import { join } from "node:path";
import { Refused, UsageError } from "../core/errors.ts";
import { folderUrl } from "../web-folder/web-folder.ts";
import type { CurrentLine, VersionFile } from "../web-folder/version-file.ts";
import { assertThere, changeVersion, checkSigners, readVersion, writeVersion } from "./folder.ts";
import { type Archive, archivesIn, digestOf, signArchive } from "./archives.ts";
import type { Signer } from "./signer.ts";

/** Which release is current: VERSION signed again, as it was or with another archive. */

/** Sign a VERSION again, edited, with a new DATE and EXPIRES. */
async function editVersion(
  out: string,
  signers: readonly Signer[],
  expires: number | undefined,
  edit: (file: VersionFile) => Promise<VersionFile>,
): Promise<VersionFile> {
  return await changeVersion(out, signers, expires, async (next) => {
    checkSigners(next, signers);
    const file = await edit(next);
    if (file.keys) await signCurrent(out, file, signers);
    await writeVersion(out, file, signers);
    return file;
  });
}

/**
 * See that the current archives are signed by these keys: one that was added, or that stays when another is retired.
 * @throws {Refused} when an archive is not the one that VERSION names.
 */
export async function signCurrent(out: string, { current }: VersionFile, signers: readonly Signer[]): Promise<void> {
  for (const { file, sha256 } of current) {
    if (sha256 !== undefined && (await digestOf(join(out, file))).sha256 !== sha256)
      throw new Refused(`${join(out, file)} is not the archive that VERSION names by its SHA256`);
    await signArchive(out, file, signers, { keepOthers: true });
  }
}

/**
 * `release refresh`: the same VERSION with a new DATE and EXPIRES.
 * @param server where clients look from now on; empty: where they do.
 * @throws {UsageError} when that is not an address that clients follow.
 */
export async function refresh(
  out: string,
  signers: readonly Signer[],
  expires?: number,
  server?: string,
): Promise<VersionFile> {
  const address = server ? folderUrl(server) : undefined;
  if (address !== undefined && !address.startsWith("http"))
    throw new UsageError(`"${server}": clients follow an https or http address`);
  return await editVersion(out, signers, expires, async ({ server: before, ...file }) => {
    const next = server === undefined ? before : address;
    return next === undefined ? file : { ...file, server: next };
  });
}

/**
 * `release withdraw VERSION`: wherever it is current, the archive signed before it is current again. Clients go back,
 * since the new VERSION is signed later. The withdrawn archive stays, so that its version never gets other bytes.
 * @throws {UsageError} when it is not current, or nothing is there to go back to.
 */
export async function withdraw(
  out: string,
  version: string,
  signers: readonly Signer[],
  to?: string,
): Promise<VersionFile> {
  return await editVersion(out, signers, undefined, async (before) => {
    const { release: _, ...file } = before;
    if (!file.current.some((line) => line.version === version))
      throw new UsageError(
        `${version} is not current in ${out}; current is ${file.current.map((line) => line.version).join(", ")}`,
      );
    const archives = await archivesIn(out);
    const current = file.current.map(async (line) => {
      if (line.version !== version) return line;
      const earlier = archiveBefore(line, archives, to);
      if (!earlier)
        throw new UsageError(
          `there is no ${to ?? "older release"} of ${line.file} in ${out} to go back to; pack another version instead`,
        );
      const digest = await digestOf(join(out, earlier.file));
      const { index: _index, ...kept } = line;
      return { ...kept, version: earlier.version, file: earlier.file, ...digest };
    });
    return { ...file, current: await Promise.all(current) };
  });
}

/**
 * The archive of the same app and platform that was signed before that in `line`; with `to`, the one of that version.
 * @param archives the newest first.
 */
function archiveBefore(line: CurrentLine, archives: readonly Archive[], to: string | undefined): Archive | undefined {
  const at = archives.findIndex(({ file }) => file === line.file);
  const own = archives[at];
  return archives.find(
    ({ app, platform, version, signed }, place) =>
      app === own?.app &&
      platform === own?.platform &&
      version !== line.version &&
      signed !== undefined &&
      (to === undefined ? place > at || own?.signed === undefined : version === to),
  );
}

/**
 * `release list`: the archives, the newest first, and which are current.
 * @throws {UsageError} when there is no such folder.
 */
export async function list(out: string): Promise<(Archive & { current: boolean })[]> {
  await assertThere(out);
  const named = new Set((await readVersion(out))?.current.map(({ file }) => file));
  const archives = await archivesIn(out);
  return archives.map((archive) => ({ ...archive, current: named.has(archive.file) }));
}
