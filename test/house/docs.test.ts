// The documents say what the scripts do: `--help` is the source of each page's usage.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { root } from "../helpers/runtime.ts";
import { runScript } from "../helpers/run.ts";
import { scriptNames } from "../../tools/scripts.ts";

const scripts = await scriptNames();

for (const name of scripts)
  test(`docs/${name}.md shows what ${name} --help and its commands' --help print`, async () => {
    const page = await readFile(join(root, "docs", `${name}.md`), "utf8");
    const block = /^```text\n(([a-z-]+(?: [a-z]+)*): .*\n\nUsage\n[\s\S]*?)^```$/gm;
    const shown = [...page.matchAll(block)];
    assert.is(shown[0]?.[2], name);
    for (const [, text = "", command = ""] of shown) {
      const words = command.split(" ").slice(1);
      const { stdout } = await runScript(name, [...words, "--help"], { expect: 0 });
      assert.fixture(text, stdout);
    }
  });

const pages = (await readdir(root, { recursive: true })).filter(
  (file) => file.endsWith(".md") && !/(^|\/)(node_modules|\.cache|dist|fixtures)\//.test(file),
);
for (const page of pages.sort()) {
  test(`the links in ${page} lead somewhere`, async () => {
    const text = await readFile(join(root, page), "utf8");
    for (const [, target = ""] of text.matchAll(/\]\((?!\w+:|#)([^)#\s]+)[^)]*\)/g)) {
      const file = join(root, page, "..", target);
      await readFile(file).catch((error) => {
        if (error.code !== "EISDIR") throw new Error(`${page} links to ${target}: not there`);
      });
    }
  });
}

test.run();
