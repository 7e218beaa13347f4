import { test } from "uvu";
import * as assert from "uvu/assert";
import { ignoreRules } from "../../../lib/files/ignore.ts";

const table: [rules: string, ignored: string[], kept: string[]][] = [
  ["*.md", ["a.md", "deep/b.md"], ["a.mdx", "md"]],
  ["/only-top.txt", ["only-top.txt"], ["a/only-top.txt"]],
  ["a/b", ["a/b"], ["x/a/b", "a/bc"]],
  ["**/cache", ["cache", "a/cache", "a/b/cache"], ["cachet"]],
  ["a/**", ["a/b", "a/b/c"], ["a"]],
  ["a/**/z", ["a/z", "a/b/c/z"], ["a/zz"]],
  ["f?.[jt]s", ["fa.js", "d/fb.ts"], ["f.js", "fab.js", "fa.cs"]],
  ["[!a].x", ["b.x"], ["a.x"]],
  ["*.log\n!keep.log", ["a.log"], ["keep.log"]],
  ["# comment\n\n\\#real", ["#real"], ["comment"]],
  ["[[:digit:]]-[a-c\\]].x", ["1-a.x", "1-].x"], ["a-a.x"]],
  ["a[]].js", ["a].js"], ["a[].js"]],
  ["a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt"]],
];
for (const [rules, ignored, kept] of table) {
  test(`.releaseignore: ${JSON.stringify(rules)}`, async () => {
    const test = await ignoreRules(rules, "F");
    for (const path of ignored) assert.ok(test(path, false), path);
    for (const path of kept) assert.not(test(path, false), path);
  });
}

test(".releaseignore: what git would never match is a mistake, with its line", async () => {
  for (const pattern of ["a[", "[z-a]", "[ab]/c[!d"]) {
    const told = await ignoreRules(`ok\n${pattern}\n`, "F").catch((error: Error) => error.message);
    assert.match(String(told), `F:2: "${pattern}" is not a pattern`);
  }
});

test("a pattern that ends in / is for folders only", async () => {
  const ignored = await ignoreRules("build/", "F");
  assert.ok(ignored("build", true));
  assert.ok(ignored("a/build", true));
  assert.not(ignored("build", false));
});

test.run();
