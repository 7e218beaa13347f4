import { readFile } from "node:fs/promises";
import { runInNewContext } from "node:vm";
import { transform } from "esbuild";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { sign } from "../../lib/core/clean.ts";
import { pageFiles } from "../../lib/page/files.ts";
import { counted, shortAge, shortDuration } from "../../lib/page/times.ts";

test("what a browser gets as a function's text names nothing outside of it", async () => {
  // a module with one function, which imports nothing but types
  for (const [file, name] of Object.entries({ client: "client", ansi: "makeAnsi" })) {
    const { code } = await transform(await readFile(`lib/page/${file}.ts`, "utf8"), { loader: "ts" });
    assert.match(code, new RegExp(`^export function ${name}\\(.*\n(?:(?: .*)?\n)*}\n$`));
  }
  const alone = (act: (...values: never[]) => string, ...values: unknown[]) =>
    assert.is(
      runInNewContext(`(${act})`, { __name: (value: unknown) => value })(...values),
      act(...(values as never[])),
    );
  alone(sign, "\u009b");
  alone(counted, 2, "repo");
  for (const seconds of [1, 20, 75, 8000]) alone(shortDuration, seconds);
  for (const now of [1000, 1e5, 1e7, 1e9]) alone(shortAge, 0, now);
});

test("the script makes no HTML and no code of text, and the page's own files are small", () => {
  const { script, style } = pageFiles();
  const danger = /\.innerHTML\s*=[^=]|insertAdjacentHTML|outerHTML|\beval\(|new Function|document\.write/;
  assert.not.match(script.text, danger);
  assert.ok(script.text.length + style.text.length < 80_000);
});

test.run();
