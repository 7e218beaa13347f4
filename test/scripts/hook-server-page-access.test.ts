// The page for everybody: axe-core on each page, light and dark; by keyboard alone; without JavaScript.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { needsChromium, startBrowser } from "../helpers/browser.ts";
import { type HookServer, pushPayload, sha } from "../helpers/hooks.ts";
import { password, startPage, visit } from "../helpers/page.ts";
import { prepare } from "../helpers/prepare.ts";
import { testUnless } from "../helpers/skip.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

let browser: Browser;
let server: HookServer;
/** Runs that failed, succeeded, and is under way. */
let failed = "";
let good = "";
let running = "";

prepare(test, async () => {
  if (needsChromium) return;
  browser = await startBrowser();
  server = await startPage({
    repos: {
      "me/site": "",
      "me/broken": "refs: ['**']",
      "me/busy": "",
      "me/words": "refs: ['**']",
    },
    top: "fleet: { list: list, state: fleet }\nreleases: [web]",
    job: [
      "printf '\\033[32mgreen\\033[0m and \\033[1;31mred\\033[0m\\n'",
      'for i in $(seq 1 700); do echo "line $i"; done',
      'test "$HOOK_REPO" = me/broken && { echo "error: it broke"; exit 1; }',
      'test "$HOOK_REPO" = me/busy && sleep 600; true',
    ].join("\n"),
  });
  await writeFile(join(server.dir, "list"), "one\ntwo\n");
  await keepFleet();
  const push = async (repo: string, n: number, ref?: string, message = "Say what the harbour is") =>
    (
      await server.send({
        payload: {
          ...pushPayload(repo, sha(n), ref),
          head_commit: { id: sha(n), message, author: { name: "Ada" } },
        },
      })
    ).body.run as string;
  for (const n of [1, 2]) {
    await push("me/site", n);
    await server.idle();
  }
  good = await push("me/site", 3);
  const branch = "refs/heads/fix/the-name-of-a-branch-can-be-much-longer-than-a-phone-is-wide-and-have-no-blank";
  failed = await push("me/broken", 4, branch);
  await push("me/words", 6, "refs/heads/\u05e2\u05e0\u05e3", "\u05db\u05d5\u05ea\u05e8\u05ea");
  await server.idle();
  running = await push("me/busy", 5);
  await waitFor(async () => (await server.runs()).some(({ state }) => state === "running"));
});
test.after(async () => {
  await browser?.close();
  if (!server) return;
  // its process ends with it
  await server.local(`/runs/${running}/cancel`, "POST");
  await server.idle();
  await server.stop();
});

/** As `server-update --status` leaves it. */
async function keepFleet(): Promise<void> {
  await mkdir(join(server.dir, "fleet/status"), { recursive: true });
  const time = new Date().toISOString();
  const site = { repo: "site", sha: sha(1), branch: "main", since: time, wanted: sha(1) };
  const hosts = [
    { target: "one", repos: [{ ...site, drift: "" }] },
    { target: "two", repos: [{ ...site, drift: "DIFFERS" }] },
    { target: "three", error: "connection refused", repos: [] },
  ];
  await writeFile(
    join(server.dir, "fleet/status/site.json"),
    JSON.stringify({ time, list: join(server.dir, "list"), hosts }),
  );
}

const unless = testUnless(test, needsChromium);
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe-core finds on a page: rule and place, a line each; in the dark only the colours are others. */
async function findings(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const found: string[] = [];
  for (const [colorScheme, more] of [
    ["light", ""],
    ["dark", `, runOnly: ["color-contrast"]`],
  ] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    found.push(
      ...(await page.evaluate<string[]>(`(async () => {
        const { violations } = await axe.run(document, { resultTypes: ["violations"]${more} });
        return violations.flatMap(({ id, nodes }) =>
          nodes.map(({ target, failureSummary }) => id + " " + target + " " + failureSummary));
      })()`)),
    );
  }
  return found;
}

const address = (path: string) => `http://localhost:${server.port}${path}`;

/** How many pixels of a page are beside the window, and whether one can sign out without looking for it. */
const misfits = (page: Page) =>
  page.evaluate<string[]>(`(() => {
    const over = document.documentElement.scrollWidth - innerWidth;
    const box = document.querySelector("form[action='/sign-out'] button").getBoundingClientRect();
    return [...(over > 0 ? [over + " px too wide"] : []), ...(box.right > innerWidth ? ["no way out"] : [])];
  })()`);

unless("axe-core finds nothing on any page, light and dark, and a phone shows them whole", async () => {
  const page = await visit(browser, server);
  const paths = [
    "/",
    "/runs?result=failed",
    "/repos/me/site",
    "/repos/me/broken",
    `/runs/${failed}`,
    `/runs/${running}`,
    `/runs/${good}/rerun`,
    "/fleet",
    "/releases",
    "/nothing",
  ];
  for (const path of paths) {
    await page.goto(address(path));
    if (path === `/runs/${failed}`) await page.waitForSelector(".window .row");
    assert.equal(await findings(page), [], path);
    await page.setViewportSize({ width: 390, height: 780 });
    assert.equal(await misfits(page), [], `${path} on a phone`);
    await page.setViewportSize({ width: 1280, height: 800 });
  }
  await page.click("text=Sign out");
  await page.waitForSelector("#secret");
  assert.equal(await findings(page), [], "/sign-in");
  await page.fill("#secret", "wrong");
  await page.press("#secret", "Enter");
  await page.waitForSelector("[role=alert]");
  assert.equal(await findings(page), [], "/sign-in with a problem");
  assert.equal(page.faults, []);
  await page.context().close();
});

/** What a screen reader is told of a page: role and name of each thing that has a name, as chromium has them. */
async function told(page: Page): Promise<string[]> {
  const devtools = await page.context().newCDPSession(page);
  const { nodes } = await devtools.send("Accessibility.getFullAXTree");
  await devtools.detach();
  return nodes
    .filter(({ ignored, name, role }) => !ignored && name?.value && !/Text/.test(role?.value))
    .map(({ role, name }) => `${role?.value}: ${name?.value}`);
}

unless("a screen reader is told of bars, the plot, stages, the log and what happens", async () => {
  const page = await visit(browser, server);
  const has = async (...wanted: string[]) => {
    const all = await told(page);
    for (const each of wanted) assert.ok(all.includes(each), `${each} in\n${all.join("\n")}`);
  };
  await has(
    "heading: Repos",
    "searchbox: Filter",
    "image: the last 3 runs: 3 succeeded",
    "image: the last run: 1 failed",
    "image: no runs yet",
    "link: me/broken",
    "region: Under way",
    "navigation: Pages",
  );
  await page.goto(address("/repos/me/site"));
  await has("group: Duration of 3 runs by their stages", "combobox: Branch", "table: Runs, the newest first");
  await page.goto(address(`/runs/${failed}`));
  await page.waitForSelector(".window .row");
  await has(
    "heading: failed Say what the harbour is",
    "region: Log",
    "region: Log lines",
    "button: Next match",
    "button: Previous match",
    "button: Error",
    "button: Follow",
    "searchbox: Search the log",
    "link: line 702",
    "link: Run again",
  );
  // what has happened is said by itself
  for (const live of ["footer [role=status]", ".logbar output"]) assert.is(await page.locator(live).count(), 1, live);
  await page.context().close();
});

/** What has the focus, as a screen reader would say it. */
const focused = (page: Page) =>
  page.evaluate<string>(
    `(document.activeElement?.ariaLabel || document.activeElement?.textContent || document.activeElement?.id || "").trim()`,
  );

/** Press Tab until something has the focus. */
async function tabTo(page: Page, name: RegExp): Promise<void> {
  const seen: string[] = [];
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press("Tab");
    const now = await focused(page);
    if (name.test(now)) return;
    seen.push(now);
  }
  assert.unreachable(`Tab does not lead to ${name}: ${seen.join(" | ")}`);
}

unless("a branch and a commit in letters from right to left keep their places", async () => {
  const page = await visit(browser, server);
  for (const path of ["/", "/repos/me/words"]) {
    await page.goto(address(path));
    const row = page.locator("tr", { has: page.locator("[href*='/repos/me/words'], .id") }).last();
    const [branch, title] = [row.locator(".ref"), row.locator(".title")];
    assert.is(await branch.textContent(), "\u05e2\u05e0\u05e3");
    const [left, right] = [await branch.boundingBox(), await title.boundingBox()];
    assert.ok((left?.x ?? 0) < (right?.x ?? 0), `the branch stands first on ${path}`);
  }
  await page.context().close();
});

unless("with forced colours it shows which line is marked, and that the log is followed", async () => {
  const page = await visit(browser, server, "/", { forcedColors: "active" });
  await page.goto(`${address(`/runs/${failed}`)}#L2`);
  await page.waitForSelector(".row.marked");
  const ground = (selector: string) =>
    page.evaluate<string>(`getComputedStyle(document.querySelector(${JSON.stringify(selector)})).backgroundColor`);
  const marked = await ground(".row.marked");
  assert.is.not(marked, await ground(".row:not(.marked)"));
  await page.click("text=Follow");
  assert.is(await ground("[aria-pressed=true]"), marked);
  await page.context().close();
});

unless("a page that is scrolled stays where it is when the script takes the log over", async () => {
  const page = await visit(browser, server);
  let letGo = () => {};
  const held = new Promise<void>((done) => (letGo = done));
  await page.route("**/lines?folds=1", async (route) => {
    await held;
    await route.continue();
  });
  await page.goto(address(`/runs/${good}`));
  const scrolled = () => page.evaluate<number>("scrollY");
  await page.evaluate("scrollTo(0, 1e6)");
  const before = await scrolled();
  assert.ok(before > 0);
  letGo();
  await page.waitForSelector(".window .row");
  // whatever the fonts make of the log's head
  const after = await scrolled();
  assert.ok(Math.abs(after - before) < 20, `${before} px, then ${after} px`);
  await page.context().close();
});

unless("all of it can be done by keyboard alone", async () => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000 * slowness());
  await page.goto(address("/"));
  // the field has the focus from the start
  await page.waitForSelector("#secret:focus");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.waitForSelector("form[action='/sign-out']");
  // its script has run: keys act
  await page.waitForLoadState();
  await page.keyboard.press("Tab");
  assert.is(await focused(page), "Skip to the content");
  await page.keyboard.press("/");
  await page.keyboard.type("broken");
  await waitFor(async () => (await page.locator("tr[data-words]:visible").count()) === 1);
  await page.waitForSelector("[role=status] >> text=1 repo fits the filter");
  await tabTo(page, /^failed$/);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/runs/${failed}`);
  await page.waitForSelector(".window .row");
  // the first error, a search, the next match, the end of the log
  await page.keyboard.press("e");
  await page.waitForSelector(".row.marked >> text=error: it broke");
  await page.keyboard.press("/");
  await page.keyboard.type("line 35");
  await page.keyboard.press("Enter");
  await page.waitForSelector(".row.marked >> text=/line 35/");
  await page.locator(".window").focus();
  await page.keyboard.press("Home");
  await page.waitForSelector(".row >> text=green and red");
  // run it again: a question first
  await page.goto(address(`/runs/${failed}`));
  await tabTo(page, /^Run again$/);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/rerun");
  await tabTo(page, /^Run again$/);
  await page.keyboard.press("Enter");
  await page.waitForSelector("dt:has-text('Rerun of')");
  await tabTo(page, /^Sign out$/);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#secret");
  await context.close();
});

unless("what the filter finds stays said when the stream of changes opens after it", async () => {
  const page = await visit(browser, server);
  let letGo = () => {};
  const held = new Promise<void>((done) => (letGo = done));
  await page.route("**/live", async (route) => {
    await held;
    await route.continue();
  });
  // the first event comes once the stream is open
  await page.addInitScript(`window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      this.addEventListener("hello", () => (document.body.dataset.heard = "hello"));
    }
  }`);
  await page.goto(address("/"));
  await page.keyboard.press("/");
  await page.keyboard.type("broken");
  await page.waitForSelector("[role=status] >> text=1 repo fits the filter");
  letGo();
  await page.waitForSelector("[data-heard]");
  assert.is(await page.textContent("footer [role=status]"), "1 repo fits the filter");
  await page.context().close();
});

unless("single keys as shortcuts can be turned off, and the browser remembers it", async () => {
  const page = await visit(browser, server);
  const tag = () => page.evaluate<string>("document.activeElement.type ?? ''");
  await tabTo(page, /^Keyboard shortcuts$/);
  await page.keyboard.press("Enter");
  assert.match((await page.textContent("footer .shortcuts dl")) ?? "", /filter the repos/);
  await tabTo(page, /^shortcuts$/);
  await page.keyboard.press("Space");
  await page.keyboard.press("/");
  assert.is(await tag(), "checkbox");
  await page.goto(address(`/runs/${failed}`));
  await page.waitForSelector(".window .row");
  await page.locator(".window").focus();
  for (const key of ["e", "f", "/"]) await page.keyboard.press(key);
  assert.is(await page.locator(".tools button[aria-pressed=true]").count(), 0);
  assert.is(await page.locator(".tools input:focus").count(), 0);
  await page.click("footer summary");
  await page.check("#shortcuts");
  await page.keyboard.press("/");
  assert.is(await tag(), "search");
  assert.equal(page.faults, []);
  await page.context().close();
});

unless("without JavaScript all can be read and steered, a log by pages of text", async () => {
  const page = await visit(browser, server, "/?q=site", { javaScriptEnabled: false });
  // the server filters
  assert.equal(await page.locator(".repos tbody th a").allTextContents(), ["me/site"]);
  await page.click(".repos tbody .state a");
  await page.waitForURL(`**/runs/${good}`);
  const lines = () => page.locator(".lines").textContent();
  assert.match((await lines()) ?? "", "green and red");
  assert.match((await lines()) ?? "", "line 499");
  assert.not.match((await lines()) ?? "", "line 600");
  // selectors by text leave out what stands in <noscript>
  await page.click(".log .pager a[href='?from=501#log']");
  await page.waitForURL("**from=501*");
  assert.match((await lines()) ?? "", "line 600");
  await page.click(".log .pager a[href='?from=1#log']");
  await page.waitForSelector(".lines >> text=green");
  await page.click("text=Run again");
  await page.click("button:has-text('Run again')");
  await page.waitForSelector("dt:has-text('Rerun of')");
  // one whose first run goes on is found by what that is about
  await page.goto(address("/?q=Harbour"));
  assert.equal(await page.locator(".repos tr.none th a").allTextContents(), ["me/busy"]);
  await page.goto(address("/fleet"));
  assert.equal(await page.locator("tr.drift th").allTextContents(), ["three", "two"]);
  await page.click("text=Sign out");
  await page.waitForSelector("#secret");
  await page.context().close();
});

test.run();
