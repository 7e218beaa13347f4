import { readFileSync } from "node:fs";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { assets } from "../../lib/page/assets.ts";
import { pageAssets } from "../../tools/page.ts";

test("lib/page/assets.ts carries what lib/page/browser/ says: npm run page", async () => {
  const made = await pageAssets();
  const written = readFileSync("lib/page/assets.ts", "utf8");
  const texts = (source: string) =>
    [...source.matchAll(/text: `((?:[^`\\]|\\.)*)`/gs)].map(([, text]) => text);
  assert.equal(texts(written), texts(made));
});

test("the script makes no HTML and no code of text, and the page's own files are small", () => {
  const { text } = assets.script;
  for (const word of [
    /\.innerHTML\s*=[^=]/,
    /insertAdjacentHTML/,
    /outerHTML/,
    /\beval\(/,
    /new Function/,
    /document\.write/,
  ])
    assert.not.match(text, word);
  assert.ok(assets.script.text.length + assets.style.text.length < 80_000);
});

test.run();
