// The documents say what the scripts do: `--help` is the source of each page's usage.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { runScript } from "../helpers/run.ts";

const scripts = (await readdir(join(root, "scripts")))
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -3));

const present: string[] = await readdir(join(root, "docs")).catch(() => []);
for (const name of scripts) {
  const missing = !present.includes(`${name}.md`) && "the page is not written yet";
  testUnless(test, missing)(
    `docs/${name}.md shows the usage that ${name} --help prints`,
    async () => {
      const page = await readFile(join(root, "docs", `${name}.md`), "utf8");
      const usage = /^## Usage\n+```text\n([\s\S]*?)```$/m.exec(page)?.[1];
      const { stdout } = await runScript(name, ["--help"], { expect: 0 });
      assert.fixture(usage ?? "", stdout);
    },
  );
}

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
