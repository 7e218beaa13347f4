import { appendFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { acquireLock } from "../../lib/files/lock.ts";
import { LogWriter } from "../../lib/log/writer.ts";
import { runAt, runLines, sampleRun } from "../helpers/log-samples.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const run = runAt("11:00:00");
const next = runAt("12:00:00", "bbbbbb");
const start = { kind: "start", event: "push" } as const;
const line = (text: string) => runLines(run, [["a", text]]);
const part = "logs.txt.20261120T113000Z";

test("-f shows the last run, then lines as they come, of this run and later ones", async () => {
  const file = join(tempDir(), "logs.txt");
  await writeFile(file, sampleRun(runAt("10:00:00", "aaaaaa")) + runLines(run, [start]));
  const following = startScript("logs", [file, "-f"]);
  await following.until(/start event=push\n/);
  await appendFile(file, line("half a line").trimEnd());
  await appendFile(file, ", and its end\n");
  await following.until(/half a line, and its end\n/);
  await appendFile(file, sampleRun(next));
  await following.until(/bbbbbb run \| end result=ok/);
  assert.not.match(following.stdout(), /aaaaaa/);
  const { code, signal } = await following.stop("SIGINT");
  // Deno takes a child's exit code of 130 for the signal
  assert.ok(code === 130 || signal === "SIGINT", `${code} ${signal}`);
});

test("-f waits for a log that is not there yet, and goes on when it is removed", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const following = startScript("logs", [dir, "-f"]);
  await writeFile(file, line("one"));
  await following.until(/one\n/);
  await rm(file);
  await writeFile(file, line("two"));
  await following.until(/two\n/);
  assert.is(following.stdout(), line("one") + line("two"));
  await following.stop();
});

test("-f reads an old part to its end, and then the new log", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  await writeFile(file, line("one"));
  const following = startScript("logs", [dir, "-f"]);
  await following.until(/one\n/);
  await appendFile(file, line("two"));
  await rename(file, join(dir, part));
  await writeFile(file, line("new"));
  await following.until(/new\n/);
  assert.is(following.stdout(), ["one", "two", "new"].map(line).join(""));
  await following.stop();
});

test("-f misses nothing that was rotated and compressed between two looks", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  await writeFile(file, line("one"));
  const following = startScript("logs", [dir, "-f"]);
  await following.until(/one\n/);
  process.kill(following.pid, "SIGSTOP");
  await appendFile(file, line("two"));
  await rm(file);
  await writeFile(join(dir, `${part}.gz`), gzipSync(line("one") + line("two")));
  await writeFile(join(dir, "logs.txt.20261120T113001Z.gz"), gzipSync(line("three")));
  await writeFile(join(dir, "logs.txt.20261120T113002Z"), line("four"));
  await writeFile(file, line("five"));
  process.kill(following.pid, "SIGCONT");
  await following.until(/five\n/);
  assert.is(following.stdout(), ["one", "two", "three", "four", "five"].map(line).join(""));
  await following.stop();
});

test("--until-done ends with the run that is under way, with its exit code", async () => {
  const file = join(tempDir(), "logs.txt");
  const lock = await acquireLock(`${file}.lock`, { what: `build ${run}` });
  const log = new LogWriter(file, { run });
  log.mark({ ...start });
  log.flush();
  const following = startScript("logs", [file, "--until-done"]);
  await following.until(/start event=push\n/);
  assert.match((await runScript("logs", [file, "--list"], { expect: 0 })).stdout, / running /);
  // silence, so long that it is asked whether anybody still writes
  await sleep(4000);
  log.line("a", "last words");
  log.mark({ kind: "end", result: "failed", code: 3, seconds: 1 });
  await log.close();
  const { code, stdout } = await following.exited;
  assert.is(code, 3);
  assert.match(stdout, /last words\n.*end result=failed code=3 seconds=1\n$/);
  lock.release();
});

test("--until-done of a run that has ended ends at once; without one it waits for the next", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const following = startScript("logs", [dir, "--until-done"]);
  await writeFile(file, sampleRun(run, { code: 5 }));
  assert.is((await following.exited).code, 5);
  await runScript("logs", [dir, "--until-done"], { expect: 5 });
  // it is the newest run that is meant, whatever lines are asked for
  await appendFile(file, sampleRun("20261120T111500Z-3f2a9d", { code: 0 }));
  await runScript("logs", [dir, "--until-done", "--since", "2020-01-01"], { expect: 0 });
});

test("--until-done fails when the run was cut off", async () => {
  const file = join(tempDir(), "logs.txt");
  await writeFile(file, runLines(run, [start, ["a", "half"]]));
  const { stderr } = await runScript("logs", [file, "--until-done"], { expect: 1 });
  assert.match(stderr, /run .* was cut off/);
});

test.run();
