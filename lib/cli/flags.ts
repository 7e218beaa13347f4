import type { Terminal } from "../core/terminal.ts";

/** What a command declares of itself: help, parsing, completion and the manual are made from it. */

/** One flag. Its type is declared, so that `1.10` stays text and `10m` is read once. */
export interface Flag {
  /** number: 0, 1, 2 …; duration: milliseconds; size: bytes; list: comma separated or repeated. */
  readonly type: "boolean" | "string" | "number" | "duration" | "size" | "list";
  readonly help: string;
  /** The value's name in the help: `N`, `DIR`. */
  readonly value?: string;
  /** As a person would write it: `10s`, `16`. Shown in the help. */
  readonly default?: string | number | boolean;
  /** The environment variable that is read when the flag is not given. */
  readonly env?: string;
  /** One letter: `n` for `-n`. */
  readonly short?: string;
  readonly choices?: readonly string[];
  /** What a shell offers for its value; without it files and folders, where `value` says FILE or DIR. */
  readonly complete?: Complete;
}

/** What a shell offers at TAB: files, folders, or words that are looked up at that moment. */
export type Complete = "file" | "folder" | Live;

/** Looks words up for TAB. What it throws is not shown. `given` is what the command line has so far; flags with text. */
export type Live = (given: {
  flags: Readonly<Record<string, string | undefined>>;
  args: readonly string[];
}) => Promise<readonly string[]>;

/** An operand's name in the usage, what it means, and what a shell offers for it. */
export type Operand = readonly [name: string, meaning: string, complete?: Complete];

export type Flags = Readonly<Record<string, Flag>>;

type FlagValue<F extends Flag> = F["type"] extends "boolean"
  ? boolean
  : F["type"] extends "list"
    ? string[]
    :
        | (F["type"] extends "string" ? string : number)
        | (F extends { default: string | number } ? never : undefined);

/** The values of the flags common to all scripts are in `terminal`. */
export interface CommandInput<F extends Flags = Flags> {
  flags: { [Name in keyof F]: FlagValue<F[Name]> };
  args: string[];
  terminal: Terminal;
  /** Aborted by SIGINT and SIGTERM. */
  signal: AbortSignal;
}

interface CommandSpec<F extends Flags> {
  /** With the parent's name for a subcommand: `logs rotate`. */
  readonly name: string;
  readonly summary: string;
  readonly usage: readonly string[];
  readonly args?: readonly Operand[];
  readonly minArgs?: number;
  readonly maxArgs?: number;
  readonly flags: F;
  readonly examples: readonly (readonly [string, string])[];
  /** Words for exit codes that say more than the common ones. */
  readonly exits?: Readonly<Record<number, string>>;
  readonly environment?: readonly (readonly [string, string])[];
  readonly notes?: string;
  readonly subcommands?: Readonly<Record<string, Command>>;
  /** Names and summaries of scripts that it starts as if they were subcommands. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Whether the script handles SIGINT and SIGTERM itself, as a server does that drains. */
  readonly ownSignals?: boolean | ((args: readonly string[]) => boolean);
  readonly run: (input: CommandInput<F>) => Promise<number | void> | number | void;
}

export type Command = Omit<CommandSpec<Flags>, "run"> & {
  readonly run: (input: any) => Promise<number | void> | number | void;
};

/** A command whose flags have the types that their declarations say. */
export function defineCommand<const F extends Flags>(spec: CommandSpec<F>): Command {
  return spec;
}

const commonFlags = {
  json: { type: "boolean", help: "print JSON on stdout" },
  quiet: { type: "boolean", help: "no progress and no notes; results and errors only" },
  help: { type: "boolean", short: "h", help: "show this text" },
  version: { type: "boolean", short: "V", help: "show the version" },
} satisfies Flags;

/** `-V` where `--version` is the command's own flag. */
const versionInShort = {
  V: { type: "boolean", help: "show the version of the script" },
} satisfies Flags;

/** Its own, then the common ones; a command's own flag of the same name wins (`release pack --version 1.2`). */
export function allFlags(command: Command): Record<string, Flag> {
  const isOwn = (name: string) => Object.hasOwn(command.flags, name);
  const common = Object.entries(commonFlags).filter(([name]) => !isOwn(name));
  return {
    ...command.flags,
    ...Object.fromEntries(common),
    ...(isOwn("version") ? versionInShort : {}),
  };
}

/**
 * Which command a command line means, and its words: `logs rotate -n 3` is that of `rotate`, and `logs help rotate` is
 * `logs rotate --help`. `help` is an operand like any other before flags, and behind `--`.
 */
export function choose(command: Command, argv: readonly string[]): [Command, readonly string[]] {
  const [first = "", ...rest] = argv;
  const sub = subcommand(command, first);
  if (sub) return choose(sub, rest);
  if (first !== "help") return [command, argv];
  const words = rest.filter((word) => word !== "--json");
  if (words.some((word) => word.startsWith("-"))) return [command, argv];
  const json = words.length < rest.length ? ["--json"] : [];
  const [about, others] = choose(command, words);
  return others.length === 0
    ? [about, ["--help", ...json]]
    : [{ ...about, minArgs: 0, maxArgs: 0 }, others];
}

function subcommand({ subcommands }: Command, name: string): Command | undefined {
  return subcommands && Object.hasOwn(subcommands, name) ? subcommands[name] : undefined;
}
