import { realpathSync } from "node:fs";
import { access, constants, readFile, realpath, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { delimiter, dirname, extname, join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { Failure, ifMissing, UsageError } from "../core/errors.ts";
import { searchPath } from "./exec.ts";

/**
 * How one script finds another: beside itself with the same suffix, then on PATH (design, section 3).
 * `.mjs` and `.ts` are run with our own runtime, so that a server needs no `node` on PATH.
 */

/** Where the scripts of a server are that no package manager has brought: root's. */
export const ownFolder = "/usr/local/lib/boatyard";

/** The file of the running script, links resolved. */
function runningScript(): string {
  try {
    return realpathSync(process.argv[1] ?? "");
  } catch {
    return process.argv[1] ?? "";
  }
}

/**
 * The argv that starts the script `name` (`build`, `slave-activate`).
 * @throws {UsageError} when it is neither beside the running script nor on PATH.
 */
export async function findScript(name: string): Promise<string[]> {
  const here = runningScript();
  const beside = join(dirname(here), name + (extname(here) || ".mjs"));
  if (await isThere(beside, constants.R_OK)) return withRuntime(beside);
  const onPath = await findOnPath(name);
  if (onPath) return withRuntime(onPath);
  throw new UsageError(`the script "${name}" is neither beside ${here} nor on PATH; copy it there`);
}

/**
 * Goes on as another script: what follows is as if that had been started with these words, in this process, so that
 * signals, exit codes and standard streams are its own.
 * @param places where its file may be, from the folder of the running script and without the suffix that they share
 * @param advice what to do when it is in none of them
 * @throws {UsageError} when it is in none of them.
 */
export async function becomeScript(
  places: readonly string[],
  args: readonly string[],
  advice = "copy it beside this script",
): Promise<void> {
  const here = runningScript();
  const files = places.map((place) => join(dirname(here), place + extname(here)));
  for (const file of files) {
    if (!(await isThere(file, constants.R_OK))) continue;
    process.argv.splice(1, process.argv.length, file, ...args);
    await import(pathToFileURL(file).href);
    return;
  }
  throw new UsageError(`${files[0]} is not there; ${advice}`);
}

/** The argv for a file: our own runtime for JavaScript and TypeScript, else the file itself. */
export function withRuntime(file: string): string[] {
  if (!/\.(?:mjs|cjs|js|ts)$/.test(file)) return [file];
  if (process.versions.deno) return [process.execPath, "run", "-A", file];
  return [process.execPath, ...typeScriptLoader(file), file];
}

/** Node before 22.18 runs TypeScript through tsx, which must be named by its path: the child's folder is another. */
function typeScriptLoader(file: string): string[] {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (!file.endsWith(".ts") || major > 22 || (major === 22 && minor >= 18)) return [];
  return ["--import", `file://${createRequire(file).resolve("tsx")}`];
}

/** The executable `name` on PATH, links resolved when it is one of our own scripts. */
export async function findOnPath(name: string): Promise<string | undefined> {
  const file = await findInFolders(searchPath(), name);
  if (file === undefined) return undefined;
  const target = await realpath(file);
  return /\.(?:mjs|cjs|js|ts)$/.test(target) ? target : file;
}

/** The executable `name` in one of the folders of a PATH. */
export async function findInFolders(path: string, name: string): Promise<string | undefined> {
  for (const folder of path.split(delimiter)) {
    const file = join(folder, name);
    if (folder === "" || !(await isThere(file, constants.X_OK))) continue;
    // a folder can be entered, for which it has the same permission
    if ((await stat(file)).isFile()) return file;
  }
  return undefined;
}

/** A program that a package from npm brings. */
export interface NpmProgram {
  name: string;
  /** Unknown for what is merely on PATH. */
  version: string | undefined;
  file: string;
}

/**
 * The program `name` of the package of that name in the node_modules of `dir`, links resolved.
 * @throws {Failure} when its package.json is broken.
 */
export async function findInNodeModules(name: string, dir: string): Promise<NpmProgram | undefined> {
  // by its package.json: what stands in .bin may be a shell script (pnpm's), which tells nothing
  const folder = join(dir, "node_modules", name);
  const text = await readFile(join(folder, "package.json"), "utf8").catch(ifMissing);
  const { version, bin } = parsePackage(folder, text ?? "{}");
  const path = typeof bin === "string" ? bin : (bin as Record<string, string> | undefined)?.[name];
  if (path === undefined) return undefined;
  const file = join(folder, path);
  return (await isThere(file, constants.R_OK)) ? { name, version, file: await realpath(file) } : undefined;
}

function parsePackage(folder: string, text: string): { version?: string; bin?: unknown } {
  try {
    return JSON.parse(text) as { version?: string; bin?: unknown };
  } catch {
    throw new Failure(`${folder}/package.json is not JSON; install its package again`);
  }
}

/** The same from beside the toolkit, else on PATH. */
export async function findOwnNpmProgram(name: string): Promise<NpmProgram | undefined> {
  for (let folder = dirname(runningScript()); ; folder = dirname(folder)) {
    const found = await findInNodeModules(name, folder);
    if (found) return found;
    if (folder === dirname(folder)) break;
  }
  const file = await findOnPath(name);
  return file === undefined ? undefined : { name, version: undefined, file };
}

async function isThere(file: string, how: number): Promise<boolean> {
  return access(file, how).then(
    () => true,
    () => false,
  );
}
