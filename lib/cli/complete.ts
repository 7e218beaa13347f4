import { cleanText } from "../core/clean.ts";
import { parseArguments } from "./arguments.ts";
import type { Command } from "./define.ts";

/** The word after which a completion file asks a script: `logs __complete --run WORD…`, `logs __complete 0 WORD…`. */
export const completeWord = "__complete";

/**
 * The words for TAB, one a line: for a flag's value, or for the operand at that place (from 0).
 * @param argv the flag or the place, then the words of the command line so far. Nothing is offered where they, or what
 * is looked up, are wrong: TAB is not the moment for errors.
 */
export async function completions(command: Command, argv: readonly string[]): Promise<string[]> {
  const [wanted = "", ...words] = argv;
  const { operands, complete = {} } = command;
  const operand = operands[Number(wanted)] ?? operands.at(-1);
  const live = complete[wanted.startsWith("--") ? wanted.slice(2) : (operand?.name ?? "")];
  if (!live) return [];
  try {
    const { values, args } = parseArguments({ ...command, minOperands: 0, maxOperands: null }, words);
    const texts = Object.entries(values).filter(([, value]) => typeof value === "string");
    const found = await live({ flags: Object.fromEntries(texts) as Record<string, string>, args });
    // one word each, which no shell and no terminal takes for more
    return [...new Set(found)].filter((word) => cleanText(word) === word && /^[^\s]+$/.test(word));
  } catch {
    return [];
  }
}
