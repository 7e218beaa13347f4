import type { Terminal } from "../core/terminal.ts";
import { type FlagsOf, parseUsage, type Usage } from "./usage.ts";

/** The values of the flags common to all scripts are in `terminal`. */
export interface CommandInput<F = object> {
  flags: F;
  args: string[];
  terminal: Terminal;
  /** Aborted by SIGINT and SIGTERM. */
  signal: AbortSignal;
}

/** Looks words up for TAB. What it throws is not shown. `given` is what the line has so far; flags with text. */
export type Live = (given: {
  flags: Readonly<Record<string, string | undefined>>;
  args: readonly string[];
}) => Promise<readonly string[]>;

interface Rules<Names extends string = string> {
  /** What is looked up for TAB, by a flag's or an operand's name; files and folders are offered for FILE and DIR. */
  readonly complete?: { readonly [Name in Names]?: Live };
  readonly subcommands?: Readonly<Record<string, Command>>;
  /** Whether the script handles SIGINT and SIGTERM itself, as a server does that drains. */
  readonly ownSignals?: boolean | ((args: readonly string[]) => boolean);
}

interface CommandSpec<U extends string> extends Rules<(keyof FlagsOf<U> & string) | Uppercase<string>> {
  readonly usage: U;
  readonly run: (input: CommandInput<FlagsOf<U>>) => Promise<number | void> | number | void;
}

export interface Command extends Usage, Rules {
  readonly run: (input: any) => Promise<number | void> | number | void;
}

/** A command whose usage text declares its flags and their types. */
export function defineCommand<const U extends string>({ usage, ...rest }: CommandSpec<U>): Command {
  return { ...parseUsage(usage), ...rest };
}

/**
 * Which command a command line means, and its words: `logs rotate -n 3` is that of `rotate`, and `logs help rotate` is
 * `logs rotate --help`. `help` is an operand like any other before flags, and behind `--`.
 */
export function choose(command: Command, argv: readonly string[]): [Command, readonly string[]] {
  const [first = "", ...rest] = argv;
  const { subcommands = {} } = command;
  const sub = Object.hasOwn(subcommands, first) ? subcommands[first] : undefined;
  if (sub) return choose(sub, rest);
  if (first !== "help") return [command, argv];
  const words = rest.filter((word) => word !== "--json");
  if (words.some((word) => word.startsWith("-"))) return [command, argv];
  const json = words.length < rest.length ? ["--json"] : [];
  const [about, others] = choose(command, words);
  return others.length === 0 ? [about, ["--help", ...json]] : [{ ...about, minOperands: 0, maxOperands: 0 }, others];
}
