import { rmSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ifMissing, Refused, systemCode, UsageError } from "../core/errors.ts";
import { exists, writeAtomic } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { armor, fingerprintOf, mergeKeys, type PublicKey, readPublicKeys } from "../openpgp/keys.ts";
import { SignatureRefused } from "../openpgp/verify.ts";
import { Trust } from "../web-folder/trust.ts";
import { formatVersionFile, parseVersionFile, type VersionFile } from "../web-folder/version-file.ts";
import { WebFolder, type WebFolderOptions } from "../web-folder/web-folder.ts";
import { type Signer, signWith } from "./signer.ts";

/** The web folder as its publisher has it: the files on disk, before they are uploaded. */

export const defaultOut = "upload/app-updates";
/** Milliseconds: how long clients accept a VERSION that is not signed again. */
export const defaultExpires = 90 * 86_400_000;

/** @throws {UsageError} when there is no such folder. */
export async function assertThere(out: string): Promise<void> {
  const about = await stat(out).catch(ifNoFolder);
  if (about?.isDirectory()) return;
  throw new UsageError(`${out} is not ${about ? "a folder" : "there"}; name the web folder`);
}

/** Make the folder where it is not there. @throws {UsageError} when its name is that of something else. */
export async function makeFolder(out: string): Promise<void> {
  await mkdir(out, { recursive: true }).catch(ifNoFolder);
  await assertThere(out);
}

function ifNoFolder(error: unknown): undefined {
  if (!["ENOENT", "ENOTDIR", "EEXIST"].includes(systemCode(error) ?? "")) throw error;
}

/** Change the folder; one publisher at a time. The lock's file is gone afterwards: the folder is uploaded as it is. */
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
 * @throws {Refused} when a client with one of the signers' keys would refuse it: somebody else publishes here, or has
 * changed it.
 */
export async function readVersion(out: string, signers?: readonly Signer[]): Promise<VersionFile | undefined> {
  const path = join(out, "VERSION");
  const data = await readFile(path).catch(ifMissing);
  if (data === undefined) return undefined;
  const file = parseVersionFile(data.toString("utf8"), path);
  const signature = await readFile(`${path}.sig`).catch(ifMissing);
  if (!signature || !signers) return file;
  await asClient(pathToFileURL(resolve(out)).href, async (folder) => {
    const context = {
      ...{ store: undefined, folders: [folder], app: file.app },
      pinned: signers.map(({ fingerprint }) => fingerprint),
      given: signers.map(({ publicKey }) => publicKey),
    };
    const trust = await Trust.open(context, { note: () => {} });
    await trust.verifyVersion(folder, { file, data, signature });
  }).catch((error: unknown) => {
    // killed between VERSION.sig and VERSION: the text is the older one, and was signed before
    if (!(error instanceof SignatureRefused && error.reason === "bytes")) throw error;
  });
  return file;
}

/** Read a web folder as a client would, with a client's usual patience. */
export async function asClient<T>(
  url: string,
  read: (folder: WebFolder) => Promise<T>,
  more: Partial<WebFolderOptions> = {},
): Promise<T> {
  const temporary = await mkdtemp(join(tmpdir(), "release-"));
  const folder = new WebFolder(url, { temporary, timeout: 30_000, maxSize: Number.MAX_SAFE_INTEGER, ...more });
  try {
    return await read(folder);
  } finally {
    folder.close();
    await rm(temporary, { recursive: true, force: true });
  }
}

/**
 * Change the folder's VERSION under the lock.
 * @param change gets it with its next DATE and EXPIRES, and writes what it makes of it.
 * @param expires milliseconds; default: as long as the one before.
 * @throws {UsageError} when there is none.
 */
export async function changeVersion(
  out: string,
  signers: readonly Signer[],
  expires: number | undefined,
  change: (next: VersionFile) => Promise<VersionFile>,
): Promise<VersionFile> {
  const missing = new UsageError(`${out} has no VERSION; make it with release pack`);
  if (!(await exists(join(out, "VERSION")))) throw missing;
  return await withLock(out, async () => {
    const before = await readVersion(out, signers);
    if (!before) throw missing;
    const date = nextDate(before.date);
    const { date: from, expires: to } = before;
    const span = expires ?? (from && to ? to.getTime() - from.getTime() : defaultExpires);
    return await change({ ...before, date, expires: new Date(date.getTime() + span) });
  });
}

/**
 * Sign and write VERSION: the signature first, so that no VERSION ever stands without a newer or its own.
 * @param step the number of a set of keys, of which it is kept as the step that made it, written before it.
 */
export async function writeVersion(
  out: string,
  file: VersionFile,
  signers: readonly Signer[],
  step?: number,
): Promise<void> {
  const data = Buffer.from(formatVersionFile(file));
  const signature = await signWith(signers, data);
  if (step !== undefined) await mkdir(join(out, "keys"), { recursive: true });
  const places = step === undefined ? ["VERSION"] : [`keys/${step}`, "VERSION"];
  for (const place of places.map((each) => join(out, each))) {
    await writeAtomic(`${place}.sig`, signature, { mode: 0o644 });
    await writeAtomic(place, data, { mode: 0o644 });
  }
}

/**
 * Check that all of these keys may sign releases.
 * @throws {Refused} when VERSION names its keys, and one of these is not among them.
 * @throws {UsageError} when VERSION names none, and there are several.
 */
export function checkSigners(file: VersionFile | undefined, signers: readonly Signer[]): void {
  const lines = file?.keys;
  if (!lines) {
    const [first, second] = signers;
    if (!second) return;
    throw new UsageError(
      `two keys sign once VERSION names them; run: release keys add ${second.written} --key ${first?.written}`,
    );
  }
  for (const { fingerprint } of signers) {
    if (lines.keys.includes(fingerprint)) continue;
    const why = lines.roots.includes(fingerprint)
      ? "is a ROOT, which signs changes of the keys and no releases"
      : lines.revoked.includes(fingerprint)
        ? "was retired"
        : "is not one of the keys";
    throw new Refused(
      `the key ${fingerprint} ${why}: KEYS ${lines.serial} names ${lines.keys.join(", ")} (release keys list)`,
    );
  }
}

/** The next DATE: now, but later than the one before even when that is of this second or of another clock. */
export function nextDate(before: Date | undefined, now = new Date()): Date {
  const second = Math.floor(now.getTime() / 1000) * 1000;
  return new Date(Math.max(second, (before?.getTime() ?? 0) + 1000));
}

/**
 * Write KEY.asc: the keys there, of which clients that were away need those that are retired, and these.
 * @throws {Refused} when VERSION does not name its keys and another key stands there, which clients have pinned.
 */
export async function writePublicKeys(out: string, keys: readonly PublicKey[], { mayAdd = false } = {}): Promise<void> {
  const path = join(out, "KEY.asc");
  const before = await readFile(path).catch(ifMissing);
  const there = before ? await readPublicKeys(before, path) : [];
  const merged = new Map(there.map((key) => [fingerprintOf(key), key]));
  for (const key of keys) {
    const fingerprint = fingerprintOf(key);
    const known = merged.get(fingerprint);
    if (before && !known && !mayAdd)
      throw new Refused(
        `${path} is another key than ${fingerprint}; clients that pinned it would refuse all you sign. Sign with ` +
          "that one, hand over with release keys add, or remove KEY.asc to start again",
      );
    merged.set(fingerprint, known ? await mergeKeys(known, key) : key);
  }
  const text = await armor(...merged.values());
  if (before?.toString("utf8") !== text) await writeAtomic(path, text, { mode: 0o644 });
}
