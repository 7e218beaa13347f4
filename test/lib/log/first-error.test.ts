// Which line of a failed stage tells why.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { firstError } from "../../../lib/log/first-error.ts";
import { root } from "../../helpers/runtime.ts";

const said = (text: string) => text.split("\n")[firstError(text.split("\n"))];

for (const [tool, text, line] of [
  ["node --test", "TAP version 13\nnot ok 1 - adds\n  error: 'x'\n", "not ok 1 - adds"],
  [
    "an assertion",
    "ok 3\nfile:///a.mjs:3\nAssertionError [ERR_ASSERTION]: Expected values to be strictly equal:",
    "AssertionError [ERR_ASSERTION]: Expected values to be strictly equal:",
  ],
  [
    "python",
    "Traceback (most recent call last):\nModuleNotFoundError: No module named 'flask'",
    "ModuleNotFoundError: No module named 'flask'",
  ],
  ["pytest", "collected 3 items\nE       assert 3 == 4\n1 failed, 2 passed in 0.02s", "E       assert 3 == 4"],
  ["tsc", "src/a.ts(1,7): error TS2322: Type 'string' is not …", "src/a.ts(1,7): error TS2322: Type 'string' is not …"],
  [
    "gcc",
    "a.c: In function 'main':\na.c:3:3: error: 'x' undeclared\nmake: *** [Makefile:2: a] Error 1",
    "a.c:3:3: error: 'x' undeclared",
  ],
  [
    "npm",
    "npm warn old\nnpm error code ERESOLVE\nnpm error ERESOLVE could not resolve",
    "npm error ERESOLVE could not resolve",
  ],
  ["rust", "   Compiling a\nerror[E0382]: borrow of moved value: `a`", "error[E0382]: borrow of moved value: `a`"],
  ["jest", "PASS src/b.test.js\nFAIL src/a.test.js\n  ● adds", "FAIL src/a.test.js"],
  ["mocha", "  3 passing (4ms)\n  1 failing\n", "  1 failing"],
  ["go", "ok  a\n--- FAIL: TestAdd (0.00s)", "--- FAIL: TestAdd (0.00s)"],
  ["sh", "installing\nsh: 1: hugo: not found", "sh: 1: hugo: not found"],
  ["the kernel", "working\nKilled", "Killed"],
  [
    "a full disk",
    "copying\ncp: error writing 'x': No space left on device",
    "cp: error writing 'x': No space left on device",
  ],
  ["colours", "\u001B[31m✖ breaks\u001B[39m", "\u001B[31m✖ breaks\u001B[39m"],
] as const)
  test(`of ${tool}: ${line.slice(0, 40)}`, () => {
    assert.is(said(text), line);
  });

test("what only looks like an error is none", () => {
  assert.is(
    said("0 errors\nfailed 0\nerror-free\nno failures\n12 passing\nwarning: error handling is deprecated"),
    undefined,
  );
});

// Whole outputs of real tools, each with the command that made it in its first line (test/fixtures/first-error/make.sh).
const fixtures = join(root, "test/fixtures/first-error");
const logs = readdirSync(fixtures).filter((name) => name.endsWith(".log"));
const textOf = (name: string) => readFileSync(join(fixtures, name), "utf8");

test("of real tools' failures nine in ten are understood by the line that is found", () => {
  const failing = logs.filter((name) => existsSync(join(fixtures, name.replace(/log$/, "line"))));
  const missed = failing.filter((name) => {
    const found = stripVTControlCharacters(said(textOf(name)) ?? "").trimEnd();
    return found !== textOf(name.replace(/log$/, "line")).trimEnd();
  });
  assert.ok(failing.length >= 65, String(failing.length));
  assert.ok(missed.length <= failing.length / 10, missed.join());
});

for (const name of logs.filter((each) => each.endsWith("-pass.log")))
  test(`in a good run nothing looks like an error: ${name}`, () => {
    assert.is(said(textOf(name)), undefined);
  });

test.run();
