// What stands around each page of the site: the search, the list of pages, the page's own headings.
import { escaped } from "./markdown.ts";
import { type NavPart, relativeLink, type Site, type SitePage } from "./pages.ts";

/** Nothing comes from elsewhere, and no script but the site's own runs. */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'";

/** The whole document of a page. */
export function pageHtml(page: SitePage, { nav, version }: Site): string {
  const link = (to: string) => relativeLink(page.path, to);
  const title = page.title === "Boatyard" ? page.title : `${page.title} · Boatyard`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escaped(title)}</title>
<link rel="icon" href="${link("icon.svg")}">
<link rel="stylesheet" href="${link("site.css")}">
<script src="${link("search.js")}" data-index="${link("search-index.js")}" defer></script>
</head>
<body>
<a class="skip" href="#main">To the text</a>
<header>
<a class="brand" href="${link("index.html")}"><img src="${link("icon.svg")}" alt="" width="22" height="22">Boatyard</a>
<search hidden><input type="search" placeholder="Search ( / )" aria-label="Search the documents" autocomplete="off" spellcheck="false"><div class="found" aria-live="polite" hidden></div></search>
<a class="to-pages" href="#pages">All pages</a>
</header>
<div class="columns">
<main id="main" tabindex="-1">
${page.html}</main>
${onThisPage(page)}<nav id="pages" aria-label="All pages">
${nav.map((part) => navPart(part, page.path)).join("\n")}
</nav>
</div>
<footer>Boatyard ${escaped(version)}</footer>
</body>
</html>
`;
}

function navPart({ title, links }: NavPart, here: string): string {
  const items = links.map(({ text, path }) => {
    const current = path === here ? ' aria-current="page"' : "";
    return `<li><a href="${relativeLink(here, path)}"${current}>${escaped(text)}</a></li>`;
  });
  return `<h2>${escaped(title)}</h2>\n<ul>\n${items.join("\n")}\n</ul>`;
}

/** The page's headings, where there are enough to choose from. */
function onThisPage({ headings }: SitePage): string {
  if (headings.length < 3) return "";
  const items = headings.map(({ text, id }) => `<li><a href="#${id}">${escaped(text)}</a></li>`);
  return `<nav class="headings" aria-label="On this page">\n<h2>On this page</h2>\n<ul>\n${items.join("\n")}\n</ul>\n</nav>\n`;
}
