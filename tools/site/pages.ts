// Which pages the site has: the documents, and the files that they link to; what each is called, and where it stands.
import { readdir, readFile, stat } from "node:fs/promises";
import { basename, join, posix } from "node:path";
import { version } from "../../lib/core/version.ts";
import { escaped, type Heading, htmlOf, linksIn, type Section } from "./markdown.ts";

export interface SitePage {
  /** In the site: `build.html`, `files/templates/build.yml.html`. */
  path: string;
  title: string;
  html: string;
  /** Its headings of the second level, for the list beside it. */
  headings: Heading[];
  /** What the search finds of it. */
  sections: Section[];
}

/** A part of the list of pages that stands beside each page. */
export interface NavPart {
  title: string;
  links: { text: string; path: string }[];
}

export interface Site {
  version: string;
  pages: SitePage[];
  /** Where each picture stands in the site, by its file in the checkout. */
  pictures: Map<string, string>;
  nav: NavPart[];
}

/** Documents that do not lie in docs/, and where they stand in the site. */
const others: Record<string, string> = {
  "README.md": "index.html",
  "CHANGELOG.md": "changes.html",
  "CONTRIBUTING.md": "contributing.html",
  "SECURITY.md": "reporting.html",
};
/** The page whose headings and links are the list of pages. */
const contents = "docs/README.md";

/** Reads all documents of a checkout. @throws {Error} for a link that leads nowhere, as `docs/build.md: …` */
export async function readSite(root: string): Promise<Site> {
  const names = (await readdir(join(root, "docs"))).filter((name) => name.endsWith(".md")).sort();
  const documents = new Map(Object.entries(others));
  for (const name of names)
    documents.set(`docs/${name}`, `docs/${name}` === contents ? "contents.html" : name.replace(/md$/, "html"));
  const texts = new Map<string, string>();
  for (const file of documents.keys()) texts.set(file, await readFile(join(root, file), "utf8"));

  // the files that are linked to, and where each stands
  const paths = new Map(documents);
  const pictures = new Map<string, string>();
  for (const [file, text] of texts)
    for (const { href, picture } of linksIn(text)) {
      const target = targetOf(file, href);
      if (target === undefined) continue;
      if (picture) pictures.set(target, `pictures/${target}`);
      else if (!paths.has(target)) await addFiles(root, file, target, paths);
    }

  const pages: SitePage[] = [];
  for (const [file, path] of paths) {
    const text = texts.get(file);
    if (text === undefined) pages.push(await filePage(root, file, path, paths));
    else {
      const link = (href: string) => siteLink(file, path, href, new Map([...paths, ...pictures]));
      pages.push({ path, ...htmlOf(text, path, link) });
    }
  }
  return { version, pages, pictures, nav: navOf(texts.get(contents) ?? "", paths) };
}

/** The file of the checkout that a link leads to; none for an address, or a place in the same page. */
function targetOf(file: string, href: string): string | undefined {
  const [target = ""] = href.split("#");
  if (target === "" || /^\w+:/.test(href)) return undefined;
  return posix.join(posix.dirname(file), target).replace(/\/$/, "");
}

/** A file gets a page that shows it, a folder one that lists it, and each of its files one. */
async function addFiles(root: string, from: string, target: string, paths: Map<string, string>) {
  const found = await stat(join(root, target)).catch(() => undefined);
  if (!found || target.startsWith("..")) throw new Error(`${from}: ${target} is not there`);
  if (!found.isDirectory()) return void paths.set(target, `files/${target}.html`);
  paths.set(target, `files/${target}/index.html`);
  for (const name of (await readdir(join(root, target))).sort()) await addFiles(root, from, `${target}/${name}`, paths);
}

/** Where a link of a document leads in the site, as seen from its page. */
function siteLink(file: string, path: string, href: string, paths: ReadonlyMap<string, string>) {
  const target = targetOf(file, href);
  if (target === undefined) return href;
  const [, anchor] = href.split("#");
  const there = relativeLink(path, paths.get(target) ?? "");
  return anchor === undefined ? there : `${there}#${anchor}`;
}

/** The address of one page of the site in another. */
export function relativeLink(from: string, to: string): string {
  const path = posix.relative(posix.dirname(from), to);
  return path.split("/").map(encodeURIComponent).join("/");
}

async function filePage(
  root: string,
  file: string,
  path: string,
  paths: ReadonlyMap<string, string>,
): Promise<SitePage> {
  const inside = [...paths].filter(([each]) => posix.dirname(each) === file);
  const title = inside.length > 0 ? `${file}/` : file;
  const body =
    inside.length > 0
      ? `<ul>${inside.map(([each, to]) => `<li><a href="${relativeLink(path, to)}">${escaped(basename(each))}</a></li>`).join("\n")}</ul>`
      : `<pre tabindex="0"><code>${escaped(await readFile(join(root, file), "utf8"))}</code></pre>`;
  const html = `<h1>${escaped(title)}</h1>\n${body}\n`;
  return { path, title, html, headings: [], sections: [] };
}

/** The list of pages: a part for each heading, with the links below it in their order. */
function navOf(text: string, paths: ReadonlyMap<string, string>): NavPart[] {
  const parts: NavPart[] = [{ title: "Boatyard", links: [{ text: "What it is", path: "index.html" }] }];
  for (const part of text.split(/^## /m).slice(1)) {
    const title = part.slice(0, part.indexOf("\n"));
    const links = [...part.matchAll(/\[([^\]]+)\]\(([^)]+)\)/g)].flatMap(([, text = "", href = ""]) => {
      const path = paths.get(targetOf(contents, href) ?? "");
      return path === undefined ? [] : [{ text: text.replaceAll("`", ""), path }];
    });
    parts.push({ title, links });
  }
  parts.push({
    title: "The project",
    links: [
      { text: "Changes", path: "changes.html" },
      { text: "Working on it", path: "contributing.html" },
      { text: "Reporting a weakness", path: "reporting.html" },
      { text: "All of this as a page", path: "contents.html" },
    ],
  });
  return parts.filter(({ links }) => links.length > 0);
}
