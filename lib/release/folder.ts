import { createHash } from "node:crypto";
import { createReadStream, rmSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Refused, UsageError } from "../core/errors.ts";
import { exists, readIfThere, writeAtomic } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { armor, fingerprintOf, mergeKeys, readPublicKeys } from "../openpgp/keys.ts";
import { SignatureRefused, Signatures } from "../openpgp/verify.ts";
import {
  type CurrentLine,
  formatVersionFile,
  parseVersionFile,
  readArchiveName,
  type VersionFile,
} from "../web-folder/version-file.ts";
import { verifyBytes } from "../web-folder/web-folder.ts";
import type { Signer } from "./signer.ts";

/** The web folder as its publisher has it: the files on disk, before they are uploaded; and which release is current. */

export const defaultOut = join("upload", "app-updates");
/** Milliseconds: how long clients accept a VERSION that is not signed again. */
export const defaultExpires = 90 * 86_400_000;

/** Change the folder; one publisher at a time. The lock's file is gone afterwards, since the folder is uploaded as it is. */
export async function withLock<T>(out: string, change: () => Promise<T>): Promise<T> {
  const path = join(out, ".release.lock");
  const lock = await acquireLock(path, { what: `release in ${out}` });
  try {
    return await change();
  } finally {
    // while it is held: whoever waits for it sees that the file is another one, and locks that
    rmSync(path, { force: true });
    lock.release();
  }
}

/**
 * The folder's VERSION; undefined when there is none yet.
 * @throws {Refused} when its signature is not the signer's: somebody else publishes here, or has changed it.
 */
export async function readVersion(out: string, signer?: Signer): Promise<VersionFile | undefined> {
  const path = join(out, "VERSION");
  const text = await readIfThere(path);
  if (text === undefined) return undefined;
  const signature = await readFile(`${path}.sig`).catch(() => undefined);
  if (signature && signer) {
    try {
      await verifyBytes(signature, Buffer.from(text), [signer.publicKey], `${path}.sig`);
    } catch (error) {
      // killed between VERSION.sig and VERSION: the text is the older one, and was signed before
      if (!(error instanceof SignatureRefused && error.reason === "bytes")) throw error;
    }
  }
  return parseVersionFile(text, path);
}

/** Sign and write VERSION: the signature first, so that no VERSION ever stands without a newer or its own. */
export async function writeVersion(out: string, file: VersionFile, signer: Signer): Promise<void> {
  const data = Buffer.from(formatVersionFile(file));
  await writeAtomic(join(out, "VERSION.sig"), await signer.sign(data), { mode: 0o644 });
  await writeAtomic(join(out, "VERSION"), data, { mode: 0o644 });
}

/** The next DATE: now, but later than the one before even when that is of this second or of another clock. */
export function nextDate(before: Date | undefined, now = new Date()): Date {
  const second = Math.floor(now.getTime() / 1000) * 1000;
  return new Date(Math.max(second, (before?.getTime() ?? 0) + 1000));
}

/**
 * Write KEY.asc.
 * @throws {Refused} when another key stands there, which clients have pinned.
 */
export async function writePublicKey(out: string, signer: Signer): Promise<void> {
  const path = join(out, "KEY.asc");
  const before = await readFile(path).catch(() => undefined);
  let key = signer.publicKey;
  if (before) {
    const there = (await readPublicKeys(before, path)).find(
      (each) => fingerprintOf(each) === signer.fingerprint,
    );
    if (!there)
      throw new Refused(
        `${path} is another key than ${signer.fingerprint}; clients that pinned it would refuse all you sign. Sign with that one, or remove KEY.asc to start again`,
      );
    key = await mergeKeys(there, key);
  }
  const text = await armor(key);
  if (before?.toString("utf8") !== text) await writeAtomic(path, text, { mode: 0o644 });
}

/** An archive that stands in the folder. */
export interface Archive {
  file: string;
  app: string;
  version: string;
  platform?: string;
  size: number;
  /** When its signature was made; undefined: it has none. */
  signed?: Date;
}

/** The archives of a folder, the newest signature first. */
export async function archivesIn(out: string): Promise<Archive[]> {
  const found: Archive[] = [];
  for (const file of await readdir(out).catch(() => [])) {
    const version = /-([0-9a-f]+(?:\.[0-9a-f]+)*)\.(?:tar\.gz|tgz)$/i.exec(file)?.[1];
    const parts = version === undefined ? undefined : readArchiveName(file, version);
    if (version === undefined || !parts) continue;
    const { size } = await stat(join(out, file));
    const signature = await readFile(join(out, `${file}.sig`)).catch(() => undefined);
    const signed =
      signature && (await Signatures.read(signature, `${file}.sig`)).packets[0]?.created;
    found.push({ file, version, ...parts, size, ...(signed ? { signed } : {}) });
  }
  return found.sort((a, b) => (b.signed?.getTime() ?? 0) - (a.signed?.getTime() ?? 0));
}

/** SHA-256 in hex and size of a file. */
export async function digestOf(path: string): Promise<{ sha256: string; size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    size += chunk.length;
  }
  return { sha256: hash.digest("hex"), size };
}

/** Whether `PATH.sig` is there, and a good signature over the file by this key. */
export async function isSignedBy(signer: Signer, path: string): Promise<boolean> {
  const data = await readFile(`${path}.sig`).catch(() => undefined);
  if (!data) return false;
  try {
    const signatures = await Signatures.read(data, `${path}.sig`);
    await signatures.verify(signer.publicKey, () => createReadStream(path), `${path}.sig`);
    return true;
  } catch (error) {
    if (error instanceof Refused) return false;
    throw error;
  }
}

/** Sign a VERSION again, edited, with a new DATE and EXPIRES. */
async function editVersion(
  out: string,
  signer: Signer,
  expires: number | undefined,
  edit: (file: VersionFile) => Promise<VersionFile>,
): Promise<VersionFile> {
  const missing = new UsageError(`${out} has no VERSION; make it with release pack`);
  if (!(await exists(join(out, "VERSION")))) throw missing;
  return await withLock(out, async () => {
    const before = await readVersion(out, signer);
    if (!before) throw missing;
    const date = nextDate(before.date);
    // the time it was given before holds again, unless told otherwise
    const span =
      expires ??
      (before.expires && before.date
        ? before.expires.getTime() - before.date.getTime()
        : defaultExpires);
    const file = { ...(await edit(before)), date, expires: new Date(date.getTime() + span) };
    await writeVersion(out, file, signer);
    return file;
  });
}

/** `release refresh`: the same VERSION with a new DATE and EXPIRES. */
export async function refresh(out: string, signer: Signer, expires?: number): Promise<VersionFile> {
  return await editVersion(out, signer, expires, async (file) => file);
}

/**
 * `release withdraw VERSION`: wherever it is current, the archive signed before it is current again. Clients go back,
 * since the new VERSION is signed later. The withdrawn archive stays, so that its version never gets other bytes.
 * @throws {UsageError} when it is not current, or nothing is there to go back to.
 */
export async function withdraw(
  out: string,
  version: string,
  signer: Signer,
  to?: string,
): Promise<VersionFile> {
  return await editVersion(out, signer, undefined, async (before) => {
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
      return { ...line, version: earlier.version, file: earlier.file, ...digest };
    });
    return { ...file, current: await Promise.all(current) };
  });
}

/** The archive of the same app and platform that was signed before the one in `line`; with `to`, the one of that version. */
function archiveBefore(
  line: CurrentLine,
  archives: readonly Archive[],
  to: string | undefined,
): Archive | undefined {
  const own = archives.find(({ file }) => file === line.file);
  return archives.find(
    ({ app, platform, version, signed }) =>
      app === own?.app &&
      platform === own?.platform &&
      version !== line.version &&
      signed !== undefined &&
      (to === undefined ? signed <= (own?.signed ?? new Date()) : version === to),
  );
}

/** `release list`: the archives, the newest first, and which are current. */
export async function list(out: string): Promise<(Archive & { current: boolean })[]> {
  const named = new Set((await readVersion(out))?.current.map(({ file }) => file));
  const archives = await archivesIn(out);
  return archives.map((archive) => ({ ...archive, current: named.has(archive.file) }));
}
