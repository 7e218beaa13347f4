import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Refused } from "../core/errors.ts";
import { writeAtomic } from "../files/files.ts";
import { maxSignatures, Signatures } from "../openpgp/verify.ts";
import { readArchiveName } from "../web-folder/version-file.ts";
import { fileNotation } from "../web-folder/web-folder.ts";
import { type Signer, signWith } from "./signer.ts";

/** The archives that stand in a web folder, and their signatures. */

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

/** The archives of a folder, the newest signature first; of one second, which is all it tells, the file written last. */
export async function archivesIn(out: string): Promise<Archive[]> {
  const found: { archive: Archive; signed: number; written: number }[] = [];
  for (const file of await readdir(out)) {
    const version = /-([0-9a-f]+(?:\.[0-9a-f]+)*)\.(?:tar\.gz|tgz)$/i.exec(file)?.[1];
    const parts = version === undefined ? undefined : readArchiveName(file, version);
    if (version === undefined || !parts) continue;
    const { size, mtimeMs: written } = await stat(join(out, file));
    const signature = await readFile(join(out, `${file}.sig`)).catch(() => undefined);
    const signed =
      signature && (await Signatures.read(signature, `${file}.sig`)).packets[0]?.created;
    const archive = { file, version, ...parts, size, ...(signed ? { signed } : {}) };
    found.push({ archive, signed: signed?.getTime() ?? 0, written });
  }
  found.sort((a, b) => b.signed - a.signed || b.written - a.written);
  return found.map(({ archive }) => archive);
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

/** Whether `PATH.sig` is there, and holds a good signature over the file by this key. */
async function isSignedBy({ publicKey }: Signer, path: string): Promise<boolean> {
  const data = await readFile(`${path}.sig`).catch(() => undefined);
  if (!data) return false;
  try {
    const signatures = await Signatures.read(data, `${path}.sig`);
    await signatures.verify(publicKey, () => createReadStream(path), `${path}.sig`);
    return true;
  } catch (error) {
    if (error instanceof Refused) return false;
    throw error;
  }
}

/**
 * See to it that an archive is signed by all of these keys. A signature of theirs that is there and good stays: clients
 * hold its time against what they saw.
 * @param keepOthers what other keys have signed stays, too: VERSION names several.
 */
export async function signArchive(
  out: string,
  file: string,
  signers: readonly Signer[],
  { keepOthers }: { keepOthers: boolean },
): Promise<void> {
  const path = join(out, file);
  const missing: Signer[] = [];
  for (const signer of signers) if (!(await isSignedBy(signer, path))) missing.push(signer);
  if (missing.length === 0) return;
  const keeps = keepOthers || missing.length < signers.length;
  const before = keeps ? await readSignatures(`${path}.sig`, missing.length) : [];
  const made = await signWith(missing, { path }, { [fileNotation]: file });
  await writeAtomic(`${path}.sig`, Buffer.concat([...before, made]), { mode: 0o644 });
}

/** A signature file, unless it is none, full, or in armor, to which no other can be added. */
async function readSignatures(path: string, more: number): Promise<Buffer[]> {
  const data = await readFile(path).catch(() => undefined);
  if (!data || data.toString("latin1").trimStart().startsWith("-----BEGIN")) return [];
  const count = await Signatures.read(data, path)
    .then(({ packets }) => packets.length)
    .catch(() => Number.POSITIVE_INFINITY);
  return count + more <= maxSignatures ? [data] : [];
}
