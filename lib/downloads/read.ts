import { readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { systemCode, UsageError } from "../core/errors.ts";
import { readCloudinary } from "./cloudinary.ts";
import { clashes, type Entry, type Fault, readManifest, throwFaults } from "./manifest.ts";
import { lookAtAll } from "./paths.ts";

export const manifestName = "manifest.txt";
export const cloudinaryName = "cloudinary.txt";

export interface Wanted {
  entries: Entry[];
  /** The sizes of the files that are there already, by path. */
  sizes: Map<string, number>;
}

/**
 * All that is wanted in `dir`: manifest.txt and cloudinary.txt, or in their place one manifest from
 * elsewhere (`-`: standard input).
 * @returns undefined when there is no list at all, which means that nothing is known rather than that nothing is wanted.
 * @throws {UsageError | Refused} with every wrong line of both files.
 */
export async function readWanted(
  dir: string,
  manifest: string | undefined,
  root: string,
): Promise<Wanted | undefined> {
  const lists: { entries: Entry[]; faults: Fault[] }[] = [];
  if (manifest === "-") lists.push(readManifest(await readStdin(), "stdin"));
  else if (manifest !== undefined) {
    const text = readText(manifest);
    if (text === undefined)
      throw new UsageError(`${manifest}: there is no such file; name the manifest`);
    lists.push(readManifest(text, manifest));
  } else {
    for (const [name, read] of [
      [manifestName, readManifest],
      [cloudinaryName, readCloudinary],
    ] as const) {
      const text = readText(join(dir, name));
      if (text !== undefined) lists.push(read(text, name));
    }
  }
  if (lists.length === 0) return undefined;
  const entries = lists.flatMap((list) => list.entries);
  const faults = lists.flatMap((list) => list.faults);
  faults.push(...clashes(entries));
  const sizes = new Map<string, number>();
  const found = lookAtAll(
    root,
    entries.map(({ path }) => path),
  );
  for (const { where, path } of found.size > 0 ? entries : []) {
    const there = found.get(path);
    if (typeof there === "number") sizes.set(path, there);
    else if (there !== undefined) faults.push({ where, ...there });
  }
  throwFaults(faults);
  return { entries, sizes };
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    if (systemCode(error) === "EISDIR") throw new UsageError(`${path}: is a folder; name a file`);
    throw new UsageError(`${path}: cannot be read (${systemCode(error)}); mend its permissions`);
  }
}

async function readStdin(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
