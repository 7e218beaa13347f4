import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootId } from "../../../lib/core/id.ts";
import { isAlive, startTimeOf } from "../../../lib/exec/process-tree.ts";
import { readIfThere } from "../../../lib/files/files.ts";
import { type App, AppProcesses } from "../../../lib/launch/app.ts";
import { crashLoop, goodRun, planRestart, type Restarts } from "../../../lib/launch/next.ts";
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

const started: App[] = [];
const term = { signal: "SIGTERM", grace: 2000 } as const;
test.after(async () => void (await Promise.all(started.map((app) => app.end(term)))));

/** An app whose command writes down what is noted of it. */
async function start(folder: string, command = "exec sleep 60"): Promise<App> {
  const processes = await AppProcesses.open(folder);
  const exec = `cat app.json >seen; ${command}`;
  const env = { PATH: process.env["PATH"] ?? "" };
  const app = await processes.start({ exec, dir: folder, version: "1", env, socket: undefined, onLine: () => {} });
  started.push(app);
  return app;
}
const seen = (folder: string) =>
  waitFor(() => readIfThere(join(folder, "seen")).then((text) => text?.endsWith("}\n")), { what: "the app" });
const ended = async (folder: string) => await (await AppProcesses.open(folder)).endLeft();

test("an app is noted before it runs, so that no launchfit that is killed leaves one that nobody knows", async () => {
  for (let round = 0; round < 10; round++) {
    const folder = tempDir();
    const app = await start(folder);
    await seen(folder);
    const { apps } = JSON.parse(readFileSync(join(folder, "seen"), "utf8"));
    assert.equal(apps, [{ pid: app.pid, startTime: await startTimeOf(app.pid), version: "1" }]);
    await app.end(term);
  }
});

test("an app that cannot be noted does not run", async () => {
  const folder = tempDir();
  const processes = await AppProcesses.open(folder);
  mkdirSync(join(folder, "app.json/x"), { recursive: true });
  let message = "";
  const how = { exec: "touch seen", dir: folder, version: "1", env: {}, socket: undefined, onLine: () => {} };
  await processes.start(how).catch((error: Error) => (message = error.message));
  assert.match(message, /EISDIR/);
  assert.is(await readIfThere(join(folder, "seen")), undefined);
});

test("what is left is ended by its session, also while it shows no environment, and by its mark", async () => {
  const folder = tempDir();
  // one without an environment, which the mark does not show, and one in a session of its own, which its session does not
  const app = await start(folder, "setsid sleep 61 & echo $! >other; exec env -i sleep 60");
  await seen(folder);
  const other = Number(await waitFor(() => readIfThere(join(folder, "other")), { what: "the other" }));
  await waitFor(() => readFileSync(`/proc/${app.pid}/comm`, "utf8") === "sleep\n", { what: "the app" });
  await waitFor(() => readFileSync(`/proc/${other}/comm`, "utf8") === "sleep\n", { what: "the other" });
  assert.equal(
    (await ended(folder)).map(({ pid }) => pid),
    [app.pid],
  );
  assert.not.ok(await isAlive(app.pid));
  assert.not.ok(await isAlive(other));
});

test("no process is ended that is not surely the noted app", async () => {
  const folder = tempDir();
  const app = await start(folder);
  await seen(folder);
  await app.end(term);
  const stranger = startCommand(["sleep", "4715"]);
  const pid = stranger.pid;
  const written = JSON.parse(readFileSync(join(folder, "app.json"), "utf8"));
  const apps = [{ pid, startTime: await startTimeOf(Number(pid)), version: "1" }];
  for (const wrong of [
    // its pid is another's by now
    { apps: [{ ...apps[0], startTime: written.apps[0].startTime - 1 }] },
    // the machine was started again since
    { apps, boot: `not ${bootId()}` },
    // the directory was copied with what is in it
    { apps, mark: "0".repeat(24) },
    { apps: "text" },
  ]) {
    writeFileSync(join(folder, "app.json"), JSON.stringify({ ...written, ...wrong }));
    assert.equal(await ended(folder), [], JSON.stringify(wrong));
    assert.ok(await isAlive(Number(pid)));
  }
  writeFileSync(join(folder, "app.json"), '"text"');
  assert.equal(await ended(folder), []);
  await stranger.stop();
});

test.run();
