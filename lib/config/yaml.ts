import { readdir, readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import type { Schema } from "./schema.ts";
import { joinTrees, parseTree, placeOf, positionOf, sourceOf, type Tree, treeOf } from "./tree.ts";

export { alsoJson, type Infer, type JsonSchema, type Schema, y } from "./schema.ts";

/**
 * Configuration files: YAML in, typed values out, every mistake named with file:line:column.
 * A schema is made of the functions of `y`; it reads the tree that `parseTree` makes of the yaml package's document.
 */

/** A configuration that was read: its value, and where each part of it stands. */
export interface Config<T> {
  value: T;
  file: string;
  /** `file:line:column` of the nearest thing that stands at a path of keys. */
  where(path: readonly (string | number)[]): string;
  /** The text of a single value as it was written: `15m`. */
  source(path: readonly string[]): string | undefined;
}

/**
 * Read a YAML (or JSON) file by a schema.
 * @throws {UsageError} when it is not there, cannot be read, is not YAML, or does not fit; one line a mistake.
 */
export async function readConfig<T>(file: string, schema: Schema<T>): Promise<Config<T>> {
  return configOf(await readTree(file), file, schema);
}

/**
 * The same of a file and of those in the folder beside it, hooks.yml and hooks.d/*.yml, in the order of their names: as
 * one. What stands in two of them is a mistake.
 * @param before is told of each path just before it is read, of the folder, too
 */
export async function readConfigs<T>(
  file: string,
  schema: Schema<T>,
  before: (path: string) => void = () => {},
): Promise<Config<T>> {
  before(file);
  const trees: [Tree, ...Tree[]] = [await readTree(file)];
  for (const path of await filesBeside(file, before)) {
    before(path);
    trees.push(await readTree(path));
  }
  return configOf(joinTrees(trees), file, schema);
}

async function filesBeside(file: string, before: (path: string) => void): Promise<string[]> {
  const folder = file.replace(/\.ya?ml$/, "") + ".d";
  before(folder);
  const names = await readdir(folder).catch((error: unknown) => {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return [];
    throw new UsageError(`${resolve(folder)}: ${unreadable[systemCode(error) ?? ""] ?? messageOf(error)}`);
  });
  return names
    .filter((name) => /^[^.].*\.yml$/.test(name))
    .sort()
    .map((name) => join(folder, name));
}

async function readTree(file: string): Promise<Tree> {
  try {
    return await parseTree(await readFile(file, "utf8"), file);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const why = unreadable[systemCode(error) ?? ""] ?? `${messageOf(error)}; name another`;
    throw new UsageError(`${resolve(file)}: ${why}`);
  }
}

const unreadable: Record<string, string> = {
  ENOENT: "there is no such file; name another, or make it from templates/",
  EACCES: "this user may not read it; type the command as its owner, or as root",
  EISDIR: "it is a folder; name a file in it",
};

/** The same for a text that was read already; `file` is its name in messages. */
export const parseConfig = async <T>(text: string, file: string, schema: Schema<T>): Promise<Config<T>> =>
  configOf(await parseTree(text, file), file, schema);

function configOf<T>(tree: Tree, file: string, schema: Schema<T>): Config<T> {
  const problems: string[] = [];
  const value = schema.read(tree, { problem: (at, message) => void problems.push(`${placeOf(at)}: ${message}`) });
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return {
    value: value as T,
    file,
    where: (path) => positionOf(tree, path),
    source: (path) => sourceOf(tree, path),
  };
}

/**
 * A value that `JSON.parse` gave, read by a schema.
 * @throws {UsageError} when it does not fit; one line a mistake.
 */
export function checkValue<T>(value: unknown, schema: Schema<T>): T {
  const problems: string[] = [];
  const read = schema.read(treeOf(value), { problem: (_, message) => void problems.push(message) });
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return read as T;
}
