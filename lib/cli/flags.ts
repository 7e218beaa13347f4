import type { Terminal } from "./terminal.ts";

/** One flag. Its type is declared, so that `1.10` stays text and `10m` is read once. */
export interface Flag {
  /** duration: milliseconds; size: bytes; list: comma separated or repeated. */
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
}

type Flags = Readonly<Record<string, Flag>>;

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
  /** Operands with their meaning. */
  readonly args?: readonly (readonly [string, string])[];
  readonly minArgs?: number;
  readonly maxArgs?: number;
  readonly flags: F;
  readonly examples: readonly (readonly [string, string])[];
  /** Words for exit codes that say more than the common ones. */
  readonly exits?: Readonly<Record<number, string>>;
  readonly environment?: readonly (readonly [string, string])[];
  readonly notes?: string;
  readonly subcommands?: Readonly<Record<string, Command>>;
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
  version: { type: "boolean", help: "show the version" },
} satisfies Flags;

/** Its own, then the common ones; a command's own flag of the same name wins (`release pack --version 1.2`). */
export function allFlags(command: Command): Record<string, Flag> {
  const common = Object.entries(commonFlags).filter(
    ([name]) => !Object.hasOwn(command.flags, name),
  );
  return { ...command.flags, ...Object.fromEntries(common) };
}
