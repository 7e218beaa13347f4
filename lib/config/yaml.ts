import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { parseDuration, parseSize } from "../core/units.ts";

/**
 * Configuration files: YAML in, typed values out, every mistake named with file:line:column.
 * A schema is made of the functions of `y`; it reads the tree that `parseTree` makes of the yaml package's document.
 */

/** A place in a file, both from 1. */
interface Position {
  line: number;
  column: number;
}

/** What a configuration file holds, with the place of each part. */
type Tree = Position &
  (
    | { kind: "scalar"; value: string | number | boolean | null; source: string }
    | { kind: "list"; items: Tree[] }
    | { kind: "map"; entries: { key: string; at: Position; value: Tree }[] }
  );

interface Context {
  problem(at: Position, message: string): undefined;
}

/** Reads a value of one type; undefined when it is wrong, which the context is told. */
export interface Schema<T> {
  /** In words, for messages: `a duration`. */
  readonly what: string;
  read(tree: Tree, context: Context): T | undefined;
  readonly optional?: boolean;
  readonly otherwise?: T | undefined;
}

export type Infer<S> = S extends Schema<infer T> ? T : never;

type Shape = Record<string, Schema<unknown>>;
type ObjectOf<S extends Shape> = { [Key in keyof S]: Infer<S[Key]> };

/** Says what was expected, and what stands there instead. */
function unexpected(tree: Tree, what: string, context: Context): undefined {
  const found =
    tree.kind !== "scalar"
      ? `a ${tree.kind}`
      : tree.value === null
        ? "nothing"
        : `"${tree.source}"`;
  return context.problem(tree, `expected ${what}, got ${found}`);
}

function scalar<T>(
  what: string,
  read: (tree: Tree & { kind: "scalar" }) => T | undefined,
): Schema<T> {
  return {
    what,
    read(tree, context) {
      if (tree.kind !== "scalar") return unexpected(tree, what, context);
      try {
        return read(tree) ?? unexpected(tree, what, context);
      } catch (error) {
        return context.problem(tree, messageOf(error));
      }
    },
  };
}

/** The parts a schema is made of. */
export const y = {
  /** Text; a number is taken as it was written, so that `1.10` stays text. */
  string({ match, what = "text" }: { match?: RegExp; what?: string } = {}): Schema<string> {
    return scalar(what, ({ value, source }) => {
      const text = typeof value === "number" ? source : value;
      return typeof text === "string" && (!match || match.test(text)) ? text : undefined;
    });
  },
  /** One of some words. */
  choice<const T extends string>(words: readonly T[]): Schema<T> {
    return scalar(`one of ${words.join(", ")}`, ({ value, source }) => {
      const found = words.find((word) => word === value);
      if (found !== undefined) return found;
      throw new Error(
        `expected one of ${words.join(", ")}, got "${source}"${didYouMean(source, words)}`,
      );
    });
  },
  boolean(): Schema<boolean> {
    return scalar("true or false", ({ value }) => (typeof value === "boolean" ? value : undefined));
  },
  /** Exactly this value: `y.just(false)`. */
  just<const T extends string | number | boolean | null>(wanted: T): Schema<T> {
    return {
      what: String(wanted),
      read: (tree, context) =>
        tree.kind === "scalar" && tree.value === wanted
          ? wanted
          : unexpected(tree, String(wanted), context),
    };
  },
  /** A whole number. */
  number({
    min = 0,
    max = Number.MAX_SAFE_INTEGER,
  }: {
    min?: number;
    max?: number;
  } = {}): Schema<number> {
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    return scalar(`a whole number ${range}`, ({ value }) =>
      typeof value === "number" && Number.isInteger(value) && value >= min && value <= max
        ? value
        : undefined,
    );
  },
  /** Milliseconds from `15m`. */
  duration(): Schema<number> {
    return scalar("a duration such as 90s, 15m, 2h", ({ value, source }) =>
      value === null ? undefined : parseDuration(source),
    );
  },
  /** Bytes from `10M`. */
  size(): Schema<number> {
    return scalar("a size such as 10k, 5M, 2G", ({ value, source }) =>
      value === null ? undefined : parseSize(source),
    );
  },
  list<T>(item: Schema<T>): Schema<T[]> {
    return {
      what: `a list of ${item.what}`,
      read(tree, context) {
        if (tree.kind !== "list") return unexpected(tree, `a list, each ${item.what}`, context);
        return tree.items.map((each) => item.read(each, context) as T);
      },
    };
  },
  /** One, or a list of several. */
  oneOrMore<T>(item: Schema<T>): Schema<T[]> {
    return {
      what: `${item.what}, or a list of them`,
      read(tree, context) {
        if (tree.kind === "list") return y.list(item).read(tree, context);
        const value = item.read(tree, context);
        return value === undefined ? undefined : [value];
      },
    };
  },
  /** A map with free keys; `key` says what is wrong with a key, if anything. */
  record<T>(
    value: Schema<T>,
    key: (name: string) => string | undefined = () => undefined,
  ): Schema<Record<string, T>> {
    return {
      what: `a map, each value ${value.what}`,
      read(tree, context) {
        if (tree.kind !== "map")
          return unexpected(tree, `a map, each value ${value.what}`, context);
        const result: Record<string, T> = Object.create(null);
        for (const entry of tree.entries) {
          const wrong = key(entry.key);
          if (wrong !== undefined) context.problem(entry.at, wrong);
          result[entry.key] = value.read(entry.value, context) as T;
        }
        return result;
      },
    };
  },
  /** A map with known keys; an unknown one is an error with the nearest known name. */
  object<S extends Shape>(shape: S): Schema<ObjectOf<S>> {
    return {
      what: `a map with ${Object.keys(shape).join(", ")}`,
      read(tree, context) {
        if (tree.kind !== "map")
          return unexpected(tree, `a map with ${Object.keys(shape).join(", ")}`, context);
        const result: Record<string, unknown> = Object.create(null);
        for (const { key, at, value } of tree.entries) {
          const schema = Object.hasOwn(shape, key) ? shape[key] : undefined;
          if (schema) result[key] = schema.read(value, context);
          else
            context.problem(
              at,
              `unknown key "${key}"${didYouMean(key, Object.keys(shape))}; allowed are ${Object.keys(shape).join(", ")}`,
            );
        }
        for (const [key, schema] of Object.entries(shape)) {
          if (Object.hasOwn(result, key)) continue;
          if (schema.optional) result[key] = schema.otherwise;
          else context.problem(tree, `"${key}" is missing: ${schema.what}`);
        }
        return result as ObjectOf<S>;
      },
    };
  },
  /** The first of several that fits; when none does, `what` says what is allowed. */
  either<const S extends readonly Schema<unknown>[]>(
    schemas: S,
    what: string,
  ): Schema<Infer<S[number]>> {
    return {
      what,
      read(tree, context) {
        const attempts = schemas.map((schema) => {
          const problems: [Position, string][] = [];
          const value = schema.read(tree, {
            problem: (at, message) => void problems.push([at, message]),
          });
          return { value, problems };
        });
        const good = attempts.find(({ problems }) => problems.length === 0);
        if (good) return good.value as Infer<S[number]>;
        // a mistake deep inside one of them says more than "none fits"
        const deep = attempts.find(({ problems }) =>
          problems.some(([at]) => at.line !== tree.line || at.column !== tree.column),
        );
        if (!deep) return unexpected(tree, what, context);
        for (const [at, message] of deep.problems) context.problem(at, message);
        return undefined;
      },
    };
  },
  optional: optional as {
    <T>(schema: Schema<T>): Schema<T | undefined>;
    <T>(schema: Schema<T>, otherwise: T): Schema<T>;
  },
};

function optional<T>(schema: Schema<T>, otherwise?: T): Schema<T | undefined> {
  return {
    what: schema.what,
    read: (tree, context) => schema.read(tree, context),
    optional: true,
    otherwise,
  };
}

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
    const why = systemCode(error) === "ENOENT" ? "there is no such file" : messageOf(error);
    throw new UsageError(`${resolve(file)}: ${why}; name another, or make it from templates/`);
  }
}

/** The same for a text that was read already; `file` is its name in messages. */
export async function parseConfig<T>(
  text: string,
  file: string,
  schema: Schema<T>,
): Promise<Config<T>> {
  const tree = await parseTree(text, file);
  const problems: string[] = [];
  const value = schema.read(tree, {
    problem: ({ line, column }, message) =>
      void problems.push(`${file}:${line}:${column}: ${message}`),
  });
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return {
    value: value as T,
    file,
    where: (path) => `${file}:${positionOf(tree, path)}`,
    source: (path) => sourceOf(tree, path),
  };
}

function positionOf(tree: Tree, path: readonly (string | number)[]): string {
  let at: Position = tree;
  let here: Tree | undefined = tree;
  for (const step of path) {
    const entry: { at: Position; value: Tree } | undefined =
      here?.kind === "map" ? here.entries.find(({ key }) => key === step) : undefined;
    const item: Tree | undefined =
      here?.kind === "list" && typeof step === "number" ? here.items[step] : undefined;
    here = entry?.value ?? item;
    if (!here) break;
    at = here.kind === "scalar" || !entry ? here : entry.at;
  }
  return `${at.line}:${at.column}`;
}

function sourceOf(tree: Tree, path: readonly string[]): string | undefined {
  let here: Tree | undefined = tree;
  for (const step of path)
    here = here?.kind === "map" ? here.entries.find(({ key }) => key === step)?.value : undefined;
  return here?.kind === "scalar" ? here.source : undefined;
}

/**
 * The tree of a YAML text.
 * @throws {UsageError} when it is not YAML; one line a mistake.
 */
async function parseTree(text: string, file: string): Promise<Tree> {
  const { Alias, isMap, isScalar, isSeq, LineCounter, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(1, line), column: Math.max(1, col) };
  };
  if (document.errors.length > 0) {
    const messages = document.errors.map((error) => {
      const { line, column } = at(error.pos[0]);
      return `${file}:${line}:${column}: ${error.message}`;
    });
    throw new UsageError(messages.join("\n"));
  }

  function toTree(node: unknown, position: Position, depth: number): Tree {
    if (depth > 50)
      throw new UsageError(`${file}:${position.line}:${position.column}: nested too deeply`);
    if (node instanceof Alias) return toTree(node.resolve(document), position, depth + 1);
    const range = (node as { range?: [number, number, number] } | null)?.range;
    const here = range ? at(range[0]) : position;
    if (isMap(node)) {
      const entries = node.items.map(({ key, value }) => {
        const name = isScalar(key)
          ? typeof key.value === "string"
            ? key.value
            : String(key.source ?? key.value)
          : String(key);
        const keyRange = (key as { range?: [number, number, number] } | null)?.range;
        const keyAt = keyRange ? at(keyRange[0]) : here;
        return { key: name, at: keyAt, value: toTree(value, keyAt, depth + 1) };
      });
      return { kind: "map", entries, ...here };
    }
    if (isSeq(node))
      return {
        kind: "list",
        items: node.items.map((item) => toTree(item, here, depth + 1)),
        ...here,
      };
    const value = isScalar(node) ? node.value : null;
    const plain = value === null || ["string", "number", "boolean"].includes(typeof value);
    if (!plain)
      throw new UsageError(
        `${file}:${here.line}:${here.column}: only text, numbers, true and false are allowed here`,
      );
    const written = value as string | number | boolean | null;
    const source = (isScalar(node) ? node.source : undefined) ?? String(written ?? "");
    return { kind: "scalar", value: written, source, ...here };
  }

  // an empty file is an empty map: everything in it is optional, or named as missing
  if (document.contents === null) return { kind: "map", entries: [], line: 1, column: 1 };
  return toTree(document.contents, { line: 1, column: 1 }, 0);
}
