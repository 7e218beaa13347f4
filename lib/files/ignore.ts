import { UsageError } from "../core/errors.ts";

/**
 * Rules as in .gitignore (gitignore(5)): whether they leave out a path below their folder.
 * @param name the file's, for messages.
 * @throws {UsageError} with its line for a pattern that could match nothing: what it was to leave out would be taken.
 */
export async function ignoreRules(text: string, name: string): Promise<(path: string, isFolder: boolean) => boolean> {
  for (const [index, line] of text.split(/\r?\n/).entries())
    if (!line.startsWith("#") && isMistake(line.trimEnd()))
      throw new UsageError(
        `${name}:${index + 1}: "${line}" is not a pattern; write \\[ for a bracket, and ranges as [a-z]`,
      );
  const { default: ignore } = await import("ignore");
  const rules = ignore({ ignorecase: false }).add(text);
  return (path, isFolder) => rules.ignores(isFolder ? `${path}/` : path);
}

/** A bracket that does not end, or a range that runs backwards. */
function isMistake(line: string): boolean {
  const sets = /\[[!^]?\]?[^\]]*\]/g;
  const isBackwards = (set: string) =>
    [...set.replace(/^.[!^]?/, "").matchAll(/(.)-([^\]])/g)].some(([, from = "", to = ""]) => from > to);
  return line
    .replace(/\\./g, "")
    .replace(sets, (set) => (isBackwards(set) ? set : ""))
    .includes("[");
}
