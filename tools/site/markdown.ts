// Markdown, as the documents have it, to HTML, and to the texts that the search finds.
import { lexer, Marked, type Token, type Tokens, walkTokens } from "marked";

export interface Heading {
  text: string;
  /** Its place in the page, as forges name it. */
  id: string;
}

/** What stands below a heading: what the search finds. */
export interface Section {
  /** Its address in the site. */
  id: string;
  page: string;
  title: string;
  text: string;
}

export const escaped = (text: string) =>
  text.replace(
    /[&<>"']/g,
    (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[character] ?? "",
  );

/** Where the links of a text lead, and its pictures, as they are written. */
export function linksIn(text: string): { href: string; picture: boolean }[] {
  const links: { href: string; picture: boolean }[] = [];
  void walkTokens(lexer(text), ({ type, ...token }) => {
    if (type !== "link" && type !== "image") return;
    links.push({ href: (token as Tokens.Link).href, picture: type === "image" });
  });
  return links;
}

/**
 * The page of a text. HTML in it is shown as it is written; a link to anything but a page, http or mail is text.
 * @param path of the page in the site
 * @param link where a link of the text leads in the site
 * @throws {Error} for a picture from elsewhere
 */
export function htmlOf(
  text: string,
  path: string,
  link: (href: string) => string,
): { title: string; html: string; headings: Heading[]; sections: Section[] } {
  const tokens = lexer(text);
  const ids = headingIds(tokens);
  const top = tokens.find((token): token is Tokens.Heading => token.type === "heading");
  const title = top ? plain(top) : path;
  const marked = new Marked({
    renderer: {
      html: ({ text }) => escaped(text),
      heading(token) {
        const { depth } = token;
        const id = ids.get(token as Tokens.Heading) ?? "";
        const inner = this.parser.parseInline(token.tokens);
        const anchor = depth === 1 ? "" : ` <a class="here" href="#${id}" aria-label="Link to here">#</a>`;
        return `<h${depth} id="${id}">${inner}${anchor}</h${depth}>\n`;
      },
      link({ href, tokens }) {
        const inner = this.parser.parseInline(tokens);
        const outside = /^(?:https?|mailto):/.test(href);
        if (/^\w+:/.test(href) && !outside) return inner;
        return `<a href="${escaped(link(href))}"${outside ? ' rel="noreferrer"' : ""}>${inner}</a>`;
      },
      image({ href, text }) {
        if (/^\w+:|^\/\//.test(href)) throw new Error(`${path}: the picture ${href} is elsewhere; put it into docs/`);
        return `<img src="${escaped(link(href))}" alt="${escaped(text)}" loading="lazy">`;
      },
      code({ text }) {
        return `<pre tabindex="0"><code>${escaped(text)}</code></pre>\n`;
      },
      table(token) {
        const cell = (tag: string, { tokens }: Tokens.TableCell) =>
          `<${tag}>${this.parser.parseInline(tokens)}</${tag}>`;
        const row = (tag: string, cells: readonly Tokens.TableCell[]) =>
          `<tr>${cells.map((each) => cell(tag, each)).join("")}</tr>\n`;
        const rows = token.rows.map((cells) => row("td", cells)).join("");
        return `<div class="table" tabindex="0"><table>\n<thead>${row("th", token.header)}</thead>\n<tbody>\n${rows}</tbody></table></div>\n`;
      },
    },
  });
  const headings = tokens.flatMap((token) =>
    token.type === "heading" && token["depth"] === 2
      ? [{ text: plain(token), id: ids.get(token as Tokens.Heading) ?? "" }]
      : [],
  );
  return {
    title,
    html: marked.parser(tokens),
    headings,
    sections: sectionsOf(tokens, ids, path, title),
  };
}

/** As forges make them of a heading's text; a second one of the same name is numbered. */
function headingIds(tokens: readonly Token[]): Map<Tokens.Heading, string> {
  const ids = new Map<Tokens.Heading, string>();
  const seen = new Map<string, number>();
  for (const token of tokens) {
    if (token.type !== "heading") continue;
    const slug = plain(token)
      .toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, "")
      .replaceAll(" ", "-");
    const times = seen.get(slug) ?? 0;
    seen.set(slug, times + 1);
    ids.set(token as Tokens.Heading, times === 0 ? slug : `${slug}-${times}`);
  }
  return ids;
}

function sectionsOf(
  tokens: readonly Token[],
  ids: ReadonlyMap<Tokens.Heading, string>,
  path: string,
  page: string,
): Section[] {
  const sections: Section[] = [];
  for (const token of tokens) {
    const last = sections.at(-1);
    if (token.type === "heading") {
      const id = `${path}#${ids.get(token as Tokens.Heading)}`;
      sections.push({ id, page, title: plain(token), text: "" });
    } else if (last) last.text = `${last.text} ${plain(token)}`.trim();
  }
  return sections;
}

/** The words of a token, without marks. */
function plain(token: Token): string {
  if (token.type === "table") {
    const { header, rows } = token as Tokens.Table;
    return [header, ...rows].flat().map(inside).join(" ");
  }
  if (token.type === "list")
    return (token as Tokens.List).items.map(({ tokens }) => tokens.map(plain).join(" ")).join(" ");
  return inside(token);
}

function inside(token: object): string {
  const { tokens = [], text = " " } = token as { tokens?: Token[]; text?: string };
  const words = tokens.length > 0 ? tokens.map(plain).join("") : text;
  return words.replace(/\s+/g, " ");
}
