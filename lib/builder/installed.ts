import { createHash, type Hash } from "node:crypto";
import { lstat, readdir, readlink, realpath, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { ifMissing } from "../core/errors.ts";
import { findInFolders } from "../exec/scripts.ts";
import { readIfThere } from "../files/files.ts";

/** What tells an install that would change nothing: all that decides it, and what it left. */

type Env = Readonly<Record<string, string>>;

/** A hash over what decides an install: files (absent ones count, too), variables and programs. */
export async function hashOfInputs(
  dir: string,
  files: Iterable<string>,
  env: Env,
  programs: readonly string[],
): Promise<string> {
  const hash = createHash("sha256");
  for (const name of [...new Set(files)].sort())
    add(hash, name, await readIfThere(join(dir, name)).catch(ifMissing));
  for (const name of Object.keys(env).sort()) {
    if (
      /^(?:NODE_ENV|NODE_OPTIONS|(?:npm_config|pnpm_config|yarn|bun|deno|corepack)_\w+)$/i.test(
        name,
      )
    )
      add(hash, name, env[name]);
  }
  for (const name of programs) add(hash, name, await describeProgram(env, name));
  return hash.digest("hex");
}

/** Which file a command on PATH is, and by size and time which version; no process has to be started to learn it. */
async function describeProgram({ PATH = "" }: Env, name: string): Promise<string | undefined> {
  const file = await findInFolders(PATH, name);
  if (file === undefined) return undefined;
  const { size, mtimeMs } = await stat(file);
  return `${await realpath(file)} ${size} ${mtimeMs}`;
}

/**
 * A hash over what an install left: each package in node_modules by its package.json's size, time and inode.
 * Where yarn keeps packages in archives, its .pnp.cjs counts.
 */
export async function hashOfPackages(dir: string): Promise<string> {
  const hash = createHash("sha256");
  for (const path of await installedIn(dir)) {
    if (path.endsWith("node_modules")) await addPackages(hash, path);
    else add(hash, path, await readIfThere(path).catch(ifMissing));
  }
  for (const name of await namesIn(join(dir, ".yarn/cache"))) add(hash, name, "");
  return hash.digest("hex");
}

/** Take away what was installed, so that an install begins with nothing. */
export async function removePackages(dir: string): Promise<void> {
  for (const path of await installedIn(dir)) await rm(path, { recursive: true, force: true });
}

/** Where an install puts packages: beside each package file of the repo, and yarn's .pnp.cjs. */
async function installedIn(dir: string): Promise<string[]> {
  const folders = new Set(["", ...(await packageFiles(dir)).map((path) => dirname(path))]);
  return [
    ...[...folders].sort().map((folder) => join(dir, folder, "node_modules")),
    join(dir, ".pnp.cjs"),
  ];
}

async function addPackages(hash: Hash, folder: string): Promise<void> {
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const found = await lstat(path).catch(ifMissing);
    // a linked package is looked at where it is: here under .pnpm and the like, or in the repo's own folders
    if (found?.isSymbolicLink()) {
      const there = await stat(path).catch(ifMissing);
      add(hash, path, `${await readlink(path)} ${there !== undefined}`);
    } else if (!found?.isDirectory() || name === ".bin") continue;
    else if (name.startsWith("@")) await addPackages(hash, path);
    // pnpm, bun and Deno keep each package in .pnpm/NAME@VERSION/node_modules
    else if (name.startsWith("."))
      for (const each of await namesIn(path))
        await addPackages(hash, join(path, each, "node_modules"));
    else {
      const file = await stat(join(path, "package.json")).catch(ifMissing);
      add(hash, path, `${file?.size} ${file?.mtimeMs} ${file?.ino}`);
      await addPackages(hash, join(path, "node_modules"));
    }
  }
}

/** The package files of a repo's workspaces: every one below `dir` that is not in a node_modules folder. */
export async function packageFiles(dir: string, below = ""): Promise<string[]> {
  const entries = await readdir(join(dir, below), { withFileTypes: true }).catch(ifMissing);
  const found: string[] = [];
  for (const entry of entries ?? []) {
    const path = join(below, entry.name);
    if (/^(?:package\.json|deno\.jsonc?)$/.test(entry.name)) found.push(path);
    else if (entry.isDirectory() && entry.name !== "node_modules" && !entry.name.startsWith("."))
      found.push(...(await packageFiles(dir, path)));
  }
  return found;
}

async function namesIn(folder: string): Promise<string[]> {
  return ((await readdir(folder).catch(ifMissing)) ?? []).sort();
}

function add(hash: Hash, name: string, value: string | undefined): void {
  hash.update(`${name}\0${value ?? ""}\0${value === undefined}\0`);
}
