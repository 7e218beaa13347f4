import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createTerminal } from "../../../lib/cli/terminal.ts";
import { openRun } from "../../../lib/run/run.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("secrets show as ***, in whatever call they come", async () => {
  const dir = tempDir();
  const options = { wait: false, terminal: createTerminal({ quiet: true }), signal: new AbortController().signal };
  const run = await openRun((id) => id, { dir }, options);
  run.use({ secrets: ["hunter2hunter2"] });
  await run.begin({ event: "push", ref: "hunter2hunter2" }, { hold: true });
  await run.stage("a", async ({ say }) => {
    say("password hunter2hunter2!");
    say("from https://ada:hunter3@example.com/site.git");
    say("from https://ghp_0123456789@example.com/site.git and ssh://git@example.com/x");
  });
  await run.end();
  const texts = (await readFile(join(dir, "logs.txt"), "utf8"))
    .trim()
    .split("\n")
    .map((line) => line.split(" | ")[1]);
  assert.equal(texts.slice(0, 4), [
    "start event=push ref=***",
    "password ***!",
    "from https://***@example.com/site.git",
    "from https://***@example.com/site.git and ssh://git@example.com/x",
  ]);
});

test.run();
