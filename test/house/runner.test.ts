// The test runner, given what uvu alone would call a success.
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { writeFiles } from "../helpers/repos.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";

const uvu = `import { createRequire } from "node:module";
const { test } = createRequire(import.meta.url)("${createRequire(import.meta.url).resolve("uvu")}");
`;
const good = `${uvu}test("good", () => {}); test("good too", () => {}); test.run();`;

/** Runs the runner over one file, with 3 seconds for each. */
async function runOver(file: string, args: string[] = []) {
  const folder = tempDir();
  await writeFiles(folder, { "a.test.ts": file });
  const argv = [...current.argv(join(root, "test/run.ts")), "--in", folder, "--limit", "3"];
  const { code, stdout } = await runCommand([
    ...argv,
    "--runtime",
    current.argv("")[0] ?? "",
    ...args,
  ]);
  return { code, stdout, sums: stdout.trim().split("\n").at(-1) };
}

test("passed tests are counted", async () => {
  const { code, sums } = await runOver(good);
  assert.is(sums, "2 passed, 0 failed");
  assert.is(code, 0);
});

const cases: [string, string, RegExp, string][] = [
  [
    "a failing test",
    `${uvu}test("bad", () => { throw new Error("why"); }); test.run();`,
    /why/,
    "0 passed, 1 failed",
  ],
  [
    "a file that forgot test.run()",
    `${uvu}test("good", () => {});`,
    /is test\.run\(\) missing/,
    "0 passed, 1 failed",
  ],
  ["a file without tests", `${uvu}test.run();`, /no test ran/, "0 passed, 1 failed"],
  [
    "a test that hangs",
    `${uvu}test("hangs", () => new Promise((done) => setTimeout(done, 60_000))); test.run();`,
    /still running after 3 s/,
    "0 passed, 1 failed",
  ],
  [
    "a server left open",
    `${good} setInterval(() => {}, 1000);`,
    /something is still open/,
    "2 passed, 1 failed",
  ],
  [
    "a failing hook",
    `${uvu}test.before(() => { throw new Error("x"); }); test("good", () => {}); test.run();`,
    /FAIL/,
    "0 passed, 1 failed",
  ],
  [
    "a skip without a reason",
    `${uvu}test.skip("s", () => {}); test("good", () => {}); test.run();`,
    /without a reason/,
    "1 passed, 1 failed",
  ],
  [
    "a crash after the tests",
    `${good} setTimeout(() => { throw new Error("late"); }, 200);`,
    /late/,
    "2 passed, 1 failed",
  ],
  [
    "a file left behind",
    `import { writeFileSync } from "node:fs"; writeFileSync(process.env.TMPDIR + "/x", ""); ${good}`,
    /left .*\/x behind/,
    "2 passed, 1 failed",
  ],
  [
    "a process left behind",
    `import { spawn } from "node:child_process"; spawn("sh", ["-c", "setsid sleep 61 &"], { stdio: "ignore" }); ${good}`,
    /left process \d+ running: sleep 61/,
    "2 passed, 1 failed",
  ],
];
for (const [what, file, reason, wanted] of cases) {
  test(`${what} fails the run`, async () => {
    const { code, stdout, sums } = await runOver(file);
    assert.match(stdout, reason);
    assert.is(sums, wanted);
    assert.is(code, 1);
  });
}

test("a run that found no file fails", async () => {
  const { code, stdout, sums } = await runOver(good, ["no-such-file"]);
  assert.match(stdout, /no test ran/);
  assert.is(sums, "0 passed, 1 failed");
  assert.is(code, 1);
});

test.run();
