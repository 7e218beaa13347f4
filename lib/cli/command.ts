import "./permissions.ts";
import { basename } from "node:path";
import process from "node:process";
import minimist from "minimist";
import { cleanUp } from "../core/at-exit.ts";
import { cleanText } from "../core/clean.ts";
import { exitCodeOf, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { createTerminal, type Terminal } from "./terminal.ts";
import { parseDuration, parseSize } from "../core/units.ts";
import { formatBuild, thisBuild } from "../core/version.ts";

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

const commonExits: Record<number, string> = {
  0: "done",
  1: "the work failed",
  2: "usage or configuration error, nothing was touched",
  3: "busy, another process holds the lock",
  4: "refused for safety",
};

/** Its own, then the common ones; a command's own flag of the same name wins (`release pack --version 1.2`). */
function allFlags(command: Command): Record<string, Flag> {
  const common = Object.entries(commonFlags).filter(
    ([name]) => !Object.hasOwn(command.flags, name),
  );
  return { ...command.flags, ...Object.fromEntries(common) };
}

/** The text of `--help`: usage, operands, every flag with its default, examples, exit codes. */
export function helpText(command: Command): string {
  const flags = allFlags(command);
  const rows = Object.entries(flags).map(
    ([name, flag]: [string, Flag]) => [flagTitle(name, flag), flagHelp(flag)] as const,
  );
  const exits = Object.entries({ ...commonExits, ...command.exits });
  const environment = [
    ...Object.entries(flags).flatMap(([name, flag]: [string, Flag]) =>
      flag.env ? [[flag.env, `the same as --${name}`] as const] : [],
    ),
    ...(command.environment ?? []),
  ];
  const sections = [
    `${command.name}: ${command.summary}`,
    section(
      "Usage",
      command.usage.map((line) => `  ${line}`),
    ),
    section(
      "Commands",
      columns(Object.values(command.subcommands ?? {}).map((each) => [each.name, each.summary])),
    ),
    section("Operands", columns(command.args ?? [])),
    section("Flags", columns(rows)),
    section("Environment", columns(environment)),
    section("Examples", columns(command.examples)),
    section("Exit codes", columns(exits)),
    command.notes ?? "",
  ];
  return sections.filter((text) => text !== "").join("\n\n");
}

function section(title: string, lines: string[]): string {
  return lines.length === 0 ? "" : [title, ...lines].join("\n");
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const widest = Math.max(0, ...rows.map(([left]) => left.length));
  const width = Math.min(widest, 34);
  return rows.map(([left, right]) =>
    left.length > width
      ? `  ${left}\n  ${" ".repeat(width)}  ${right}`
      : `  ${left.padEnd(width)}  ${right}`,
  );
}

function flagTitle(name: string, flag: Flag): string {
  const short = flag.short ? `-${flag.short}, ` : "";
  const value = flag.type === "boolean" ? "" : ` ${flag.value ?? flag.type.toUpperCase()}`;
  return `${short}--${flag.default === true ? `no-${name}` : name}${value}`;
}

function flagHelp(flag: Flag): string {
  const choices = flag.choices ? `; one of ${flag.choices.join(", ")}` : "";
  const shown =
    flag.default === undefined || typeof flag.default === "boolean"
      ? ""
      : ` (default: ${flag.default})`;
  return `${flag.help}${choices}${shown}`;
}

/**
 * The values of a command line, with defaults from the environment and the declaration.
 * @throws {UsageError} for an unknown flag (with the nearest known one), a missing or wrong value, a wrong number of operands.
 */
export function parseArguments(
  command: Command,
  argv: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
) {
  const flags: Record<string, Flag> = allFlags(command);
  const names = Object.keys(flags);
  const hint = `; see ${command.name} --help`;
  // minimist takes what every object has for a declared flag
  const inherited = argv.find((word) => word.startsWith("--") && word.slice(2) in Object.prototype);
  if (inherited) throw new UsageError(`unknown flag ${inherited}${hint}`);
  const parsed = minimist([...argv], {
    string: [...names.filter((name) => flags[name]?.type !== "boolean"), "_"],
    boolean: names.filter((name) => flags[name]?.type === "boolean"),
    default: Object.fromEntries(
      names.filter((name) => flags[name]?.type === "boolean").map((name) => [name, null]),
    ),
    alias: Object.fromEntries(
      names.flatMap((name) => (flags[name]?.short ? [[flags[name].short, name]] : [])),
    ),
    unknown: (argument) => {
      if (!argument.startsWith("-") || argument === "-") return true;
      const name = argument.replace(/^-+/, "").replace(/=.*/s, "");
      throw new UsageError(
        `unknown flag ${argument.replace(/=.*/s, "")}${didYouMean(name, names)}${hint}`,
      );
    },
  });
  const values: Record<string, unknown> = Object.create(null);
  for (const [name, flag] of Object.entries(flags))
    values[name] = flagValue(name, flag, parsed[name] ?? undefined, env);
  const args = parsed._.map(String);
  const { minArgs = 0, maxArgs = 0 } = command;
  const wanted = values.help || values.version === true;
  if (!wanted && args.length < minArgs)
    throw new UsageError(`${command.args?.[args.length]?.[0] ?? "an operand"} is missing${hint}`);
  if (!wanted && args.length > maxArgs) {
    const words = Object.keys(command.subcommands ?? {});
    throw new UsageError(
      `unexpected operand "${args[maxArgs]}"${didYouMean(args[maxArgs] ?? "", words)}${hint}`,
    );
  }
  return { values, args };
}

function flagValue(name: string, flag: Flag, given: unknown, env: NodeJS.ProcessEnv): unknown {
  const where = given === undefined && flag.env && env[flag.env] ? flag.env : `--${name}`;
  const value = where === flag.env ? env[flag.env] : given;
  if (flag.type === "boolean")
    return value === undefined
      ? flag.default === true
      : value !== false && value !== "0" && value !== "false";
  if (flag.type === "list") {
    const texts =
      value === undefined
        ? flag.default === undefined
          ? []
          : [String(flag.default)]
        : [value].flat().map(String);
    if (value !== undefined && texts.some((text) => text === ""))
      throw new UsageError(`${where} needs a value`);
    const items = texts.flatMap((text) => text.split(",")).filter((text) => text !== "");
    for (const item of items) checkChoice(where, flag, item);
    return items;
  }
  if (Array.isArray(value)) throw new UsageError(`${where} is given twice; give it once`);
  if (value === "" || (value !== undefined && typeof value !== "string"))
    throw new UsageError(`${where} needs a value`);
  const text = value ?? (flag.default === undefined ? undefined : String(flag.default));
  if (text === undefined) return undefined;
  checkChoice(where, flag, text);
  try {
    if (flag.type === "duration") return parseDuration(text);
    if (flag.type === "size") return parseSize(text);
  } catch (error) {
    throw new UsageError(`${where}: ${messageOf(error)}`);
  }
  if (flag.type === "string") return text;
  if (!/^-?\d+(?:\.\d+)?$/.test(text)) throw new UsageError(`${where}: "${text}" is not a number`);
  return Number(text);
}

function checkChoice(where: string, flag: Flag, text: string): void {
  if (!flag.choices || flag.choices.includes(text)) return;
  throw new UsageError(
    `${where}: "${text}" is not one of ${flag.choices.join(", ")}${didYouMean(text, flag.choices)}`,
  );
}

/**
 * The edge of every script: reads the command line, runs the command, turns its result or error into an exit code.
 * An expected error is one line on stderr; anything else is a bug and shows its stack.
 * SIGINT and SIGTERM abort `signal`, run the clean-up steps and end with 128 and the signal's number.
 */
export async function runScript(
  command: Command,
  argv: readonly string[] = process.argv.slice(2),
): Promise<void> {
  // A reader that has seen enough (`logs | head`) ends the script, and is no error.
  process.stdout.on("error", (error) => process.exit(systemCode(error) === "EPIPE" ? 0 : 1));
  // That nobody reads the notes stops nobody.
  process.stderr.on("error", () => {});
  // Deno's own parts may meet a missing permission where nobody waits for them.
  process.on("unhandledRejection", (error) => process.exit(tell(error, command.name)));
  // Reached only when nothing is left that could still resolve what the command waits for.
  process.on("beforeExit", () => {
    if (process.exitCode !== undefined) return; // ended by a signal
    process.stderr.write(`${command.name}: stopped in the middle of its work; this is a bug\n`);
    process.exit(1);
  });
  const chosen = Object.hasOwn(command.subcommands ?? {}, argv[0] ?? "")
    ? command.subcommands?.[argv[0] ?? ""]
    : undefined;
  const code = await execute(chosen ?? command, chosen ? argv.slice(1) : argv, command.name);
  await cleanUp();
  await new Promise((resolve) => process.stdout.write("", resolve));
  process.exit(code);
}

async function execute(command: Command, argv: readonly string[], script: string): Promise<number> {
  const abort = new AbortController();
  try {
    const { values, args } = parseArguments(command, argv);
    if (values.help) return show(helpText(command));
    if (values.version === true)
      return show(
        values.json === true
          ? JSON.stringify({ script: basename(script), ...thisBuild })
          : `${basename(script)} ${formatBuild(thisBuild)}`,
      );
    const terminal = createTerminal({ json: values.json === true, quiet: values.quiet === true });
    const { ownSignals = false } = command;
    if (!(typeof ownSignals === "function" ? ownSignals(args) : ownSignals)) endOnSignals(abort);
    const result = await command.run({ flags: values, args, terminal, signal: abort.signal });
    // the signal's own handler is ending the script, with its own exit code
    if (abort.signal.aborted) return await new Promise<never>(() => {});
    return result ?? 0;
  } catch (error) {
    // nor is it this error that the user should see
    if (abort.signal.aborted) return await new Promise<never>(() => {});
    return tell(error, script);
  }
}

/** Writes to stderr what went wrong: an expected error in a line, a bug with its stack. Its exit code. */
function tell(error: unknown, script: string): number {
  const code = exitCodeOf(error);
  const text = code === undefined ? ((error as Error)?.stack ?? String(error)) : messageOf(error);
  const lines = text
    .split("\n")
    .map((line) => (code === undefined ? "" : `${script}: `) + cleanText(line));
  process.stderr.write(`${lines.join("\n")}\n`);
  return code ?? 1;
}

function show(text: string): number {
  process.stdout.write(`${text}\n`);
  return 0;
}

function endOnSignals(abort: AbortController): void {
  for (const [name, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
    ["SIGHUP", 1],
  ] as const) {
    process.on(name, () => {
      if (abort.signal.aborted) return;
      abort.abort(new Error(name));
      process.exitCode = 128 + number;
      void cleanUp().then(() => process.exit());
    });
  }
}
