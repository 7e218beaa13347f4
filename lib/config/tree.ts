import { UsageError } from "../core/errors.ts";

/** A place in a file, both from 1. */
export interface Position {
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
  const at = { line: 1, column: 1 };
  if (Array.isArray(value)) return { kind: "list", items: value.map(treeOf), ...at };
  if (typeof value !== "object" || value === null)
    return { kind: "scalar", value: value as string | number | boolean | null, source: String(value), ...at };
  return { kind: "map", entries: Object.entries(value).map(([key, of]) => ({ key, at, value: treeOf(of) })), ...at };
}

/** `line:column` of the nearest thing that stands at a path of keys. */
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
  return `${at.line}:${at.column}`;
}

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
    if (depth > 50) throw new UsageError(`${file}:${position.line}:${position.column}: nested too deeply`);
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
      throw new UsageError(`${file}:${here.line}:${here.column}: only text, numbers, true and false are allowed here`);
    const written = value as string | number | boolean | null;
    const source = (isScalar(node) ? node.source : undefined) ?? String(written ?? "");
    return { kind: "scalar", value: written, source, ...here };
  }

  // an empty file is an empty map: everything in it is optional, or named as missing
  if (document.contents === null) return { kind: "map", entries: [], line: 1, column: 1 };
  return toTree(document.contents, { line: 1, column: 1 }, 0);
}
