import type { Dirent } from "node:fs";
import { lstat, readdir, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { checkedPath, checkedTarget, foldedPath } from "../archive/rules.ts";
import { ifMissing, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { ignoreRules } from "../files/ignore.ts";

/** What is packed, in the order of the archive. */
export interface PackEntry {
  /** Below the archive's top. */
  path: string;
  type: "File" | "Directory" | "SymbolicLink" | "Link";
  /** 755 or 644: what a checkout with another umask has is the same archive. */
  mode: number;
  size: number;
  /** Where a file's content stands. */
  source?: string;
  /** Content that is in no file, in pieces. */
  content?: Buffer[];
  linkpath?: string;
}

export interface FileListOptions {
  /** Only these files of it, by their paths; default: everything. */
  files?: readonly string[] | undefined;
  /** Absolute paths that are left out, as the folder that the archive goes to. */
  skip?: readonly string[];
  /** Devices and inodes of private keys, which must not be published. */
  privateKeys?: readonly (string | undefined)[];
}

const unreadable: Record<string, string> = { ENOENT: "is not there", ENOTDIR: "is not a folder" };

/** Never packed. */
const never = new Set([".git", ".releaseignore", ".launchfit"]);

/**
 * Every file, folder and link below a folder, less what .releaseignore names.
 * @throws {UsageError} if there are no files, if a private key is one of them, or if launchfit would refuse to unpack
 * an entry: a pipe, a socket, a link that leads out of the folder, two names that differ only in case.
 */
export async function listFiles(
  folder: string,
  { files, skip = [], privateKeys = [] }: FileListOptions = {},
): Promise<PackEntry[]> {
  const ignoreFile = join(folder, ".releaseignore");
  const ignored = await ignoreRules((await readFile(ignoreFile, "utf8").catch(ifMissing)) ?? "", ignoreFile);
  const wanted = files && new Set(files.flatMap(withFolders));
  const entries: PackEntry[] = [];
  const links = new Map<string, string>();

  async function walk(below: string): Promise<void> {
    let names: Dirent[];
    try {
      names = await readdir(join(folder, below), { withFileTypes: true });
    } catch (error) {
      const why = unreadable[systemCode(error) ?? ""] ?? `cannot be read (${messageOf(error)})`;
      throw new UsageError(`${join(folder, below)} ${why}; name another with --from`);
    }
    // by code units, the same under every locale
    names.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const item of names) {
      const path = below === "" ? item.name : `${below}/${item.name}`;
      const full = join(folder, path);
      const isFolder = item.isDirectory();
      if (never.has(item.name) || skip.includes(full) || ignored(path, isFolder)) continue;
      if (wanted && !wanted.has(path)) continue;
      await add(path, full);
      if (isFolder) await walk(path);
    }
  }

  async function add(path: string, full: string): Promise<void> {
    const about = await lstat(full);
    if (about.isDirectory()) {
      entries.push({ path, type: "Directory", mode: 0o755, size: 0 });
    } else if (about.isSymbolicLink()) {
      const linkpath = await readlink(full);
      entries.push({ path, type: "SymbolicLink", mode: 0o777, size: 0, linkpath });
    } else if (about.isFile()) {
      const mode = about.mode & 0o100 ? 0o755 : 0o644;
      const id = `${about.dev}:${about.ino}`;
      if (privateKeys.includes(id))
        throw new UsageError(
          `${full} is the private key that signs, and would be published; move it away, or name it in .releaseignore`,
        );
      const first = about.nlink > 1 ? links.get(id) : undefined;
      links.set(id, first ?? path);
      if (first === undefined) entries.push({ path, type: "File", mode, size: about.size, source: full });
      else entries.push({ path, type: "Link", mode, size: 0, linkpath: first });
    } else {
      throw new UsageError(`${full} is not a file, folder or link; remove it, or name it in .releaseignore`);
    }
  }

  await walk("");
  if (entries.every(({ type }) => type === "Directory"))
    throw new UsageError(`${folder} holds no file; build it first, or name another with --from`);
  checkEntries(entries, folder);
  return entries;
}

/** A path and every folder above it. */
function withFolders(path: string): string[] {
  return [...path.matchAll(/\/|$/g)].map(({ index }) => path.slice(0, index));
}

function checkEntries(entries: readonly PackEntry[], folder: string): void {
  const seen = new Map<string, string>();
  for (const { path, type, linkpath } of entries) {
    try {
      checkedPath(path);
      if (type === "SymbolicLink") checkedTarget(path, linkpath ?? "");
    } catch (error) {
      throw new UsageError(`${folder}: no client would unpack this: ${messageOf(error)}`);
    }
    const other = seen.get(foldedPath(path));
    if (other !== undefined)
      throw new UsageError(`${folder}: "${path}" and "${other}" differ only in case or Unicode form; rename one`);
    seen.set(foldedPath(path), path);
  }
}
