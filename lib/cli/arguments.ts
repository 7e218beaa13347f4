import process from "node:process";
import minimist from "minimist";
import { messageOf, UsageError } from "../core/errors.ts";
import { didYouMean } from "../core/names.ts";
import { parseDuration, parseSize } from "../core/units.ts";
import type { Command } from "./define.ts";
import type { Flag } from "./usage.ts";

/**
 * The values of a command line, with defaults from the environment and the declaration.
 * @throws {UsageError} for an unknown flag (with the nearest known), a missing or wrong value, too few or many words.
 */
export function parseArguments(command: Command, argv: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  const { flags, operands, minOperands, maxOperands } = command;
  const names = flags.map(({ name }) => name);
  const booleans = flags.flatMap(({ name, type }) => (type === "boolean" ? [name] : []));
  const hint = `; see ${command.name} --help`;
  // minimist takes what every object has for a declared flag
  const inherited = argv.find((word) => word.startsWith("--") && word.slice(2) in Object.prototype);
  if (inherited) throw new UsageError(`unknown flag ${inherited}${hint}`);
  const parsed = minimist([...argv], {
    string: [...names.filter((name) => !booleans.includes(name)), "_"],
    boolean: booleans,
    default: Object.fromEntries(booleans.map((name) => [name, null])),
    alias: Object.fromEntries(flags.flatMap(({ name, short }) => (short ? [[short, name]] : []))),
    unknown: (argument) => {
      if (!argument.startsWith("-") || argument === "-") return true;
      const flag = argument.replace(/=.*/s, "");
      // any letter is as near to another as the next
      const near = flag.startsWith("--") ? didYouMean(flag.slice(2), names) : "";
      throw new UsageError(`unknown flag ${flag}${near}${hint}`);
    },
  });
  const values: Record<string, unknown> = Object.create(null);
  for (const flag of flags) values[flag.name] = flagValue(flag, parsed[flag.name] ?? undefined, env);
  const args = parsed._.map(String);
  const wanted = values.help || values.version === true || values.V === true;
  if (!wanted && args.length < minOperands)
    throw new UsageError(`${operands[args.length]?.name ?? "an operand"} is missing${hint}`);
  if (!wanted && maxOperands !== null && args.length > maxOperands) {
    const word = args[maxOperands] ?? "";
    const others = Object.keys(command.subcommands ?? {}).filter((each) => each !== word);
    throw new UsageError(`unexpected operand "${word}"${didYouMean(word, others)}${hint}`);
  }
  return { values, args };
}

function flagValue(flag: Flag, given: unknown, env: NodeJS.ProcessEnv): unknown {
  const where = given === undefined && flag.env && env[flag.env] ? flag.env : `--${flag.name}`;
  const value = where === flag.env ? env[flag.env] : given;
  if (flag.type === "boolean") return value !== undefined && value !== false && value !== "0" && value !== "false";
  if (flag.type === "list") {
    const texts = [value ?? flag.default ?? []].flat().map(String);
    if (value !== undefined && texts.includes("")) throw new UsageError(`${where} needs a value`);
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
  if (!/^\d+$/.test(text)) throw new UsageError(`${where}: "${text}" is not a whole number`);
  return Number(text);
}

function checkChoice(where: string, flag: Flag, text: string): void {
  if (!flag.choices || flag.choices.includes(text)) return;
  throw new UsageError(`${where}: "${text}" is not one of ${flag.choices.join(", ")}${didYouMean(text, flag.choices)}`);
}
