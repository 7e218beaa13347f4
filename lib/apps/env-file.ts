import { parseEnv } from "node:util";
import { UsageError } from "../core/errors.ts";

/** The secrets of an app: a file with lines NAME=VALUE, which its processes read when they start. */

/**
 * Lines NAME=VALUE as a person gives them, each value as it stands.
 * @throws {UsageError} for a line that is none.
 */
export function readVariables(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === "" || line.startsWith("#")) continue;
    const [, name, value = ""] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line) ?? [];
    if (name === undefined) throw new UsageError(`line ${at + 1} is not NAME=VALUE`);
    found.set(name, value);
  }
  return found;
}

/** The file's text with these variables changed; undefined takes one away. Pure. */
export function changeVariables(text: string, changes: ReadonlyMap<string, string | undefined>): string {
  const all = new Map<string, string | undefined>(Object.entries(parseEnv(text) as Record<string, string>));
  for (const [name, value] of changes) all.set(name, value);
  const lines = [...all].flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${quoted(name, value)}\n`]));
  return `# NAME=value, a line each: boatyard app env\n${lines.join("")}`;
}

/** The names in it, sorted. */
export function variableNames(text: string): string[] {
  return Object.keys(parseEnv(text)).sort();
}

/** @throws {UsageError} for a value that no line of such a file can hold. */
function quoted(name: string, value: string): string {
  const quote = ["'", "`", '"'].find((each) => !value.includes(each) && (each !== '"' || !value.includes("\\n")));
  if (quote !== undefined && !/[\0\r\n]/.test(value)) return `${quote}${value}${quote}`;
  throw new UsageError(`${name}: a value cannot have line ends, nor all three of ' " \`; give it as base64`);
}
