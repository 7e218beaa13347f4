// What the packages bring beside the scripts: manual, completion, documents, templates, schemas.
import { chmod, cp, lstat, mkdir, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { completionOf } from "./completion.ts";
import { type Description, root } from "./describe.ts";
import { manualOf } from "./manual.ts";

/** What packages are made of. */
export interface Pieces {
  /** The folder of the split bundles. */
  split: string;
  scripts: readonly Description[];
}

/** Writes a file and the folders above it. */
export async function put(path: string, text: string | Uint8Array, mode = 0o644): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, text);
  await chmod(path, mode);
}

/** The completions of all scripts, below the folder of each shell. */
export async function putCompletions(
  scripts: readonly Description[],
  folders: { bash: string; zsh: string; fish: string },
): Promise<void> {
  for (const script of scripts) {
    const { bash, zsh, fish } = completionOf(script, scripts);
    await put(join(folders.bash, script.name), bash);
    // not _NAME: _setup is a function of zsh's own, without which nothing is completed
    await put(join(folders.zsh, `_boatyard-${script.name}`), zsh);
    await put(join(folders.fish, `${script.name}.fish`), fish);
  }
}

/** The pages of the manual; `link` says how one stands for another. */
export async function putManual(
  scripts: readonly Description[],
  seconds: number,
  page: (name: string, text: string) => Promise<void>,
  link: (name: string, target: string) => Promise<void>,
): Promise<void> {
  for (const [name, made] of await manualOf(scripts, new Date(seconds * 1000)))
    await ("link" in made ? link(name, made.link) : page(name, made.text));
}

/** Copies files and folders of the checkout. */
export async function putCopies(folder: string, names: readonly string[]): Promise<void> {
  // the documents' pictures are on the website: beside the text they would be a tenth of a package
  const filter = (source: string) => source !== join(root, "docs/images");
  for (const name of names) await cp(join(root, name), join(folder, name), { recursive: true, filter });
}

/** Modes that do not depend on the umask of whoever makes the package: 755 what anybody may run, else 644. */
export async function evenModes(folder: string): Promise<void> {
  for (const name of await readdir(folder, { recursive: true })) {
    const path = join(folder, name);
    const stat = await lstat(path);
    if (stat.isSymbolicLink()) continue;
    await chmod(path, stat.isDirectory() || (stat.mode & 0o100) !== 0 ? 0o755 : 0o644);
  }
}
