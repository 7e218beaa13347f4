import { realpathSync } from "node:fs";
import { access, constants, realpath } from "node:fs/promises";
import { createRequire } from "node:module";
import { delimiter, dirname, extname, join } from "node:path";
import process from "node:process";
import { UsageError } from "../core/errors.ts";
import { searchPath } from "./environment.ts";

/**
 * How one script finds another: beside itself with the same suffix, then on PATH (design, section 3).
 * `.mjs` and `.ts` are run with our own runtime, so that a server needs no `node` on PATH.
 */

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
  for (const folder of searchPath().split(delimiter)) {
    const file = join(folder, name);
    if (folder === "" || !(await isThere(file, constants.X_OK))) continue;
    const target = await realpath(file);
    return /\.(?:mjs|cjs|js|ts)$/.test(target) ? target : file;
  }
  return undefined;
}

/** The argv of a program from npm (litpro): the repo's own, else the one beside the toolkit, else on PATH. */
export async function findNpmProgram(name: string, dir: string): Promise<string[] | undefined> {
  const folders = [dir];
  for (let folder = dirname(runningScript()); ; folder = dirname(folder)) {
    folders.push(folder);
    if (folder === dirname(folder)) break;
  }
  for (const folder of folders) {
    const file = join(folder, "node_modules", ".bin", name);
    if (await isThere(file, constants.X_OK)) return withRuntime(await realpath(file));
  }
  const onPath = await findOnPath(name);
  return onPath ? withRuntime(onPath) : undefined;
}

async function isThere(file: string, how: number): Promise<boolean> {
  return access(file, how).then(
    () => true,
    () => false,
  );
}
