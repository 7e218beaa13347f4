// What the file system refuses is said in one line by every script; a stack is for bugs.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const file = join(tempDir(), "file");
await writeFile(file, "text\n");

for (const [name, ...words] of [
  ["build", file],
  ["downloads", file],
  ["uploads", file],
  ["launchfit", "--dir", file],
  ["server-update", "site", "--list", join(file, "list")],
] as const) {
  test(`${name} says in one line that a file stands where it expects a folder`, async () => {
    const { code, stderr } = await runScript(name, words);
    assert.ok(code === 1 || code === 2, stderr);
    assert.match(stderr, new RegExp(`^${name}: .*${file}.*\n$`));
  });
}

test.run();
