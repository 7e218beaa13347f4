// The page in firefox: sign in, a live log that scrolls, a line by its link, sign out. All else is tested in chromium.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Firefox, needsFirefox } from "../helpers/firefox.ts";
import { type HookServer, sha } from "../helpers/hooks.ts";
import { password, startPage } from "../helpers/page.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const unless = testUnless(test, needsFirefox || (scale < 0.5 && "a second browser: SOAK_SCALE=1"));

let server: HookServer | undefined;
let firefox: Firefox | undefined;
test.after(async () => {
  await firefox?.close();
  await server?.stop();
});

unless("in firefox one signs in, sees a log live to its end, and signs out", async () => {
  server = await startPage({
    job: 'for i in $(seq 1 3000); do echo "line $i"; done; until test -e go; do sleep 0.05; done; echo the end',
  });
  const { port, dir } = server;
  const browser = (firefox = await Firefox.start());
  const page = `http://localhost:${port}`;
  const has = (selector: string, text = "") =>
    waitFor(
      () =>
        browser.run<boolean>(
          `return [...document.querySelectorAll(${JSON.stringify(selector)})].some((each) => each.textContent.includes(${JSON.stringify(text)}))`,
        ),
      { what: `${selector} ${text}` },
    );
  /** The text at a point of the log's window, as it is drawn. */
  const drawn = (fromTop: string) =>
    browser.run<string>(
      `const box = document.querySelector(".window").getBoundingClientRect(); return document.elementFromPoint(box.left + 120, ${fromTop})?.closest(".row")?.textContent ?? ""`,
    );
  const { body } = await server.push("me/site", sha(1));
  await browser.goto(`${page}/runs/${body.run}`);
  await browser.run(
    `document.querySelector("#secret").value = ${JSON.stringify(password)}; document.querySelector(".signin form").requestSubmit()`,
  );
  await has("#summary .pill.running");
  await has(".row", "line 3000");
  await waitFor(async () => (await drawn("Math.min(box.bottom, innerHeight) - 30")).startsWith("line "));
  await browser.run('location.hash = "#L1500"');
  await has(".row.marked", "line 1500");
  assert.match(await drawn("box.top + 10"), /^line 14\d\d$/);
  await browser.run('document.querySelector(".tools [aria-pressed]").click()');
  await writeFile(join(dir, "co/go"), "");
  await has(".row", "the end");
  await has("#summary .pill.succeeded");
  await has("[role=status]", "The run has ended: succeeded");
  await browser.run("document.querySelector(\"form[action='/sign-out']\").requestSubmit()");
  await has("#secret");
  await browser.goto(`${page}/`);
  await has("#secret");
});

test.run();
