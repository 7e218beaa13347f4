/**
 * A command's usage text is its declaration: flags with their types, help, JSON, completion and the manual are read
 * from it. Its first line is `NAME: SUMMARY`; the sections have two columns, of which the right one may go on in lines
 * that are indented further.
 */

/** N: a number; TIME: milliseconds; SIZE: bytes; A,B or NAME,…: a list; else text. `=` gives the default. */
type Value<V extends string> = V extends `${infer T}=${string}`
  ? Plain<T>
  : Plain<V> extends string[]
    ? string[]
    : Plain<V> | undefined;
type Plain<T extends string> = T extends "N" | "TIME" | "SIZE"
  ? number
  : T extends `${string},${string}`
    ? string[]
    : string;

type Section<U extends string> = U extends `${string}\nFlags\n${infer F}\n\n${string}`
  ? F
  : U extends `${string}\nFlags\n${infer F}`
    ? F
    : "";
// a union in the last argument: TypeScript takes as many lines as there are
type Lines<S extends string, Before extends string = never> = S extends `${infer L}\n${infer R}`
  ? Lines<R, Before | L>
  : Before | S;
type Declared<L extends string> = L extends `  --${infer F}`
  ? Left<F>
  : L extends `  -${string}, --${infer F}`
    ? Left<F>
    : never;
type Left<F extends string> = F extends `${infer L}  ${string}` ? L : F;
type NameOf<F extends string> = F extends `${infer N} ${string}` ? N : F;
type ValueOf<F extends string> = F extends `${string} ${infer V}` ? Value<V> : boolean;

/** The values of the flags in these lines of a usage text, which several commands may share. */
export type FlagsIn<S extends string> = { [F in Declared<Lines<S>> as NameOf<F>]: ValueOf<F> };
/** The values of the flags that a usage text declares. */
export type FlagsOf<U extends string> = FlagsIn<Section<U>>;

/** One flag. Its type is declared, so that `1.10` stays text and `10m` is read once. */
export interface Flag {
  readonly name: string;
  /** number: 0, 1, 2 …; duration: milliseconds; size: bytes; list: comma separated or repeated. */
  readonly type: "boolean" | "string" | "number" | "duration" | "size" | "list";
  readonly help: string;
  /** The value's name in the help: `N`, `DIR`. */
  readonly value?: string;
  /** As a person would write it: `10s`, `16`. */
  readonly default?: string | number;
  /** The environment variable that is read when the flag is not given: `[$NAME]` behind the help. */
  readonly env?: string;
  /** One letter: `n` for `-n`. */
  readonly short?: string;
  /** `; one of A, B` behind the help. */
  readonly choices?: readonly string[];
}

export type Row = readonly [left: string, right: string];

/** What a usage text says, with what all commands have in common. */
export interface Usage {
  /** With the parent's name for a subcommand: `logs rotate`. */
  readonly name: string;
  readonly summary: string;
  readonly usage: readonly string[];
  readonly operands: readonly { readonly name: string; readonly help: string }[];
  /** How many operands it takes, least and most; null: any number. `[DIR]` may be left out, of `DIR…` many given. */
  readonly minOperands: number;
  readonly maxOperands: number | null;
  readonly flags: readonly Flag[];
  /** Names and summaries of scripts that it starts as if they were subcommands: the section `Commands`. */
  readonly programs: Readonly<Record<string, string>>;
  readonly environment: readonly Row[];
  readonly examples: readonly Row[];
  readonly exits: Readonly<Record<string, string>>;
  readonly notes?: string;
}

const commonFlags = `
  --json         print JSON on stdout
  --quiet        no progress and no notes; results and errors only
  -h, --help     show this text
  -V, --version  show the version`;
/** Where `--version` is the command's own flag (`release pack --version 1.2`). */
const versionInShort = "  -V  show the version of the script";
const commonExits = `
  0  done
  1  the work failed
  2  usage or configuration error, nothing was touched
  3  busy, another process holds the lock
  4  refused for safety`;

const titles = ["Usage", "Commands", "Operands", "Flags", "Environment", "Examples", "Exit codes"];

/** @throws {Error} for a text that no command can be read from; a test reads every one. */
export function parseUsage(text: string): Usage {
  const [head = "", ...blocks] = text.trim().split("\n\n");
  const [, name = "", summary = ""] = /^(.+?): (.+)$/.exec(head) ?? [];
  if (name === "") throw new Error(`not "NAME: SUMMARY": ${head}`);
  const sections: Record<string, Row[]> = {};
  const notes: string[] = [];
  for (const block of blocks) {
    const [title = "", ...lines] = block.split("\n");
    if (titles.includes(title)) sections[title] = rows(lines);
    else if (lines.length === 0) notes.push(block);
    else throw new Error(`${name}: there is no section "${title}"`);
  }
  const read = (title: string) => sections[title] ?? [];
  const own = read("Flags").map(readFlag);
  const isOwn = (name: string) => own.some((flag) => flag.name === name);
  const common = rows(`${commonFlags}${isOwn("version") ? `\n${versionInShort}` : ""}`.split("\n")).map(readFlag);
  const operands = read("Operands");
  return {
    ...{ name, summary, usage: read("Usage").map(([line]) => line) },
    operands: operands.map(([left, help]) => ({ name: left.replace(/^\[|\]$| ?\.\.\.(?=\]?$)/g, ""), help })),
    minOperands: operands.filter(([left]) => !left.startsWith("[")).length,
    maxOperands: operands.some(([left]) => /(?:\.\.\.|…)\]?$/.test(left)) ? null : operands.length,
    flags: [...own, ...common.filter(({ name }) => !isOwn(name))],
    programs: Object.fromEntries(read("Commands")),
    environment: [
      ...own.flatMap(({ name, env }) => (env ? [[env, `the same as --${name}`] as const] : [])),
      ...read("Environment"),
    ],
    examples: read("Examples"),
    exits: Object.fromEntries([...rows(commonExits.split("\n")), ...read("Exit codes")]),
    ...(notes.length > 0 ? { notes: notes.join("\n\n") } : {}),
  };
}

function rows(lines: readonly string[]): Row[] {
  const whole = lines.join("\n").replace(/\n {3,}/g, "  ");
  return whole.split("\n").flatMap((line) => {
    const [left = "", ...right] = line.trim().split(/ {2,}/);
    return left === "" ? [] : [[left, right.join(" ")] as const];
  });
}

const types: Record<string, Flag["type"]> = { N: "number", TIME: "duration", SIZE: "size" };

function readFlag([left, right]: Row): Flag {
  const [, short, name = "", value, , preset] = /^(?:-(\w), )?--?([\w-]+)(?: ([^\s=]+)(=(\S+))?)?$/.exec(left) ?? [];
  if (name === "") throw new Error(`not "--FLAG VALUE  help", with two blanks before the help: ${left}`);
  const [, help = "", choices, env] = /^(.*?)(?:; one of ([\w-]+(?:, [\w-]+)+))?(?: \[\$(\w+)\])?$/.exec(right) ?? [];
  const type = value === undefined ? "boolean" : (types[value] ?? (value.includes(",") ? "list" : "string"));
  return {
    ...{ name, type, help },
    ...(value && { value: value.replace(/,…$/, "") }),
    ...(preset && { default: type === "number" ? Number(preset) : preset }),
    ...(env && { env }),
    ...(short && { short }),
    ...(choices && { choices: choices.split(", ") }),
  };
}
