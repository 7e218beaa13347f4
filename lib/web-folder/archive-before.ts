import { createHash } from "node:crypto";
import { mkdir, open, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";
import { parseIndex, planParts } from "./archive-index.ts";

/**
 * The archive that a client took last, kept with its index in a folder of its own, so that of the next one only what
 * differs is fetched. A kill between two steps leaves a pair that does not match: the next archive comes as a whole.
 */
const names = (folder: string) => ({ archive: join(folder, "archive"), index: join(folder, "index") });

/** Keep an archive in place of the one before; its file is moved. */
export async function keepArchive(folder: string, path: string, index: Uint8Array): Promise<void> {
  const kept = names(folder);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await rm(kept.index, { force: true });
  await rename(path, kept.archive);
  await writeFile(kept.index, index, { mode: 0o600 });
}

export interface NewArchive {
  /** Where it is to stand. */
  to: string;
  size: number;
  sha256: string;
  index: Uint8Array;
  /** Gives bytes of it that the server has. */
  fetch: (at: number, size: number) => Promise<Buffer>;
}

/** Where more of it differs, it comes faster as a whole. */
const maxShare = 0.7;

/**
 * Put an archive together from the one before and what differs.
 * @returns false: there is none before, or little of it is of use.
 * @throws {Failure} when what came of it is not that archive.
 */
export async function assembleArchive(
  folder: string,
  { to, size, sha256, index, fetch }: NewArchive,
): Promise<boolean> {
  const kept = names(folder);
  const before = await readIfThere(kept.index);
  if (before === undefined) return false;
  const parts = planParts(parseIndex(Buffer.from(index).toString("latin1")), parseIndex(before));
  const sum = (each: typeof parts) => each.reduce((total, part) => total + part.size, 0);
  if (sum(parts) !== size) throw new Failure("its index is that of another archive");
  if (sum(parts.filter(({ isHere }) => !isHere)) > size * maxShare) return false;
  const here = await open(kept.archive, "r");
  try {
    const file = await open(to, "wx", 0o600);
    try {
      const hash = createHash("sha256");
      for (const part of parts) {
        const bytes = part.isHere ? Buffer.alloc(part.size) : await fetch(part.at, part.size);
        if (part.isHere) await here.read(bytes, 0, part.size, part.at);
        hash.update(bytes);
        await file.writeFile(bytes);
      }
      if (hash.digest("hex") !== sha256) throw new Failure("what was put together is not the archive");
    } finally {
      await file.close();
    }
  } finally {
    await here.close();
  }
  return true;
}
