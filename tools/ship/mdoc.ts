// Markdown, as docs/ has it, to mdoc(7), the language of manual pages.
import { lexer, type Token, type Tokens } from "marked";

/** What has a meaning to roff anywhere in a text; all that is not ASCII is named by its number. */
export function roff(text: string): string {
  const names: Record<string, string> = {
    "\\": "\\e",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    "-": "\\-",
  };
  return text
    .replace(/[\\'`^~-]/g, (character) => names[character] ?? character)
    .replace(/[^\n\x20-\x7e]/gu, (character) => {
      const code = character.codePointAt(0) ?? 0x20;
      return code < 0x20 ? " " : `\\[u${code.toString(16).toUpperCase().padStart(4, "0")}]`;
    });
}

/** One argument of a macro: in quotes, so that no word in it is taken for another macro. */
export const argument = (text: string) => `"${roff(text).replaceAll('"', "\\(dq")}"`;

/** A line of text must not begin as a request does. */
const guarded = (line: string) => (/^[.']/.test(line) ? `\\&${line}` : line);

/** Lines of text that is already roff: a sentence begins on a line of its own, and none is longer than 78 characters. */
export function filled(text: string): string[] {
  const sentences = text
    .replace(/\s+/g, " ")
    .trim()
    .split(/(?<=[.!?]\)?) (?=\S)/);
  return sentences.flatMap((sentence) => {
    const lines: string[] = [];
    let line = "";
    for (const word of sentence.split(" ")) {
      if (line !== "" && line.length + word.length > 77) {
        lines.push(line);
        line = "";
      }
      line += line === "" ? word : ` ${word}`;
    }
    return [...lines, line].filter((each) => each !== "").map(guarded);
  });
}

/** Lines as they are. */
export function literal(text: string): string[] {
  const lines = text.split("\n").map((line) => guarded(roff(line.trimEnd())));
  return [".Bd -literal -offset indent", ...lines, ".Ed"];
}

/** A list of names with what they mean. */
export function tagged(rows: readonly (readonly [string, string[]])[]): string[] {
  if (rows.length === 0) return [];
  const items = rows.flatMap(([title, lines]) => [`.It ${title}`, ...lines]);
  return [".Bl -tag -width Ds", ...items, ".El"];
}

/** Markdown in a line: code is bold, a link shows where it leads outside of the documents. */
function inline(tokens: readonly Token[] | undefined): string {
  return (tokens ?? [])
    .map((token): string => {
      if (token.type === "codespan") return `\\fB${roff((token as Tokens.Codespan).text)}\\fP`;
      if (token.type === "link") {
        const { href, text, tokens: inside } = token as Tokens.Link;
        const shown = inline(inside);
        return /^https?:/.test(href) && href !== text ? `${shown} (${roff(href)})` : shown;
      }
      if ("tokens" in token && token.tokens) return inline(token.tokens);
      return "text" in token ? roff(unescaped(String(token.text))) : "";
    })
    .join("");
}

const unescaped = (text: string) =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");

/** The blocks of a page, headings as subsections. */
export function mdocOf(markdown: string): string[] {
  return blocks(lexer(markdown));
}

function blocks(tokens: readonly Token[]): string[] {
  return tokens.flatMap((token) => {
    if (token.type === "heading")
      return [`.Ss ${argument(unescaped((token as Tokens.Heading).text).replace(/[`*]|:$/g, ""))}`];
    if (token.type === "paragraph") return [".Pp", ...filled(inline(token.tokens))];
    if (token.type === "text") return filled(inline(token.tokens ?? [token]));
    if (token.type === "code") return literal((token as Tokens.Code).text);
    if (token.type === "blockquote") return blocks(token.tokens ?? []);
    if (token.type === "list") {
      const { ordered, items } = token as Tokens.List;
      const inside = items.flatMap((item) => [".It", ...withoutFirstBreak(blocks(item.tokens))]);
      return [`.Bl ${ordered ? "-enum" : "-bullet"}`, ...inside, ".El"];
    }
    if (token.type === "table") return table(token as Tokens.Table);
    return [];
  });
}

/** The first column names the rest; of more than two columns each says what it is. */
function table({ header, rows }: Tokens.Table): string[] {
  const cells = rows.map(([first, ...rest]) => {
    const lines = rest.flatMap((cell, at) => {
      const title = rest.length > 1 ? `${inline(header[at + 1]?.tokens)}: ` : "";
      return cell.text === "" ? [] : [...(at > 0 ? [".Pp"] : []), ...filled(title + inline(cell.tokens))];
    });
    return [`"${inline(first?.tokens).replaceAll('"', "\\(dq")}"`, lines] as const;
  });
  return tagged(cells);
}

const withoutFirstBreak = (lines: string[]) => (lines[0] === ".Pp" ? lines.slice(1) : lines);

/** Superfluous breaks, of which mandoc would warn: before a section, a list or a display, and doubled ones. */
export function tidied(lines: readonly string[]): string[] {
  return lines.filter((line, at) => {
    if (line !== ".Pp") return true;
    const [before = "", after = ".Sh"] = [lines[at - 1], lines[at + 1]];
    return !/^\.(?:S[hs]|Pp)/.test(before) && !/^\.(?:S[hs]|Pp|Bl|Bd|El)/.test(after);
  });
}
