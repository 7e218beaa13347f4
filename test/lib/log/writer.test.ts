import { chmod, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Failure } from "../../../lib/core/errors.ts";
import { parseLine } from "../../../lib/log/format.ts";
import { listParts } from "../../../lib/log/parts.ts";
import { LogWriter } from "../../../lib/log/writer.ts";
import { contentOf } from "../../helpers/log-content.ts";
import { runCommand } from "../../helpers/run.ts";
import { current, root } from "../../helpers/runtime.ts";
import { needsOrdinaryUser, needsRoot, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

const turn = () => Promise.resolve();
const run = "20261121T024404Z-3f2a9c";
const texts = async (file: string) =>
  (await readFile(file, "utf8"))
    .split("\n")
    .slice(0, -1)
    .map((line) => parseLine(line)?.text ?? `?${line}`);

test("lines are TIME RUN STAGE | text, one write for all that came in one turn", async () => {
  const file = join(tempDir(), "sub/logs.txt");
  const log = new LogWriter(file, { run });
  log.mark({ kind: "start", event: "push", ref: "main" });
  log.line("install", "one\r");
  log.line("install", "two\nthree\n");
  log.line("npm test", "");
  log.line("npm test", "four");
  await turn();
  assert.equal(await texts(file), ["start event=push ref=main", "one", "two", "three", "", "four"]);
  await log.close();
  log.line("install", "after the end");
  const lines = (await readFile(file, "utf8")).trim().split("\n").map(parseLine);
  assert.equal(
    lines.map((line) => line?.run),
    Array.from({ length: 6 }, () => run),
  );
  assert.equal(
    lines.map((line) => line?.stage),
    ["run", "install", "install", "install", "npm_test", "npm_test"],
  );
});

test("a process that dies has written all that it was given", async () => {
  const file = join(tempDir(), "logs.txt");
  const death = current.argv(join(root, "test/helpers/log-death.ts"));
  await runCommand([...death, file, "exit"], { expect: 3 });
  assert.is((await runCommand([...death, file, "kill"])).signal, "SIGKILL");
  await runCommand([...death, file, "throw"], { expect: 1 });
  assert.equal(await texts(file), ["exit", "kill", "throw"]);
});

test("a writer goes on in a new log when somebody renamed or removed the old one", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const log = new LogWriter(file, { run });
  const write = async (text: string) => {
    log.line("a", text);
    await turn();
  };
  await write("one");
  await rename(file, join(dir, "old"));
  await waitFor(async () => {
    await write("two");
    return stat(file);
  });
  const old = await texts(join(dir, "old"));
  assert.is(old[0], "one");
  assert.ok(old.slice(1).every((text) => text === "two"));
  await log.close();
  assert.is((await texts(file)).at(-1), "two");
});

test("a line begins on a line of its own after a writer was killed within its write", async () => {
  const file = join(tempDir(), "logs.txt");
  await writeFile(file, "2026-11-21T02:44:04.000Z torn");
  const log = new LogWriter(file, { run });
  log.line("a", "one");
  await log.close();
  assert.equal(await texts(file), ["?2026-11-21T02:44:04.000Z torn", "one"]);
});

test("a part ends at its limit, also within a run; no line is lost or torn, and the parts are compressed", async () => {
  const file = join(tempDir(), "logs.txt");
  const log = new LogWriter(file, { run, rotateAt: 50_000, keep: 1000 });
  const count = 3000;
  for (let number = 0; number < count; number += 1) {
    log.line("a", `line ${number} of the run`);
    if (number % 100 === 0) await turn();
  }
  await log.close();
  const parts = listParts(file);
  assert.ok(parts.length > 3 && parts.every(({ plain, packed }) => packed && !plain), JSON.stringify(parts));
  assert.ok((await stat(file)).size < 60_000);
  const lines = (await contentOf(file)).map((line) => parseLine(line)?.text);
  assert.equal(
    lines,
    Array.from({ length: count }, (_, number) => `line ${number} of the run`),
  );
  const next = new LogWriter(file, { run, rotateAt: 1000, keep: 3 });
  await next.close();
  assert.is((await stat(file)).size, 0, "a log that is past its limit already ends when the next run begins");
  assert.is(listParts(file).length, 3, "the oldest parts go");
});

test("a link, a pipe or a folder in the log's place is refused by name", async () => {
  const dir = tempDir();
  await symlink("/dev/null", join(dir, "link"));
  await runCommand(["mkfifo", join(dir, "pipe")], { expect: 0 });
  for (const name of ["link", "pipe"]) {
    try {
      new LogWriter(join(dir, name), { run });
      assert.unreachable();
    } catch (error) {
      assert.instance(error, Failure);
      assert.match((error as Error).message, new RegExp(`cannot (write|rotate) ${join(dir, name)}`));
    }
  }
});

test("a new log after a rotation has the permissions of the one before", async () => {
  const file = join(tempDir(), "logs.txt");
  const log = new LogWriter(file, { run, mode: 0o600 });
  assert.is((await stat(file)).mode & 0o777, 0o600);
  await rename(file, `${file}.old`);
  await waitFor(async () => {
    log.line("a", "text");
    await turn();
    return stat(file);
  });
  assert.is((await stat(file)).mode & 0o777, 0o600);
  await log.close();
});

testUnless(test, needsRoot)(
  "a full disk stops nobody, and what was not written is written or counted later",
  async () => {
    const dir = tempDir();
    await runCommand(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir], { expect: 0 });
    try {
      const file = join(dir, "logs.txt");
      const troubles: string[] = [];
      const log = new LogWriter(file, { run, onTrouble: (error) => troubles.push(String(error)) });
      await writeFile(join(dir, "ballast"), "x".repeat(150_000));
      const count = 1000;
      for (let number = 0; number < count; number += 1) {
        log.line("a", `${number} ${"x".repeat(200)}`);
        if (number % 10 === 0) await turn();
      }
      assert.is(troubles.length, 1);
      assert.match(troubles[0] ?? "", /cannot write .*(ENOSPC|no space left)/i);
      await runCommand(["mount", "-o", "remount,size=8m", dir], { expect: 0 });
      await log.close();
      const numbers = (await texts(file))
        .filter((text) => /^\d+ x{200}$/.test(text))
        .map((text) => Number.parseInt(text, 10));
      assert.equal(
        numbers,
        Array.from({ length: count }, (_, number) => number),
      );
    } finally {
      await runCommand(["umount", "-l", dir]);
    }
  },
);

testUnless(test, needsRoot)(
  "the count of missing lines survives a disk that fills up again before it could be told",
  async () => {
    const dir = tempDir();
    await runCommand(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir], { expect: 0 });
    try {
      const file = join(dir, "logs.txt");
      const log = new LogWriter(file, { run, onTrouble: () => {} });
      const grow = (size: string) => runCommand(["mount", "-o", `remount,size=${size}`, dir], { expect: 0 });
      const count = 9000;
      for (let number = 0; number < count; number += 1) {
        log.line("a", `${number} ${"x".repeat(1000)}`);
        if (number % 1000 !== 999) continue;
        // a try that can write nothing, and one that can write some of what waits
        if (number % 2000 === 999) await grow(`${64 + Math.ceil(number / 50)}k`);
        await sleep(300);
      }
      await grow("16m");
      await sleep(300);
      log.line("a", `${count} ${"x".repeat(1000)}`);
      await log.close();
      const all = await texts(file);
      const whole = all.filter((text) => /^\d+ x{1000}$/.test(text)).length;
      const missing = all.map((text) => Number(/^(\d+) lines are missing here/.exec(text)?.[1] ?? 0));
      const sum = missing.reduce((one, other) => one + other, 0);
      assert.is(whole + sum, count + 1);
      assert.is(all.at(-1), `${count} ${"x".repeat(1000)}`);
    } finally {
      await runCommand(["umount", "-l", dir]);
    }
  },
);

testUnless(test, needsRoot)("lines beyond what can wait in memory are counted in the log", async () => {
  const dir = tempDir();
  await runCommand(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir], { expect: 0 });
  try {
    const file = join(dir, "logs.txt");
    const log = new LogWriter(file, { run, onTrouble: () => {} });
    const count = 6000;
    for (let number = 0; number < count; number += 1) log.line("a", `${number} ${"x".repeat(1000)}`);
    await turn();
    await runCommand(["mount", "-o", "remount,size=16m", dir], { expect: 0 });
    await log.close();
    const all = await texts(file);
    const whole = all.filter((text) => /^\d+ x{1000}$/.test(text)).length;
    const missing = Number(/^(\d+) lines are missing here/.exec(all.at(-1) ?? "")?.[1]);
    assert.is(whole + missing, count);
    assert.ok(missing > 0 && whole > 3000);
  } finally {
    await runCommand(["umount", "-l", dir]);
  }
});

testUnless(test, needsOrdinaryUser)("a log that cannot be opened says so at once", async () => {
  const dir = tempDir();
  await chmod(dir, 0o555);
  try {
    new LogWriter(join(dir, "logs.txt"), { run });
    assert.unreachable();
  } catch (error) {
    assert.match((error as Error).message, /cannot write .*EACCES/);
  } finally {
    await chmod(dir, 0o755);
  }
});

test.run();
