import { messageOf } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { parseDuration, parseSize } from "../core/units.ts";
import type { Position, Tree } from "./tree.ts";

export type JsonSchema = Readonly<Record<string, unknown>>;

interface Context {
  problem(at: Position, message: string): undefined;
}

/** Reads a value of one type; undefined when it is wrong, which the context is told. */
export interface Schema<T> {
  /** In words, for messages: `a duration`. */
  readonly what: string;
  /** The same as a JSON Schema (draft-07), for editors. */
  readonly json: JsonSchema;
  read(tree: Tree, context: Context): T | undefined;
  readonly optional?: boolean;
  readonly otherwise?: T | undefined;
}

export type Infer<S> = S extends Schema<infer T> ? T : never;

type Shape = Record<string, Schema<unknown>>;
type ObjectOf<S extends Shape> = Flat<
  { [Key in keyof S as undefined extends Infer<S[Key]> ? never : Key]: Infer<S[Key]> } & {
    [Key in keyof S as undefined extends Infer<S[Key]> ? Key : never]?: Infer<S[Key]>;
  }
>;
type Flat<T> = { [Key in keyof T]: T[Key] };

/** Says what was expected, and what stands there instead. */
function unexpected(tree: Tree, what: string, context: Context): undefined {
  const found = tree.kind !== "scalar" ? `a ${tree.kind}` : tree.value === null ? "nothing" : `"${tree.source}"`;
  return context.problem(tree, `expected ${what}, got ${found}`);
}

function scalar<T>(
  what: string,
  json: JsonSchema,
  read: (tree: Tree & { kind: "scalar" }) => T | undefined,
): Schema<T> {
  return {
    ...{ what, json },
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

/** A pattern says nothing about numbers in a JSON Schema: they are allowed where one can be such a text. */
function textJson(match: RegExp | undefined): JsonSchema {
  if (!match) return { type: ["string", "number"] };
  const pattern = { pattern: match.source };
  const numbers = [-3, 0, 1.5, 7, 42, 10_000_000].filter((each) => match.test(String(each)));
  const [minimum] = numbers;
  if (minimum === undefined) return { type: "string", ...pattern };
  return { type: ["string", "number"], ...pattern, ...(minimum < 0 ? {} : { minimum }) };
}

const units = "ms|[smhdw]|(?:millisecond|second|sec|minute|min|hour|day|week)s?";
/** What `parseDuration` takes. */
const durationJson = {
  type: "string",
  pattern: `^(?:\\d+(?:\\.\\d+)?\\s*(?:${units})\\s*,?\\s*)+$`,
};
/** What `parseSize` takes. */
const sizeJson = {
  type: ["string", "number"],
  pattern: "^\\d+(?:\\.\\d+)?\\s*[kKmMgGtT]?(?:[iI]?[bB])?$",
  minimum: 0,
};

/** The parts a schema is made of. */
export const y = {
  /** Text; a number is taken as it was written, so that `1.10` stays text. `check` throws for what may not be. */
  string({
    match,
    what = "text",
    check,
  }: {
    match?: RegExp;
    what?: string;
    check?: (text: string) => unknown;
  } = {}): Schema<string> {
    return scalar(what, textJson(match), ({ value, source }) => {
      const text = typeof value === "number" ? source : value;
      if (typeof text !== "string" || match?.test(text) === false) return undefined;
      check?.(text);
      return text;
    });
  },
  /** One of some words. */
  choice<const T extends string>(words: readonly T[]): Schema<T> {
    return scalar(`one of ${words.join(", ")}`, { enum: words }, ({ value, source }) => {
      const found = words.find((word) => word === value);
      if (found !== undefined) return found;
      throw new Error(`expected one of ${words.join(", ")}, got "${source}"${didYouMean(source, words)}`);
    });
  },
  boolean(): Schema<boolean> {
    return scalar("true or false", { type: "boolean" }, ({ value }) =>
      typeof value === "boolean" ? value : undefined,
    );
  },
  /** Exactly this value: `y.just(false)`. */
  just<const T extends string | number | boolean | null>(wanted: T): Schema<T> {
    return {
      what: String(wanted),
      json: { const: wanted },
      read: (tree, context) =>
        tree.kind === "scalar" && tree.value === wanted ? wanted : unexpected(tree, String(wanted), context),
    };
  },
  /** A whole number. */
  number({ min = 0, max = Infinity }: { min?: number; max?: number } = {}): Schema<number> {
    const range = max === Infinity ? `of at least ${min}` : `from ${min} to ${max}`;
    const json = { type: "integer", minimum: min, ...(max === Infinity ? {} : { maximum: max }) };
    return scalar(`a whole number ${range}`, json, ({ value }) =>
      typeof value === "number" && Number.isSafeInteger(value) && value >= min && value <= max ? value : undefined,
    );
  },
  /** Milliseconds from `15m`. */
  duration(): Schema<number> {
    return scalar("a duration such as 90s, 15m, 2h", durationJson, ({ value, source }) =>
      value === null ? undefined : parseDuration(source),
    );
  },
  /** Bytes from `10M`. */
  size(): Schema<number> {
    return scalar("a size such as 10k, 5M, 2G", sizeJson, ({ value, source }) =>
      value === null ? undefined : parseSize(source),
    );
  },
  list<T>(item: Schema<T>): Schema<T[]> {
    return {
      what: `a list of ${item.what}`,
      json: { type: "array", items: item.json },
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
      json: { anyOf: [item.json, { type: "array", items: item.json }] },
      read(tree, context) {
        if (tree.kind === "list") return y.list(item).read(tree, context);
        const value = item.read(tree, context);
        return value === undefined ? undefined : [value];
      },
    };
  },
  /**
   * A map with free keys; `key` says what is wrong with a key, if anything.
   * @param names the same as a regular expression, for editors
   */
  record<T>(
    value: Schema<T>,
    key: (name: string) => string | undefined = () => undefined,
    names?: RegExp,
  ): Schema<Record<string, T>> {
    return {
      what: `a map, each value ${value.what}`,
      json: {
        type: "object",
        ...(names ? { propertyNames: { pattern: names.source } } : {}),
        additionalProperties: value.json,
      },
      read(tree, context) {
        if (tree.kind !== "map") return unexpected(tree, `a map, each value ${value.what}`, context);
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
    const keys = Object.entries(shape);
    const required = keys.filter(([, schema]) => !schema.optional).map(([key]) => key);
    const names = Object.keys(shape).join(", ");
    return {
      what: `a map with ${names}`,
      json: {
        type: "object",
        properties: Object.fromEntries(keys.map(([key, { json }]) => [key, json])),
        ...(required.length > 0 ? { required } : {}),
        additionalProperties: false,
      },
      read(tree, context) {
        if (tree.kind !== "map") return unexpected(tree, `a map with ${names}`, context);
        const result: Record<string, unknown> = Object.create(null);
        for (const { key, at, value } of tree.entries) {
          const schema = Object.hasOwn(shape, key) ? shape[key] : undefined;
          if (schema) result[key] = schema.read(value, context);
          else context.problem(at, `unknown key "${key}"${didYouMean(key, Object.keys(shape))}; allowed are ${names}`);
        }
        for (const [key, schema] of keys) {
          if (Object.hasOwn(result, key)) continue;
          if (schema.optional) result[key] = schema.otherwise;
          else context.problem(tree, `"${key}" is missing; give it ${schema.what}`);
        }
        return result as ObjectOf<S>;
      },
    };
  },
  /** The first of several that fits; when none does, `what` says what is allowed. */
  either<const S extends readonly Schema<unknown>[]>(schemas: S, what: string): Schema<Infer<S[number]>> {
    return {
      ...{ what, json: { anyOf: schemas.map(({ json }) => json) } },
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
  optional,
};

/** The same schema, which editors are told more of: what a script checks after it has read the file. */
export function alsoJson<S extends Schema<unknown>>(schema: S, more: JsonSchema): S {
  return { ...schema, json: { ...schema.json, ...more } };
}

/** A key that may be left out: then it is `otherwise`. */
function optional<T>(schema: Schema<T>): Schema<T | undefined>;
function optional<T>(schema: Schema<T>, otherwise: T): Schema<T>;
function optional<T>(schema: Schema<T>, otherwise?: T): Schema<T | undefined> {
  return {
    ...{ what: schema.what, json: schema.json },
    read: (tree, context) => schema.read(tree, context),
    optional: true,
    otherwise,
  };
}
