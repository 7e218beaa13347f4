import { join } from "node:path";
import { systemCode, UsageError } from "../core/errors.ts";
import { readIfThere } from "../files/files.ts";
import { parseCloudinary } from "./cloudinary.ts";
import { clashes, collect, type Entry, type Fault, parseManifest, throwFaults } from "./manifest.ts";
import { sizeAt } from "./paths.ts";

/** All that is wanted, and what of it is there. */
export interface Wanted {
  entries: Entry[];
  /** The sizes of the files that are there already, by path. */
  sizes: Map<string, number>;
  /** Wrong lines that were left out; none unless that was asked for. */
  faults: readonly Fault[];
}

/**
 * Read manifest.txt and cloudinary.txt in `dir`, or the one manifest in their place.
 * @param root where the files land.
 * @param instead the file, or the text, of that one manifest.
 * @param keepGoing leave wrong lines out; one that would leave the folder is refused all the same.
 * @returns undefined when there is no list at all.
 * @throws {UsageError | Refused} with every wrong line of both files.
 */
export async function readLists(
  dir: string,
  root: string,
  instead: { file?: string | undefined; text?: string | undefined } = {},
  { keepGoing = false } = {},
): Promise<Wanted | undefined> {
  const texts: [name: string, text: string | undefined, parse: typeof parseManifest][] = [];
  if (instead.text !== undefined) texts.push(["stdin", instead.text, parseManifest]);
  else if (instead.file !== undefined) {
    const text = await readList(instead.file);
    if (text === undefined) throw new UsageError(`${instead.file}: there is no such file; name the manifest`);
    texts.push([instead.file, text, parseManifest]);
  } else {
    texts.push(["manifest.txt", await readList(join(dir, "manifest.txt")), parseManifest]);
    texts.push(["cloudinary.txt", await readList(join(dir, "cloudinary.txt")), parseCloudinary]);
  }
  const lists = texts.flatMap(([name, text, parse]) => (text === undefined ? [] : [parse(text, name)]));
  if (lists.length === 0) return undefined;
  const entries = lists.flatMap((list) => list.entries);
  const faults = [...lists.flatMap((list) => list.faults), ...clashes(entries)];
  const sizes = new Map<string, number>();
  for (const { where, path } of entries)
    collect(faults, where, () => {
      const size = sizeAt(root, path);
      if (size !== undefined) sizes.set(path, size);
    });
  throwFaults(keepGoing ? faults.filter(({ unsafe }) => unsafe) : faults);
  const wrong = new Set(faults.map(({ where }) => where));
  return { entries: entries.filter(({ where }) => !wrong.has(where)), sizes, faults };
}

async function readList(path: string): Promise<string | undefined> {
  try {
    return await readIfThere(path);
  } catch (error) {
    if (systemCode(error) === "EISDIR") throw new UsageError(`${path}: is a folder; name a file`);
    throw new UsageError(`${path}: cannot be read (${systemCode(error)}); fix its permissions`);
  }
}
