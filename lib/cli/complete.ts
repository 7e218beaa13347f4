import { cleanText } from "../core/clean.ts";
import { parseArguments } from "./arguments.ts";
import type { Command } from "./flags.ts";

/** The word after which a completion file asks a script: `logs __complete --run WORD…`, `logs __complete 0 WORD…`. */
export const completeWord = "__complete";

/**
 * The words for TAB, one a line: for a flag's value, or for the operand at that place (from 0).
 * @param argv the flag or the place, then the words of the command line so far. Nothing is offered where they, or what
 * is looked up, are wrong: TAB is not the moment for errors.
 */
export async function completions(command: Command, argv: readonly string[]): Promise<string[]> {
  const [wanted = "", ...words] = argv;
  const operands = command.args ?? [];
  const live = wanted.startsWith("--")
    ? command.flags[wanted.slice(2)]?.complete
    : (operands[Number(wanted)] ?? operands.at(-1))?.[2];
  if (typeof live !== "function") return [];
  try {
    const anyNumber = { ...command, minArgs: 0, maxArgs: Number.POSITIVE_INFINITY };
    const { values, args } = parseArguments(anyNumber, words);
    const texts = Object.entries(values).filter(([, value]) => typeof value === "string");
    const found = await live({ flags: Object.fromEntries(texts) as Record<string, string>, args });
    // one word each, which no shell and no terminal takes for more
    return [...new Set(found)].filter((word) => cleanText(word) === word && /^[^\s]+$/.test(word));
  } catch {
    return [];
  }
}
