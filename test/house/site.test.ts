// The website of the documents: complete, without a dead link, nothing from elsewhere; built by a push, as build.yml says.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, posix } from "node:path";
import { pathToFileURL } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { htmlOf } from "../../tools/site/markdown.ts";
import { readSite } from "../../tools/site/pages.ts";
import { needsChromium, startBrowser } from "../helpers/browser.ts";
import { prepare } from "../helpers/prepare.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const site = join(tempDir("site-"), "site");
const files = new Map<string, string>();
prepare(test, async () => {
  // by a push where that is possible here: build.yml, and uploads to the folder
  const tool = needsCommand("rsync") ? "tools/site.ts" : "tools/demo-site.ts";
  const argv = ["node", "--import", "tsx", tool, site];
  const { stdout } = await runCommand(argv, { cwd: root, expect: 0, timeout: 110_000 });
  if (!needsCommand("rsync")) {
    assert.match(stdout, /site +\| > node --import tsx tools\/site\.ts/);
    assert.match(stdout, /www +rsync +ok +\d\d /);
    assert.match(stdout, /done; open/);
  }
  for (const entry of await readdir(site, { recursive: true, withFileTypes: true }))
    if (entry.isFile()) {
      const file = join(entry.parentPath, entry.name);
      files.set(file.slice(site.length + 1), await readFile(file, "utf8"));
    }
});

const hrefs = (html: string) => [...html.matchAll(/ (?:href|src|data-index)="([^"]*)"/g)].map(([, href = ""]) => href);

test("every link leads to a page of the site, and to a place that is there", () => {
  let seen = 0;
  for (const [name, html] of files) {
    if (!name.endsWith(".html")) continue;
    assert.match(html, /<title>[^<]+<\/title>/, name);
    const ids = [...html.matchAll(/ id="([^"]*)"/g)].map(([, id]) => id);
    assert.is(new Set(ids).size, ids.length, `${name}: an id stands twice`);
    for (const href of hrefs(html)) {
      if (/^(?:https?|mailto):/.test(href)) continue;
      const [path = "", anchor] = href.split("#");
      const target = path === "" ? name : posix.join(posix.dirname(name), decodeURIComponent(path));
      const there = files.get(target);
      assert.ok(there !== undefined, `${name} links to ${href}`);
      if (anchor) assert.ok(there?.includes(` id="${anchor}"`), `${name} links to ${href}`);
      seen += 1;
    }
  }
  assert.ok(seen > 1000, String(seen));
});

test("every document is a page, stands in the list of pages, and is found by the search", async () => {
  const { nav, pages } = await readSite(root);
  const listed = new Set(nav.flatMap(({ links }) => links.map(({ path }) => path)));
  for (const name of await readdir(join(root, "docs"))) {
    if (!name.endsWith(".md") || name === "README.md") continue;
    const path = name.replace(/\.md$/, ".html");
    assert.ok(listed.has(path), `docs/README.md does not name ${name}`);
    const page = pages.find((each) => each.path === path);
    assert.ok((page?.sections.length ?? 0) > 0, name);
    assert.match(files.get(path) ?? "", `href="${path}" aria-current="page"`);
  }
});

test("nothing is fetched from elsewhere: no script, style, picture or font but the site's own", () => {
  for (const [name, text] of files) {
    if (name.endsWith(".html")) {
      assert.match(text, "default-src 'none'; script-src 'self';", name);
      for (const [tag] of text.matchAll(/<(?:script|link|img|iframe)\b[^>]*>/g))
        assert.not.match(tag, /(?:src|href)="(?:\w+:|\/\/)/, name);
      assert.not.match(text, /<(?:style|iframe)\b|<script(?! src)| (?:style|on\w+)="/, name);
    }
    if (name.endsWith(".css")) assert.not.match(text, /url\(|@import/);
  }
});

test("HTML and odd addresses in a text are shown as text; a picture from elsewhere is refused", () => {
  const page = (text: string) => htmlOf(text, "x.html", (href) => href).html;
  assert.not.match(page("<script>alert(1)</script>\n\na <b onclick=x>b</b>"), /<(?:script|b)\b/);
  assert.not.match(page("[a](javascript:alert%281%29) [b](data:text/html,x)"), /href/);
  assert.match(page('[a](x.md "t\\"t")\n\n`<i>`'), /<code>&lt;i&gt;<\/code>/);
  assert.match(page("## Same\n\n## Same\n"), 'id="same-1"');
  assert.throws(() => page("![a](https://example.com/a.png)"), /is elsewhere/);
});

test("a folder with something in it is not written over", async () => {
  const folder = tempDir();
  await writeFile(join(folder, "mine.txt"), "");
  const argv = ["node", "--import", "tsx", "tools/site.ts", folder];
  const { stderr } = await runCommand(argv, { cwd: root, expect: 1 });
  assert.match(stderr, "is not empty");
  assert.equal(await readdir(folder), ["mine.txt"]);
});

testUnless(test, needsChromium)(
  "from a file: address the search finds, also with a typing error; a phone shows no page too wide",
  async () => {
    const browser = await startBrowser();
    try {
      const page = await browser.newPage({ viewport: { width: 360, height: 740 } });
      const wrong: string[] = [];
      page.on("console", (message) => {
        if (message.type() === "error") wrong.push(message.text());
      });
      page.on("request", (request) => {
        if (!request.url().startsWith(pathToFileURL(site).href)) wrong.push(request.url());
      });
      for (const name of files.keys()) {
        if (!/^[^/]+\.html$/.test(name)) continue;
        await page.goto(pathToFileURL(join(site, name)).href);
        const over = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert.is(over, 0, `${name} is wider than a phone`);
      }
      await page.goto(pathToFileURL(join(site, "files/templates/index.html")).href);
      await page.keyboard.press("/");
      await page.keyboard.type("manifst");
      await page.waitForSelector(".found a mark");
      const [first] = await page.locator(".found a").allTextContents();
      assert.match(first ?? "", /manifest/i);
      await page.keyboard.press("Enter");
      await page.waitForURL(/downloads\.html#/);
      await page.keyboard.press("/");
      await page.keyboard.type("zzzzzzzzzz");
      await page.getByText("Nothing is found.").waitFor();
      assert.equal(wrong, []);
    } finally {
      await browser.close();
    }
  },
);

test.run();
