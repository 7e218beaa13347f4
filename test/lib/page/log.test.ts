// Where the lines of a log begin: long lines, colours, and what a search sees.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";
import { LogIndex } from "../../../lib/page/log.ts";
import { tempDir } from "../../helpers/tmp.ts";

const mask = createMask([]);

async function indexOf(text: string): Promise<LogIndex> {
  const path = join(tempDir("log-"), "log");
  await writeFile(path, text);
  const index = new LogIndex(path);
  await index.update();
  return index;
}

test("a line that is longer than what is read at once counts alike wherever it is asked for", async () => {
  const long = `${"x".repeat(600 * 1024)}\n`;
  const text = `first\n${long}third\n`.repeat(700);
  const index = await indexOf(text.slice(0, 8 * long.length));
  const all: string[] = [];
  for (let part = await index.read(0, 2000, mask); part.lines.length > 0; ) {
    all.push(...part.lines);
    part = await index.read(all.length, 2000, mask);
  }
  assert.is(index.lines, all.length, "as many as can be read");
  const thirds = all.flatMap((line, number) => (line === "third" ? [number] : []));
  const { lines } = await index.find((line) => line === "third", { most: 100, mask });
  assert.equal(lines, thirds);
  for (const [n, number] of thirds.entries())
    assert.is(await index.lineAt(n * (long.length + 12) + 6 + long.length), number);
});

test("the colours that a line begins with are known after text of any language", async () => {
  const lines = Array.from({ length: 1002 }, () => "plain");
  // a byte of these letters begins a sequence, were they read as Latin-1
  lines[998] = "\u001b[31mÛm";
  lines[999] = "盛m ßÜ";
  const { style } = await (await indexOf(`${lines.join("\n")}\n`)).read(1000, 1, mask);
  assert.is(style, "1,-1,0");
});

test.run();
