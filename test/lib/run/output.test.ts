import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createTerminal } from "../../../lib/cli/terminal.ts";
import { createOutput } from "../../../lib/run/output.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("secrets show as ***, in whatever call they come", async () => {
  const file = join(tempDir(), "logs.txt");
  const output = createOutput(file, "20261120T101500Z-3f2a9c", createTerminal({ quiet: true }));
  output.hide(["hunter2hunter2"]);
  output.line("a", "password hunter2hunter2!");
  output.mark({ kind: "start", event: "push", ref: "hunter2hunter2" });
  output.line("a", "from https://ada:hunter3@example.com/site.git");
  output.line("a", "from https://ghp_0123456789@example.com/site.git and ssh://git@example.com/x");
  await output.open();
  await output.close();
  const texts = (await readFile(file, "utf8"))
    .trim()
    .split("\n")
    .map((line) => line.split(" | ")[1]);
  assert.equal(texts, [
    "password ***!",
    "start event=push ref=***",
    "from https://***@example.com/site.git",
    "from https://***@example.com/site.git and ssh://git@example.com/x",
  ]);
});

test.run();
