import { createHash } from "node:crypto";
import { createReadStream, rmSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Refused, UsageError } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { fingerprintOf, mergeKeys, readPublicKeys, armor } from "../openpgp/keys.ts";
import { Signatures } from "../openpgp/verify.ts";
import {
  formatVersionFile,
  parseVersionFile,
  readArchiveName,
  type VersionFile,
} from "../web-folder/version-file.ts";
import { verifyBytes } from "../web-folder/web-folder.ts";
import type { Signer } from "./signer.ts";

/** The web folder as its publisher has it: the files on disk, before they are uploaded. */

export const defaultOut = join("upload", "app-updates");
/** Milliseconds: how long a client believes a VERSION that nobody signs anew. */
export const defaultExpires = 90 * 86_400_000;

/** One publisher at a time. The lock's file is gone afterwards, since the folder is uploaded as it is. */
export async function lockFolder(out: string): Promise<Lock> {
  const path = join(out, ".release.lock");
  const lock = await acquireLock(path, { what: `release in ${out}` });
  return {
    release() {
      // while it is held: whoever waits for it sees that the file is another one, and locks that
      rmSync(path, { force: true });
      lock.release();
    },
  };
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
    const keys = await readPublicKeys(Buffer.from(signer.publicKey), "the key");
    try {
      await verifyBytes(signature, Buffer.from(text), keys, `${path}.sig`);
    } catch (error) {
      // killed between VERSION.sig and VERSION: the text is the older one, and was signed before
      if (!(error instanceof Refused) || !/not those that were signed/.test(error.message))
        throw error;
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
  const [own] = await readPublicKeys(Buffer.from(signer.publicKey), "the key");
  if (!own) throw new UsageError("the key has no public half");
  let key = own;
  if (before) {
    const there = (await readPublicKeys(before, path)).find(
      (each) => fingerprintOf(each) === signer.fingerprint,
    );
    if (!there)
      throw new Refused(
        `${path} is another key than ${signer.fingerprint}; clients that pinned it would refuse all you sign. Sign with that one, or remove KEY.asc to begin anew`,
      );
    key = await mergeKeys(there, own);
  }
  const text = armor(key);
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
  for await (const chunk of createReadStream(path, {
    highWaterMark: 1024 * 1024,
  }) as AsyncIterable<Buffer>) {
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
    const [key] = await readPublicKeys(Buffer.from(signer.publicKey), "the key");
    if (key) await signatures.verify(key, () => createReadStream(path), `${path}.sig`);
    return key !== undefined;
  } catch (error) {
    if (error instanceof Refused) return false;
    throw error;
  }
}
