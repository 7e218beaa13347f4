import { UsageError } from "../core/errors.ts";

/** A place in a file, line and column from 1. */
export interface Position {
  file: string;
  line: number;
  column: number;
}

/** What a configuration file holds, with the place of each part. */
export type Tree = Position &
  (
    | { kind: "scalar"; value: string | number | boolean | null; source: string }
    | { kind: "list"; items: Tree[] }
    | { kind: "map"; entries: { key: string; at: Position; value: Tree }[] }
  );

/** The tree of a value that `JSON.parse` gave; what it came from has no lines. */
export function treeOf(value: unknown): Tree {
  const at = { file: "", line: 1, column: 1 };
  if (Array.isArray(value)) return { kind: "list", items: value.map(treeOf), ...at };
  if (typeof value !== "object" || value === null)
    return { kind: "scalar", value: value as string | number | boolean | null, source: String(value), ...at };
  return { kind: "map", entries: Object.entries(value).map(([key, of]) => ({ key, at, value: treeOf(of) })), ...at };
}

/** `file:line:column` of the nearest thing that stands at a path of keys. */
export function positionOf(tree: Tree, path: readonly (string | number)[]): string {
  let at: Position = tree;
  let here: Tree | undefined = tree;
  for (const step of path) {
    const entry: { at: Position; value: Tree } | undefined =
      here?.kind === "map" ? here.entries.find(({ key }) => key === step) : undefined;
    const item: Tree | undefined = here?.kind === "list" && typeof step === "number" ? here.items[step] : undefined;
    here = entry?.value ?? item;
    if (!here) break;
    at = here.kind === "scalar" || !entry ? here : entry.at;
  }
  return placeOf(at);
}

/** `file:line:column` */
export const placeOf = ({ file, line, column }: Position): string => `${file}:${line}:${column}`;

/**
 * Trees of several files as one: maps lie side by side, one level deep. @throws {UsageError} for what stands in two
 * files, with both places.
 */
export function joinTrees([first, ...more]: readonly [Tree, ...Tree[]], depth = 1): Tree {
  if (more.length === 0) return first;
  const entries: Extract<Tree, { kind: "map" }>["entries"] = [];
  for (const tree of [first, ...more]) {
    if (isNothing(tree)) continue;
    if (tree.kind !== "map") throw new UsageError(`${placeOf(tree)}: should be a mapping`);
    for (const entry of tree.entries) {
      const other = entries.find(({ key, at }) => key === entry.key && at.file !== entry.at.file);
      if (!other) entries.push({ ...entry });
      else if (depth > 0 && [other, entry].every(({ value }) => value.kind === "map" || isNothing(value)))
        other.value = joinTrees([other.value, entry.value], depth - 1);
      else throw new UsageError(`${placeOf(entry.at)}: ${entry.key} stands at ${placeOf(other.at)}, too; keep one`);
    }
  }
  return { ...first, kind: "map", entries };
}

/** `repos:` with nothing behind it. */
const isNothing = (tree: Tree) => tree.kind === "scalar" && tree.value === null;

/** The text of a single value as it was written. */
export function sourceOf(tree: Tree, path: readonly string[]): string | undefined {
  let here: Tree | undefined = tree;
  for (const step of path)
    here = here?.kind === "map" ? here.entries.find(({ key }) => key === step)?.value : undefined;
  return here?.kind === "scalar" ? here.source : undefined;
}

/**
 * The tree of a YAML text.
 * @throws {UsageError} when it is not YAML; one line a mistake.
 */
export async function parseTree(text: string, file: string): Promise<Tree> {
  const { Alias, isMap, isScalar, isSeq, LineCounter, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { file, line: Math.max(1, line), column: Math.max(1, col) };
  };
  if (document.errors.length > 0) {
    const messages = document.errors.map((error) => `${placeOf(at(error.pos[0]))}: ${error.message}`);
    throw new UsageError(messages.join("\n"));
  }

  function toTree(node: unknown, position: Position, depth: number): Tree {
    if (depth > 50) throw new UsageError(`${placeOf(position)}: nested too deeply`);
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
    if (!plain) throw new UsageError(`${placeOf(here)}: only text, numbers, true and false are allowed here`);
    const written = value as string | number | boolean | null;
    const source = (isScalar(node) ? node.source : undefined) ?? String(written ?? "");
    return { kind: "scalar", value: written, source, ...here };
  }

  // an empty file is an empty map: everything in it is optional, or named as missing
  if (document.contents === null) return { kind: "map", entries: [], file, line: 1, column: 1 };
  return toTree(document.contents, { file, line: 1, column: 1 }, 0);
}
