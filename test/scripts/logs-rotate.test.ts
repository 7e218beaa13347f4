import { chmod, chown, mkdir, readdir, readFile, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { gunzipSync, gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { acquireLock } from "../../lib/files/lock.ts";
import { contentOf } from "../helpers/log-content.ts";
import { runAt, runLines, sampleRun } from "../helpers/log-samples.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const run = runAt("11:00:00");
const line = (text: string) => runLines(run, [["a", text]]);
const rotate = (dir: string, ...flags: string[]) => runScript("logs", ["rotate", dir, ...flags], { expect: 0 });
const partsIn = async (dir: string) => (await readdir(dir)).filter((name) => /\.\d{8}T\d{6}Z/.test(name)).sort();

async function folderWith(files: Record<string, string | Uint8Array>): Promise<string> {
  const dir = tempDir();
  for (const [name, content] of Object.entries(files)) await writeFile(join(dir, name), content);
  return dir;
}

test("a log past the size is renamed and compressed; a smaller and younger one stays", async () => {
  const text = sampleRun(run);
  const dir = await folderWith({ "logs.txt": text });
  await chmod(join(dir, "logs.txt"), 0o640);
  await rotate(dir, "--max-age", "100000d");
  assert.equal(await partsIn(dir), []);
  const { stdout } = await rotate(dir, "--max-size", "100");
  assert.match(stdout, /^rotated .*logs\.txt to logs\.txt\.\d{8}T\d{6}Z\ncompressed /);
  const [part = ""] = await partsIn(dir);
  assert.match(part, /^logs\.txt\.\d{8}T\d{6}Z\.gz$/);
  assert.is(gunzipSync(await readFile(join(dir, part))).toString(), text);
  assert.is((await stat(join(dir, part))).mode & 0o777, 0o640);
  assert.not.ok((await readdir(dir)).includes("logs.txt"));
  await rotate(dir, "--max-size", "1");
  assert.equal(await partsIn(dir), [part], "nothing is there to be rotated");
});

test("a log whose first line is old is rotated, an empty one never", async () => {
  const dir = await folderWith({ "logs.txt": line("old") });
  await rotate(dir, "--max-age", "1h");
  assert.is((await partsIn(dir)).length, 1);
  await writeFile(join(dir, "logs.txt"), "");
  await rotate(dir, "--max-age", "0s", "--max-size", "0");
  assert.is((await partsIn(dir)).length, 1);
});

test("only --keep parts stay, the newest; other files are not touched", async () => {
  const names = Array.from({ length: 5 }, (_, index) => `logs.txt.2026111${index}T000000Z.gz`);
  const others = [
    "logs.txt.bak",
    "logs.txt.20261110T000000Z.gz.old",
    "logs.txt.20261110T000000Z-2.gz",
    "xlogs.txt.20261110T000000Z",
    "logs.txt.1",
  ];
  const dir = await folderWith(Object.fromEntries([...names, ...others].map((name) => [name, gzipSync(name)])));
  await writeFile(join(dir, "logs.txt"), line("new"));
  const { stdout } = await rotate(dir, "--max-size", "1", "--keep", "3", "--dry-run");
  assert.equal(
    stdout.match(/would remove .*?(\d{8})T/g)?.map((text) => text.slice(-9, -1)),
    ["20261110", "20261111", "20261112"],
  );
  assert.match(stdout, /would rotate .*\n/);
  assert.is((await readdir(dir)).length, 11, "a dry run changes nothing");
  await rotate(dir, "--max-size", "1", "--keep", "3");
  const left = await readdir(dir);
  assert.equal(
    (await partsIn(dir)).filter((name) => names.includes(name)),
    names.slice(3),
  );
  for (const name of others) assert.ok(left.includes(name), name);
});

test("--max-total limits what all parts take together", async () => {
  const text = "x".repeat(1000);
  const files = Object.fromEntries([1, 2, 3, 4].map((day) => [`logs.txt.2026111${day}T000000Z.gz`, text]));
  const dir = await folderWith(files);
  await rotate(dir, "--max-total", "2500");
  assert.equal(await partsIn(dir), ["logs.txt.20261113T000000Z.gz", "logs.txt.20261114T000000Z.gz"]);
});

test("a log is left as it is while a build or another rotation has its lock", async () => {
  const dir = await folderWith({ "logs.txt": line("one") });
  await mkdir(join(dir, ".git"));
  const lock = await acquireLock(join(dir, ".git/boatyard/build.lock"), { what: `build ${run}` });
  const { stderr, stdout } = await rotate(dir, "--max-size", "1", "--json");
  assert.match(stderr, /left .*logs\.txt as it is: .*build\.lock is locked by process \d+ \(build /);
  assert.equal(JSON.parse(stdout).held, [join(dir, "logs.txt")]);
  assert.equal(await partsIn(dir), []);
  lock.release();
  await rotate(dir, "--max-size", "1");
  assert.is((await partsIn(dir)).length, 1);
  const other = await folderWith({ "app.log": line("two") });
  const second = await acquireLock(join(other, "app.log.lock"), { what: "logs rotate" });
  assert.match((await rotate(join(other, "app.log"), "--max-size", "1")).stderr, /left .*app\.log as it is/);
  second.release();
});

test("what cron's own >> wrote before a rotation is in the part, and the next one begins a new log", async () => {
  const dir = await folderWith({ "logs.txt": line("of a build") });
  const append = (text: string) => runCommand(["sh", "-c", `echo "${text}" >> "$0"`, join(dir, "logs.txt")]);
  await append("uploads: 3 changes");
  await rotate(dir, "--max-size", "1");
  await append("downloads: fetched 1");
  const [part = ""] = await partsIn(dir);
  assert.is(gunzipSync(await readFile(join(dir, part))).toString(), `${line("of a build")}uploads: 3 changes\n`);
  assert.is(await readFile(join(dir, "logs.txt"), "utf8"), "downloads: fetched 1\n");
});

test("a log that is not there is refused, with the name that was meant, and nothing else is rotated", async () => {
  const dir = await folderWith({ "logs.txt": line("one") });
  const wrong = `${dir}/logs.tx`;
  for (const args of [
    ["rotate", dir, wrong, "--max-size", "1"],
    ["stats", wrong],
  ]) {
    const { stderr } = await runScript("logs", args, { expect: 2 });
    assert.ok(stderr.includes(`there is no ${wrong} (did you mean "logs.txt"?)`), stderr);
  }
  assert.equal(await partsIn(dir), []);
  // a checkout that was never built
  await runScript("logs", ["rotate", tempDir()], { expect: 0 });
});

test("two rotations at once rotate once", async () => {
  const dir = await folderWith({ "logs.txt": "x\n".repeat(1_000_000) });
  const both = [1, 2, 3].map(() => rotate(dir, "--max-size", "1"));
  const results = await Promise.all(both);
  assert.is(results.filter(({ stdout }) => /^rotated/m.test(stdout)).length, 1);
  assert.is((await contentOf(join(dir, "logs.txt"))).length, 1_000_000);
});

test("what a killed rotation left is tidied up: half a temporary file, a part beside its .gz", async () => {
  const dir = await folderWith({
    "logs.txt": line("live"),
    "logs.txt.20261110T000000Z": line("whole"),
    "logs.txt.20261110T000000Z.gz": gzipSync(line("whole")),
    ".logs.txt.20261110T000000Z.gz.tmp-999999999-0123abcd": "half",
  });
  await rotate(dir, "--max-age", "100000d");
  assert.equal((await readdir(dir)).sort(), ["logs.txt", "logs.txt.20261110T000000Z.gz", "logs.txt.lock"]);
  assert.equal(await contentOf(join(dir, "logs.txt")), (line("whole") + line("live")).trim().split("\n"));
});

test("two rotations in one second, or with the clock set back, never overwrite a part", async () => {
  const dir = await folderWith({ "logs.txt.29991231T235957Z.gz": gzipSync(line("future")) });
  for (const text of ["one", "two"]) {
    await writeFile(join(dir, "logs.txt"), line(text));
    await rotate(dir, "--max-size", "1");
  }
  assert.equal(await partsIn(dir), [
    "logs.txt.29991231T235957Z.gz",
    "logs.txt.29991231T235958Z.gz",
    "logs.txt.29991231T235959Z.gz",
  ]);
  assert.equal(
    await contentOf(join(dir, "logs.txt")),
    ["future", "one", "two"].map((text) => line(text).trim()),
  );
});

test("a link in the log's place is refused", async () => {
  const dir = await folderWith({ target: line("one") });
  await symlink(join(dir, "target"), join(dir, "logs.txt"));
  await runScript("logs", ["rotate", dir, "--max-size", "1"], { expect: 4 });
  assert.is(await readFile(join(dir, "target"), "utf8"), line("one"));
});

test("a pipe or a link in the place of a part or of the log is neither waited for nor read", async () => {
  // root rotates the logs of others, who can put there what they like
  const secret = join(tempDir(), "secret");
  await writeFile(secret, line("secret"));
  const dir = await folderWith({ "logs.txt": line("a"), "logs.txt.20261101T000000Z": line("b") });
  const [pipe, link] = ["logs.txt.20261102T000000Z", "logs.txt.20261103T000000Z"];
  await runCommand(["mkfifo", join(dir, pipe)], { expect: 0 });
  await symlink(secret, join(dir, link));
  const old = new Date("2026-11-02");
  for (const path of [join(dir, pipe), secret]) await utimes(path, old, old);
  await rotate(dir, "--max-size", "1");
  const parts = await partsIn(dir);
  assert.is(parts.filter((name) => name.endsWith(".gz")).length, 2);
  assert.equal(
    parts.filter((name) => name === pipe || name === link),
    [pipe, link],
  );
  const { stdout } = await runScript("logs", [dir, "--grep", "."], { expect: 0 });
  assert.not.match(stdout, /secret/);
  await runCommand(["mkfifo", join(dir, "logs.txt")], { expect: 0 });
  assert.match((await runScript("logs", [dir, "--grep", "."], { expect: 0 })).stdout, /\| a\n/);
});

test("--json tells for each folder what was done", async () => {
  const dir = await folderWith({ "logs.txt": line("one") });
  const report = JSON.parse((await rotate(dir, "--max-size", "1", "--json")).stdout);
  assert.is(report.file, join(dir, "logs.txt"));
  assert.equal(report.compressed, [report.rotated]);
  assert.equal([report.pruned, report.held, report.problems], [[], [], []]);
});

testUnless(test, needsRoot)("a part keeps its owner when root compresses it", async () => {
  const dir = await folderWith({ "logs.txt": line("one") });
  await chown(join(dir, "logs.txt"), 1234, 1234);
  await utimes(join(dir, "logs.txt"), 1_700_000_000, 1_700_000_000);
  await rotate(dir, "--max-size", "1");
  const found = await stat(join(dir, (await partsIn(dir))[0] ?? ""));
  assert.equal([found.uid, found.gid, found.mtimeMs], [1234, 1234, 1_700_000_000_000]);
  assert.is(process.getuid?.(), 0);
});

test.run();
