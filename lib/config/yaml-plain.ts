import type { Position, Tree } from "./yaml-tree.ts";

/**
 * The plainest YAML, read without the yaml package, which costs every start that reads a configuration 16 ms
 * (Node 20; a whole start is 40 ms). It takes what our templates are made of: block maps and lists, one-line
 * flow maps and lists, plain and quoted text of one line, comments.
 *
 * It is safe because it never decides anything doubtful: at the first sign of whatever else YAML has (anchors,
 * tags, escapes, several lines of text, numbers other than plain digits, tabs, empty values …) or of a mistake
 * it gives up, and the package reads the file from the start and words the errors. The test compares both trees,
 * positions included, for our templates and for thousands of texts made at random.
 */

interface Line {
  readonly indent: number;
  readonly text: string;
  /** From 1. */
  readonly number: number;
}

/** Thrown, and caught here, at whatever is not plain. */
class NotPlain extends Error {}

const giveUp = (): never => {
  throw new NotPlain();
};

/** The tree of a text, or undefined when it is not of the plainest kind (or wrong). */
export function readPlain(text: string): Tree | undefined {
  // no tabs, carriage returns, byte order marks …, not even in comments
  if (/[\p{Cc}\u2028\u2029\ufeff]/u.test(text.replaceAll("\n", ""))) return undefined;
  try {
    const lines: Line[] = [];
    for (const [index, whole] of text.split("\n").entries()) {
      const indent = /^ */.exec(whole)?.[0].length ?? 0;
      if (indent === whole.length || whole[indent] === "#") continue;
      lines.push({ indent, text: whole, number: index + 1 });
    }
    const [first] = lines;
    if (!first || first.indent > 0 || lines.some(({ indent }) => indent > deepest))
      return undefined;
    const reader = new BlockReader(lines);
    const tree = reader.map(0);
    return reader.done ? tree : undefined;
  } catch (error) {
    if (error instanceof NotPlain) return undefined;
    throw error;
  }
}

/** Blanks before a line; the package's reader refuses what is nested too deeply. */
const deepest = 40;

class BlockReader {
  readonly #lines: readonly Line[];
  #at = 0;

  constructor(lines: readonly Line[]) {
    this.#lines = lines;
  }

  get done(): boolean {
    return this.#at === this.#lines.length;
  }

  get #next(): Line | undefined {
    return this.#lines[this.#at];
  }

  /** The map whose keys stand at `indent`, from the next line on. */
  map(indent: number): Tree {
    const entries: (Tree & { kind: "map" })["entries"] = [];
    const names = new Set<string>();
    const start = positionOf(this.#next as Line, indent);
    for (let line = this.#next; line && line.indent === indent; line = this.#next) {
      if (isItem(line)) break;
      const words = new LineReader(line, indent);
      const { key, at } = words.key();
      if (names.has(key)) giveUp();
      names.add(key);
      this.#at += 1;
      entries.push({
        key,
        at,
        value: words.atEnd ? this.#below(indent) : this.#rest(words, indent),
      });
    }
    return { kind: "map", entries, ...start };
  }

  /** What stands below a key without a value in its line: a deeper map, or a list, which may be as deep as the key. */
  #below(indent: number): Tree {
    const line = this.#next ?? giveUp();
    if (isItem(line)) return line.indent >= indent ? this.#list(line.indent) : giveUp();
    return line.indent > indent ? this.map(line.indent) : giveUp();
  }

  #list(indent: number): Tree {
    const items: Tree[] = [];
    const start = positionOf(this.#next as Line, indent);
    for (let line = this.#next; line && line.indent === indent && isItem(line); line = this.#next) {
      this.#at += 1;
      items.push(this.#rest(new LineReader(line, indent + 2), indent));
    }
    return { kind: "list", items, ...start };
  }

  /** The value in a line; a deeper line after it would belong to it. */
  #rest(words: LineReader, indent: number): Tree {
    const value = words.value();
    if (!words.atEnd || (this.#next && this.#next.indent > indent)) giveUp();
    return value;
  }
}

const isItem = ({ text, indent }: Line) => text.startsWith("- ", indent);

const positionOf = ({ number }: Line, index: number): Position => ({
  line: number,
  column: index + 1,
});

const quoted = /"[^"\\]*"|'[^']*'/y;
/** Words with single blanks between; a colon only within a word. No character here begins or ends anything in YAML. */
const word = "[\\w/.~@%+=$*?!&|<>;()^'\"-]|:(?=[\\w/])";
const plainInBlock = new RegExp(`[\\w/.~](?:${word}|[,[\\]{}]| (?=[^ #:]))*`, "y");
const plainInFlow = new RegExp(`[\\w/.~](?:${word}| (?=[^ #:,[\\]{}]))*`, "y");
const plainKey = /[\w/.][\w/.-]*/y;
/** What YAML's core schema could take for null, a truth value or a number, however it is written. */
const special = /^(?:~|null|true|false)$|^[-+]?(?:\d+(?:\.\d*)?(?:e|$)|\.\d|\.(?:inf|nan)|0[ox])/i;

/** Reads one line from a place on. */
class LineReader {
  readonly #line: Line;
  #at: number;

  constructor(line: Line, at: number) {
    this.#line = line;
    this.#at = at;
  }

  /** Whether nothing but blanks or a comment is left. */
  get atEnd(): boolean {
    return /^(?: *| +#.*)$/.test(this.#line.text.slice(this.#at));
  }

  get #position(): Position {
    return positionOf(this.#line, this.#at);
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#line.text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  /** A key, its colon, and the blanks before the value. */
  key(): { key: string; at: Position } {
    const at = this.#position;
    const inQuotes = this.#take(quoted);
    const key = inQuotes?.slice(1, -1) ?? this.#take(plainKey) ?? giveUp();
    // two keys that are written differently may be one number
    if (special.test(key) || key === "") giveUp();
    if (!this.#take(/: +(?=[^ #])|:(?= *(?: #|$))/y)) giveUp();
    return { key, at };
  }

  /** `depth`: in how many flow collections it stands. */
  value(depth = 0): Tree {
    this.#take(/ +/y);
    if (depth > 5) giveUp();
    const here = this.#position;
    if (this.#take(/\[ */y)) return { kind: "list", items: this.#items(depth + 1), ...here };
    if (this.#take(/\{ */y)) return { kind: "map", entries: this.#entries(depth + 1), ...here };
    const inQuotes = this.#take(quoted)?.slice(1, -1);
    if (inQuotes !== undefined)
      return { kind: "scalar", value: inQuotes, source: inQuotes, ...here };
    const source = this.#take(depth > 0 ? plainInFlow : plainInBlock) ?? giveUp();
    return { kind: "scalar", value: meaningOf(source), source, ...here };
  }

  #items(depth: number): Tree[] {
    const items: Tree[] = [];
    while (!this.#take(/\]/y)) {
      items.push(this.value(depth));
      this.#between("]");
    }
    return items;
  }

  #entries(depth: number): (Tree & { kind: "map" })["entries"] {
    const entries: (Tree & { kind: "map" })["entries"] = [];
    while (!this.#take(/\}/y)) {
      const { key, at } = this.key();
      if (entries.some((each) => each.key === key)) giveUp();
      entries.push({ key, at, value: this.value(depth) });
      this.#between("}");
    }
    return entries;
  }

  /** A comma and a blank, or what closes the collection. */
  #between(close: string): void {
    this.#take(/ +/y);
    if (!this.#line.text.startsWith(close, this.#at) && !this.#take(/, +(?=[^ \]}])/y)) giveUp();
  }
}

function meaningOf(source: string): string | number | boolean {
  if (source === "true" || source === "false") return source === "true";
  if (/^(?:0|[1-9]\d{0,14})$/.test(source)) return Number(source);
  return special.test(source) ? giveUp() : source;
}
