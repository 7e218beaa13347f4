import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import type { Schema } from "./schema.ts";
import { parseTree, positionOf, sourceOf, treeOf } from "./tree.ts";

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
  try {
    return await parseConfig(await readFile(file, "utf8"), file, schema);
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
export async function parseConfig<T>(text: string, file: string, schema: Schema<T>): Promise<Config<T>> {
  const tree = await parseTree(text, file);
  const problems: string[] = [];
  const value = schema.read(tree, {
    problem: ({ line, column }, message) => void problems.push(`${file}:${line}:${column}: ${message}`),
  });
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return {
    value: value as T,
    file,
    where: (path) => `${file}:${positionOf(tree, path)}`,
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
