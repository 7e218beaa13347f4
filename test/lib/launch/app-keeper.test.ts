import { mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readIfThere } from "../../../lib/files/files.ts";
import { bootId } from "../../../lib/core/id.ts";
import { isAlive, startTimeOf } from "../../../lib/exec/process-tree.ts";
import { findApp, type RunningApp, startApp } from "../../../lib/launch/app-process.ts";
import { planRestart, crashLoop, goodRun, type Restarts } from "../../../lib/launch/schedule.ts";
import { startCommand } from "../../helpers/run.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

test("an app that keeps crashing is started after 1 s, 2 s, 4 s … 60 s, then given up with a reason", () => {
  let restarts: Restarts = { quick: 0, total: 0 };
  const pauses: number[] = [];
  for (;;) {
    const plan = planRestart(restarts, 500, "exit code 3");
    if (!plan.again) {
      assert.match(plan.reason, /crash loop: .* 11 times .* exit code 3/);
      break;
    }
    pauses.push(plan.pause / 1000);
    restarts = plan.restarts;
  }
  assert.equal(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
  assert.is(pauses.length, crashLoop);
  assert.is(restarts.total, crashLoop);
});

test("a good minute forgives the crashes before it", () => {
  const plan = planRestart({ quick: 9, total: 20 }, goodRun, "SIGSEGV");
  assert.equal(plan, { again: true, pause: 1000, restarts: { quick: 1, total: 21 } });
});

/** How an app is started whose command writes down what is recorded of it. */
async function start(folder: string): Promise<RunningApp> {
  const record = join(folder, "app.json");
  const exec = `cat ${record} >${folder}/seen; exec sleep 60`;
  const rest = { dir: folder, version: "1", env: {}, output, fd3: undefined };
  const app = await startApp({ exec, record, ...rest });
  started.push(app);
  return app;
}
const output = openSync("/dev/null", "w");
const started: RunningApp[] = [];
const term = { signal: "SIGTERM", grace: 2000 } as const;
test.after(async () => void (await Promise.all(started.map((app) => app.end(term)))));

test("an app is recorded before it runs, so that no launchfit that is killed leaves one that nobody knows", async () => {
  for (let round = 0; round < 10; round++) {
    const folder = tempDir();
    const app = await start(folder);
    await waitFor(() => readIfThere(join(folder, "seen")).then((text) => text?.endsWith("}\n")));
    const { pid, startTime } = JSON.parse(readFileSync(join(folder, "seen"), "utf8"));
    assert.is(pid, app.pid);
    assert.is(startTime, await startTimeOf(pid));
    await app.end(term);
  }
});

test("an app that cannot be recorded does not run", async () => {
  const folder = tempDir();
  mkdirSync(join(folder, "app.json/x"), { recursive: true });
  let message = "";
  await start(folder).catch((error: Error) => (message = error.message));
  assert.match(message, /app\.json/);
  assert.is(await readIfThere(join(folder, "seen")), undefined);
});

test("a process is taken for the recorded app only when it surely is", async () => {
  const folder = tempDir();
  const record = join(folder, "app.json");
  const app = await start(folder);
  const written = JSON.parse(readFileSync(record, "utf8"));
  assert.is((await findApp(record))?.pid, app.pid);
  for (const wrong of [
    // it ended before it was looked at
    { startTime: undefined },
    // its pid is another's by now
    { startTime: written.startTime + 1 },
    // the machine was started again since
    { boot: `not ${bootId()}` },
    // the directory was copied with what is in it
    { folder: "1:2" },
    { pid: "1" },
  ]) {
    const cookie = "0".repeat(24);
    writeFileSync(record, JSON.stringify({ ...written, cookie, ...wrong }));
    assert.is(await findApp(record), undefined, JSON.stringify(wrong));
  }
  writeFileSync(record, '"text"');
  assert.is(await findApp(record), undefined);
  await app.end(term);
});

test("ending an app that has ended leaves the process alone that has its number now", async () => {
  const folder = tempDir();
  const app = await start(folder);
  // while it becomes another program, Linux shows no environment of it
  await waitFor(() => readFileSync(`/proc/${app.pid}/comm`, "utf8") === "sleep\n");
  await waitFor(async () => (await app.members()).length > 0);
  const { cookie } = JSON.parse(readFileSync(join(folder, "app.json"), "utf8"));
  const stranger = startCommand(["sleep", "4715"]);
  const other = { pid: stranger.pid, startTime: -1 };
  const record = { cookie, version: "1", startedAt: "", ...other };
  writeFileSync(join(folder, "app.json"), JSON.stringify(record));
  // found by what it started
  const found = await findApp(join(folder, "app.json"));
  assert.is(found?.alive, false);
  await found?.end(term);
  assert.not.ok(await isAlive(app.pid));
  assert.ok(await isAlive(stranger.pid));
  await stranger.stop();
});

test.run();
