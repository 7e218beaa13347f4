// The test runner, given what uvu alone would call a success.
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { acrossRuntimes } from "../across-runtimes.ts";
import { writeFiles } from "../helpers/repos.ts";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness } from "../helpers/wait.ts";
import { long } from "../long.ts";

const uvu = `import { createRequire } from "node:module";
const { test } = createRequire(import.meta.url)("${createRequire(import.meta.url).resolve("uvu")}");
`;
const good = `${uvu}test("good", () => {}); test("good too", () => {}); test.run();`;

/** Seconds that a file gets: enough for a start, also when the load grows meanwhile. */
const limit = Math.ceil(5 * slowness());

/** Runs the runner over files in a folder of their own. */
async function runOver(files: Record<string, string>, args: string[] = []) {
  const folder = tempDir();
  await writeFiles(folder, files);
  const runner = current.argv(join(root, "test/run.ts"));
  const flags = ["--in", folder, "--limit", `${limit}`, "--jobs", "4", "--runtime", runner[0] ?? ""];
  const { code, stdout } = await runCommand([...runner, ...flags, ...args]);
  return { code, stdout, sums: stdout.trim().split("\n").at(-1) };
}

test("passed tests are counted", async () => {
  const { code, sums } = await runOver({ "a.test.ts": good, "b/b.test.ts": good });
  assert.is(sums, "4 passed, 0 failed");
  assert.is(code, 0);
});

test("what takes long is run with --all, and by its name", async () => {
  const [name = ""] = Object.keys(long);
  const files = { "short.test.ts": good, [`${name}.test.ts`]: good };
  const sums = await Promise.all([[], ["--all"], [name]].map(async (args) => (await runOver(files, args)).sums));
  assert.equal(sums, ["2 passed, 0 failed", "4 passed, 0 failed", "2 passed, 0 failed"]);
  for (const each of Object.keys(long)) assert.ok(existsSync(join(root, `test/${each}.test.ts`)), each);
});

/** What, the file, what the runner says, tests that still count as passed. */
const cases: [string, string, RegExp, number][] = [
  ["a failing test", `${uvu}test("bad", () => { throw new Error("why"); }); test.run();`, /why/, 0],
  ["a file that forgot test.run()", `${uvu}test("good", () => {});`, /is test\.run\(\) missing/, 0],
  ["a file without tests", `${uvu}test.run();`, /no test ran/, 0],
  [
    "a test that hangs",
    `${uvu}test("hangs", () => new Promise((done) => setTimeout(done, 3_600_000))); test.run();`,
    /still running after \d+ s/,
    0,
  ],
  ["a server left open", `${good} setInterval(() => {}, 1000);`, /something is still open/, 2],
  [
    "a failing hook",
    `${uvu}test.before(() => { throw new Error("x"); }); test("good", () => {}); test.run();`,
    /FAIL/,
    0,
  ],
  [
    "a skip without a reason",
    `${uvu}test.skip("s", () => {}); test("good", () => {}); test.run();`,
    /without a reason/,
    1,
  ],
  ["a crash after the tests", `${good} setTimeout(() => { throw new Error("late"); }, 200);`, /late/, 2],
  [
    "a file left behind",
    `import { writeFileSync } from "node:fs"; writeFileSync(process.env.TMPDIR + "/x", ""); ${good}`,
    /left .*\/x behind/,
    2,
  ],
  [
    "a process left behind",
    `import { spawn } from "node:child_process"; spawn("sh", ["-c", "setsid sleep 601 &"], { stdio: "ignore" }); ${good}`,
    /left process \d+ running: sleep 601/,
    2,
  ],
];
let report = "";
test("each of these fails the run", async () => {
  const files = cases.map(([, file], index) => [`case-${index}.test.ts`, file]);
  const { code, stdout } = await runOver(Object.fromEntries(files));
  report = stdout;
  assert.is(code, 1);
});

for (const [index, [what, , reason, passed]] of cases.entries()) {
  test(`${what} fails its file`, () => {
    const part = report.split(/^(?=ok  |FAIL|failed:)/m).find((text) => {
      return text.includes(`case-${index}.test.ts\n`);
    });
    assert.match(part ?? "", new RegExp(`^FAIL +[\\d.]+ s +${passed} `));
    assert.match(part ?? "", reason);
  });
}

test("a second try saves what failed beside others, and names it; what fails twice fails", async () => {
  const mark = join(tempDir(), "was-here");
  const unsteady = `import { existsSync, writeFileSync } from "node:fs"; ${uvu}
    const isSecond = existsSync("${mark}"); writeFileSync("${mark}", "");
    test("unsteady", () => { if (!isSecond) throw new Error("upset"); }); test.run();`;
  const bad = `${uvu}test("bad", () => { throw new Error("why"); }); test.run();`;
  const files = { "good.test.ts": good, "unsteady.test.ts": unsteady };
  const saved = await runOver(files, ["--second-try"]);
  assert.match(saved.stdout, /^FAIL.* \S*unsteady\.test\.ts$/m);
  assert.match(saved.stdout, /^unsteady, passed alone:\n {2}\S*\/unsteady\.test\.ts$/m);
  assert.is(saved.sums, "3 passed, 0 failed, 1 unsteady");
  assert.is(saved.code, 0);
  const lost = await runOver({ "good.test.ts": good, "bad.test.ts": bad }, ["--second-try"]);
  assert.is(lost.sums, "2 passed, 1 failed");
  assert.is(lost.code, 1);
});

test("each file that is named for all runtimes is there", async () => {
  const files = await readdir(join(root, "test"), { recursive: true });
  for (const beginning of acrossRuntimes) {
    const found = files.some((file) => file.startsWith(beginning) && file.endsWith(".test.ts"));
    assert.ok(found, `test/across-runtimes.ts names ${beginning}`);
  }
});

test("a run that found no file fails", async () => {
  const { code, stdout, sums } = await runOver({ "a.test.ts": good }, ["no-such-file"]);
  assert.match(stdout, /no test ran/);
  assert.is(sums, "0 passed, 1 failed");
  assert.is(code, 1);
});

test.run();
