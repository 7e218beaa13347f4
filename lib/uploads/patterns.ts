/**
 * Patterns for paths in `cache:` and `types:`: `*` and `?` stay within a folder, `**` crosses folders,
 * `{a,b}` is either. A pattern without `/` fits a file's name in any folder, as in .gitignore. Pure.
 */

/** What is wrong with a pattern, if anything. */
export function patternProblem(pattern: string): string | undefined {
  if (pattern === "") return "a pattern is empty";
  if (pattern.startsWith("/")) return `"${pattern}": leave the first / out; paths start in from:`;
  if (/\{[^}]*$|^[^{]*\}|\{[^}]*\{/.test(pattern)) return `"${pattern}": braces do not match`;
  return undefined;
}

/** The test that a pattern stands for. */
export function compilePattern(pattern: string): (path: string) => boolean {
  const source = pattern.replace(/\*\*\/|\*\*|\*|\?|\{[^}]*\}|[^*?{]/gs, (token) => {
    if (token === "**/") return "(?:.*/)?";
    if (token === "**") return ".*";
    if (token === "*") return "[^/]*";
    if (token === "?") return "[^/]";
    if (token.length > 1 && token.startsWith("{"))
      return `(?:${token.slice(1, -1).split(",").map(escaped).join("|")})`;
    return escaped(token);
  });
  const whole = new RegExp(`^${pattern.includes("/") ? "" : "(?:.*/)?"}${source}$`, "su");
  return (path) => whole.test(path);
}

/** From `[pattern, value]` pairs: the value of the first pattern that fits a path. */
export function firstMatch(
  pairs: readonly (readonly [string, string])[],
): (path: string) => string | undefined {
  const tests = pairs.map(([pattern, value]) => [compilePattern(pattern), value] as const);
  return (path) => tests.find(([fits]) => fits(path))?.[1];
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
