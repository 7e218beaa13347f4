/** A place in a file, both from 1. */
export interface Position {
  line: number;
  column: number;
}

/** What a configuration file holds, with the place of each part; schemas (lib/config/yaml.ts) read it. */
export type Tree = Position &
  (
    | { kind: "scalar"; value: string | number | boolean | null; source: string }
    | { kind: "list"; items: Tree[] }
    | { kind: "map"; entries: { key: string; at: Position; value: Tree }[] }
  );
