/**
 * .releaseignore: lines as in .gitignore (gitignore(5)): `#` comments, `!` takes back, `/` at the end for folders only,
 * a `/` elsewhere ties the pattern to the top, `*`, `?`, `[a-z]`, and `**` over folders. Pure.
 */
export function ignoreRules(text: string): (path: string, isFolder: boolean) => boolean {
  const rules = text
    .split(/\r?\n/)
    .map((line) => line.replace(/(?<!\\)\s+$/, ""))
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const back = line.startsWith("!");
      const body = line.replace(/^!/, "").replace(/^\\(?=[!#])/, "");
      const folderOnly = body.endsWith("/");
      const pattern = body.replace(/\/$/, "");
      const tied = pattern.includes("/");
      return { back, folderOnly, test: toRegExp(pattern.replace(/^\//, ""), tied) };
    });
  return (path, isFolder) => {
    let ignored = false;
    for (const { back, folderOnly, test } of rules)
      if ((!folderOnly || isFolder) && test.test(path)) ignored = !back;
    return ignored;
  };
}

function toRegExp(pattern: string, tied: boolean): RegExp {
  const body = pattern.replace(
    /\*\*\/|\/\*\*$|\*\*|\*|\?|\[!?[^\]]+\]|\\.|[.+^${}()|\\/]/g,
    (piece) => {
      if (piece === "**/") return "(?:.*/)?";
      if (piece === "/**") return "/.*";
      if (piece === "**") return ".*";
      if (piece === "*") return "[^/]*";
      if (piece === "?") return "[^/]";
      if (piece.startsWith("[")) return piece.replace(/^\[!/, "[^").replace(/\\/g, "\\\\");
      return piece.length === 2 ? `\\${piece[1]}` : `\\${piece}`;
    },
  );
  return new RegExp(`^${tied ? "" : "(?:.*/)?"}${body}$`);
}
