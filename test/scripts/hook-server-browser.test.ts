// The page in a real browser: from sign-in to sign-out, live logs, long ones.
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { needsChromium, startBrowser } from "../helpers/browser.ts";
import { type Builders, makeBuilders } from "../helpers/builders.ts";
import { type HookServer, sha, startHooks } from "../helpers/hooks.ts";
import { needsNats } from "../helpers/nats.ts";
import { password, startPage, visit as visitAs } from "../helpers/page.ts";
import { prepare } from "../helpers/prepare.ts";
import { testUnless } from "../helpers/skip.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

let browser: Browser;
let builders: Builders | undefined;
prepare(test, async () => {
  if (!needsChromium) browser = await startBrowser();
});
test.after(async () => await browser?.close());
test.after.each(async () => {
  await builders?.end();
  builders = undefined;
});

const visit = (...where: [server: HookServer, path?: string, options?: object]) => visitAs(browser, ...where);

/** The text of the log's rows that can be seen: asked of the points of the screen. */
async function rowsOnScreen(page: Page): Promise<string[]> {
  return await page.evaluate<string[]>(`(() => {
    const box = document.querySelector(".window")?.getBoundingClientRect();
    const rows = [];
    if (box)
      for (let y = box.top + 10; y < Math.min(box.bottom, innerHeight); y += 20)
        rows.push(document.elementFromPoint(box.left + 200, y)?.closest(".row")?.textContent ?? "");
    return rows;
  })()`);
}

/** A job's command that tells of a stage, as build does. */
const stage = (name: string, result?: string) =>
  `echo '${JSON.stringify({ time: new Date().toISOString(), name, at: 0, result })}' >> "$BOATYARD_STAGES"`;

const unless = testUnless(test, needsChromium);

unless("the whole way: sign in, push, watch the log live in two browsers, cancel, run again, sign out", async () => {
  const server = await startPage({
    job: `for i in $(seq 1 100); do echo "line $i"; done; ${stage("compile")}; until test -e go; do sleep 0.05; done; echo more words; ${stage("compile", "ok")}; ${stage("check")}; until test -e end; do sleep 0.05; done`,
  });
  const [page, second] = [await visit(server), await visit(server)];
  await page.waitForSelector(".repos >> text=site");
  const { body } = await server.push("me/site", sha(1));
  // the overview shows it by itself
  await page.waitForSelector(".now .pill.running");
  await page.click(".now a");
  await page.waitForURL(`**/runs/${body.run}`);
  await second.goto(page.url());
  for (const each of [page, second]) await each.waitForSelector(".row >> text=line 100");
  // one that waits shows that it has begun; what has the focus keeps it while the stages change
  const next = (await server.push("me/site", sha(2))).body.run as string;
  const waiting = await page.context().newPage();
  await waiting.goto(`http://localhost:${server.port}/runs/${next}`);
  await waiting.waitForSelector("#summary .pill.waiting");
  await second.focus("#stages a");
  await writeFile(join(server.dir, "co/go"), "");
  for (const each of [page, second]) await each.waitForSelector(".row >> text=more words");
  await second.waitForSelector("#stages .pill.ok");
  assert.is(await second.evaluate("document.activeElement.textContent"), "compile");
  await page.click("text=Cancel");
  await page.click("button:has-text('Cancel the run')");
  await second.waitForSelector("#summary .pill.cancelled");
  assert.is(await second.textContent("[role=status]"), "The run has ended: cancelled");
  assert.match(await second.title(), /^cancelled: me\/site /);
  await waiting.waitForSelector("#summary .pill.running");
  await page.waitForSelector("dt:has-text('Cancelled by') + dd:has-text('password')");
  await page.click("text=Run again");
  await page.click("button:has-text('Run again')");
  await page.waitForSelector("dt:has-text('Rerun of')");
  await page.click("text=Sign out");
  await page.waitForSelector("#secret");
  // the other tab of this browser shows the form by itself, and leads back from there
  await waiting.fill("#secret", password);
  await waiting.press("#secret", "Enter");
  await waiting.waitForSelector("#summary .pill.running");
  assert.is(waiting.url(), `http://localhost:${server.port}/runs/${next}`);
  await second.goto(`http://localhost:${server.port}/`);
  await second.waitForSelector(".now .pill.running");
  assert.equal([...page.faults, ...second.faults], []);
  await Promise.all([page.context().close(), second.context().close()]);
  await writeFile(join(server.dir, "co/end"), "");
  await server.idle();
  await server.stop();
});

unless("a run that failed is run again from the stage that failed", async () => {
  const server = await startPage({
    job: `test -n "$HOOK_FROM" && { echo "from $HOOK_FROM"; exit; }; ${["pull", "pull:ok", "test", "test:failed"]
      .map((each) => stage(...(each.split(":") as [string, string?])))
      .join("; ")}; exit 1`,
  });
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const page = await visit(server, `/runs/${body.run}`);
  await page.click("text=Run again from test");
  assert.is(await page.inputValue("select[name=from]"), "test");
  await page.click("button:has-text('Run again')");
  await page.waitForSelector("dt:has-text('Started at') + dd:has-text('test')");
  await page.waitForSelector(".row >> text=from test");
  assert.equal(page.faults, []);
  await page.context().close();
  await server.idle();
  assert.is((await server.local(`/runs/${body.run}/rerun?from=tset`, "POST")).status, 404);
  await server.stop();
});

testUnless(test, needsChromium ?? needsNats)(
  "of several builders each shows the runs of the others: live log, stages, cancel, run again",
  async () => {
    builders = await makeBuilders(["one", "two"], {
      job: `for i in $(seq 1 100); do echo "line $i of $builder"; done; ${stage("compile")}; until test -e "$all/go"; do sleep 0.05; done; echo more words; ${stage("compile", "ok")}; ${stage("check")}; until test -e "$all/end"; do sleep 0.05; done`,
      top: "status: { password_file: pw }\nurl: http://localhost",
      repos: { "me/site": "runs_on: two", "me/other": "runs_on: one" },
    });
    const { dir, start } = builders;
    for (const name of ["one", "two"]) await writeFile(join(dir, name, "pw"), `${password}\n`, { mode: 0o600 });
    const [server] = await Promise.all(["one", "two"].map((name) => start(name)));
    assert.ok(server);
    const page = await visit(server);
    const { body } = await server.push("me/site", sha(1));
    // the overview shows it by itself
    await page.waitForSelector(".now .pill.running");
    const waits = (await server.push("me/site", sha(2))).body.run as string;
    const waiting = await page.context().newPage();
    await waiting.goto(`http://localhost:${server.port}/runs/${waits}`);
    await waiting.waitForSelector("#summary .pill.waiting");
    await page.click(`.now a[href='/runs/${body.run}']`);
    await page.waitForSelector("dt:has-text('Builder') + dd:has-text('two')");
    await page.waitForSelector(".row >> text=line 100 of two");
    await writeFile(join(dir, "go"), "");
    await page.waitForSelector(".row >> text=more words");
    await page.waitForSelector("#stages .pill.ok");
    await page.click("text=Cancel");
    await page.click("button:has-text('Cancel the run')");
    await page.waitForSelector("#summary .pill.cancelled");
    await page.waitForSelector("dt:has-text('Cancelled by') + dd:has-text('password')");
    // the log of a run that was elsewhere only after its page was opened
    await waiting.waitForSelector(".row >> text=more words");
    await writeFile(join(dir, "end"), "");
    await waiting.waitForSelector("#summary .pill.succeeded");
    await page.click("text=Run again");
    await page.click("button:has-text('Run again')");
    await page.waitForSelector("dt:has-text('Rerun of')");
    await page.waitForSelector("#summary .pill.succeeded");
    assert.equal(page.faults, []);
    await page.context().close();
  },
);

unless("a restart of the server in mid-log leaves no gap and doubles no line in the browser", async () => {
  const server = await startPage({
    // no further than what is in sight of line 20 before the server is gone
    job: 'for i in $(seq 1 60); do echo "line $i"; sleep 0.05; until [ $i != 25 ] || [ -e more ]; do sleep 0.05; done; done; until test -e go; do sleep 0.05; done; echo the end',
  });
  const { body } = await server.push("me/site", sha(1));
  const page = await visit(server, `/runs/${body.run}`);
  await page.waitForSelector(".row >> text=line 20");
  // the same port for the next one: the browser comes back to it
  const config = join(server.dir, "hooks.yml");
  await writeFile(config, readFileSync(config, "utf8").replace("127.0.0.1:0", `127.0.0.1:${server.port}`));
  await server.kill();
  await writeFile(join(server.dir, "co/more"), "");
  const next = await startHooks(server.dir);
  await writeFile(join(server.dir, "co/go"), "");
  await next.idle(60_000);
  await page.waitForSelector("#summary .pill.succeeded");
  const log = readFileSync(join(next.state, "runs", body.run, "log"), "utf8")
    .trimEnd()
    .split("\n");
  const rows = () => page.locator(".row").allTextContents();
  await waitFor(async () => (await rows()).at(-1) === log.at(-1), { timeout: 5000 });
  const shown = await rows();
  assert.equal(shown, log.slice(-shown.length));
  assert.equal(page.faults, []);
  await page.context().close();
  await next.stop();
});

unless(
  "a log of 100 MB opens at once, and its end, its lines by link and its search are there; one of long lines too",
  async () => {
    const server = await startPage();
    const { body } = await server.push("me/site", sha(1));
    await server.idle();
    const line = (n: number) => `${n} ${n % 3 === 0 ? "\u001b[32mgreen\u001b[0m" : "plain"} ${"x".repeat(74)}\n`;
    const parts: string[] = [];
    for (let n = 1; n <= 1_150_000; n++) parts.push(n === 777_777 ? "777777 a needle in it\n" : line(n));
    await writeFile(join(server.state, "runs", body.run, "log"), parts.join(""));
    const page = await visit(server);
    const started = Date.now();
    await page.goto(`http://localhost:${server.port}/runs/${body.run}`);
    await waitFor(async () => (await rowsOnScreen(page))[0]?.startsWith("1 plain"), {
      timeout: 5000,
    });
    const opened = Date.now() - started;
    assert.ok(opened < 5000 * slowness(), `it took ${opened} ms`);
    // its end is in sight when the bar is dragged there, and by the key
    const isAtEnd = async () => (await rowsOnScreen(page)).some((row) => row.startsWith("1150000 "));
    await page.evaluate(`(() => {
      const box = document.querySelector(".window");
      box.scrollIntoView({ block: "end" });
      box.scrollTop = box.scrollHeight;
    })()`);
    await waitFor(isAtEnd);
    await page.focus(".window");
    await page.keyboard.press("Home");
    await waitFor(async () => (await rowsOnScreen(page))[0]?.startsWith("1 plain") === true);
    await page.keyboard.press("End");
    await waitFor(isAtEnd);
    await page.keyboard.press("Home");
    await waitFor(async () => (await rowsOnScreen(page))[0]?.startsWith("1 plain") === true);
    await page.fill(".tools input", "a needle");
    await waitFor(async () => (await rowsOnScreen(page)).some((row) => row.includes("a needle in it")));
    await page.goto(`http://localhost:${server.port}/runs/${body.run}#L500000`);
    await page.reload();
    await page.waitForSelector(".row.marked >> text=500000");
    const rows = await page.locator(".window .row").count();
    assert.ok(rows < 25_000, `${rows} rows`);
    const long = Array.from({ length: 400 }, (_, n) => `${n + 1} ${"x".repeat(20_000)}\n`);
    await writeFile(join(server.state, "runs", body.run, "log"), long.join(""));
    await page.goto(`http://localhost:${server.port}/runs/${body.run}#L400`);
    await page.reload();
    await page.waitForSelector(".row.marked >> text=/^400 x/");
    assert.equal(page.faults, []);
    await page.context().close();
    await server.stop();
  },
);

test.run();
