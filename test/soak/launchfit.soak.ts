import { readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "../../lib/exec/exec.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import type { Running } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const times = (full: number, least: number) => Math.max(least, Math.round(full * scale));

/** The living processes of an app, found by its folder: never more than one. */
async function appsOf(folder: string): Promise<number[]> {
  const found: number[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const cwd = readlinkSync(`/proc/${name}/cwd`);
      if (cwd.startsWith(join(folder, "releases"))) found.push(Number(name));
    } catch {
      // it has ended meanwhile
    }
  }
  return found;
}

test("200 requests a second through 20 updates and 3 forced rollbacks: not one fails", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher, { listen: true });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  const answers = new Map<string, number>();
  let asked = 0;
  const pending = new Set<Promise<void>>();
  const clock = setInterval(() => {
    asked += 1;
    const one = app.ask().then((answer) => {
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
      pending.delete(one);
    });
    pending.add(one);
  }, 5);
  const updates = times(20, 3);
  for (let version = 2; version <= updates + 1; version++) {
    await publisher.publish(version.toString(16), webApp(version.toString(16)));
    const { ok, error } = await app.control("check");
    assert.ok(ok, error);
  }
  for (let rollback = 0; rollback < times(3, 1); rollback++) {
    const broken = `f${rollback}`;
    await publisher.publish(broken, webApp(broken, "process.exit(1);"));
    assert.is((await app.control("check")).ok, false, "a broken release is undone");
  }
  clearInterval(clock);
  await Promise.all(pending);
  const versions = new Set(Array.from({ length: updates + 1 }, (_, i) => (i + 1).toString(16)));
  const wrong = [...answers].filter(([answer]) => !versions.has(answer));
  assert.equal(wrong, [], `of ${asked} requests`);
  await running.stop();
  await publisher.close();
});

test("killed -9 at random instants of updates: never two apps, current always whole", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher, { listen: true });
  let running: Running = await app.launch();
  for (let round = 0; round < times(100, 6); round++) {
    const version = (round + 2).toString(16);
    await publisher.publish(version, webApp(version));
    const checked = app.control("check").catch(() => undefined);
    // an instant somewhere in the update: it takes some hundred milliseconds
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 600));
    running.kill("SIGKILL");
    await running.exited;
    await checked;
    assert.match(app.current(), /^releases\/my-app-[0-9a-f]+$/);
    running = await app.launch();
    await waitFor(async () => /^[0-9a-f]+$/.test(await app.ask()), { what: "an answer" });
    const apps = await appsOf(app.folder);
    assert.is(apps.length, 1, `one app after kill ${round}, found ${apps.join(", ")}`);
  }
  const last = await app.control("check");
  assert.ok(last.ok, last.error);
  await running.stop();
  assert.equal(await appsOf(app.folder), []);
  await publisher.close();
});

test("a week in miniature: after many updates memory, descriptors, disk and processes are flat", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher, { listen: true, updates: ["keep: 2"] });
  const running = await app.launch();
  const { stdout } = await $`cat ${join(app.folder, ".launchfit/lock")}`;
  const { pid } = JSON.parse(stdout) as { pid: number };
  const measure = async () => ({
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    memory: Number(/VmRSS:\s+(\d+)/.exec((await $`cat ${`/proc/${pid}/status`}`).stdout)?.[1]) / 1024,
    releases: readdirSync(join(app.folder, "releases")).length,
    processes: (await appsOf(app.folder)).length,
  });
  const update = async (version: string) => {
    await publisher.publish(version, webApp(version));
    const { ok, error } = await app.control("check");
    assert.ok(ok, error);
  };
  const rounds = times(500, 12);
  for (let round = 2; round < 8; round++) await update(round.toString(16));
  const early = await measure();
  let late = await measure();
  for (let round = 8; round < rounds; round++) {
    await update(round.toString(16));
    // what waits to be collected comes and goes: the least of the last looks counts
    const now = await measure();
    late = { ...now, memory: rounds - round < 60 ? Math.min(late.memory, now.memory) : now.memory };
  }
  assert.ok(late.descriptors <= early.descriptors + 3, `${JSON.stringify({ early, late })}`);
  assert.ok(late.memory <= early.memory + 15, `${JSON.stringify({ early, late })}`);
  assert.ok(late.releases <= 4, `releases: ${late.releases}`);
  assert.is(late.processes, 1);
  await running.stop();
  await publisher.close();
});

testUnless(test, needsRoot)(
  "a release that fills the disk is undone: the old version serves, and status has the reason",
  async () => {
    const publisher = await makePublisher();
    await publisher.publish("1", webApp("1"));
    const folder = join(tempDir("full-"), "deploy");
    await $`mkdir ${folder}`;
    await $`mount -t tmpfs -o size=4m,mode=755 tmpfs ${folder}`;
    try {
      const app = await deploy(publisher, { folder });
      const running = await app.launch();
      await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
      // in the release's own folder, and in the deploy directory, where nothing of it is ever cleared
      for (const [version, file] of [
        ["2", "filling"],
        ["3", "../../filling"],
      ] as const) {
        const fill = `const fs = require("fs");
const fd = fs.openSync(${JSON.stringify(file)}, "w");
try { for (;;) fs.writeSync(fd, Buffer.alloc(4096)); } catch (error) { console.log(error.code); }
try { for (let n = 0; ; n++) fs.writeFileSync("x" + n, "x"); } catch {}
process.exit(28);`;
        await publisher.publish(version, webApp(version, fill));
        const { ok, error } = await app.control("check");
        assert.is(ok, false);
        assert.match(error ?? "", /ended with exit code 28; 1 runs again/);
        await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
        const { lastUpdate } = (await app.status()) as { lastUpdate: { reason: string } };
        assert.match(lastUpdate.reason, /exit code 28/);
        await $`sh -c ${'rm -f "$0"/filling "$0"/releases/*/filling'} ${folder}`;
      }
      await publisher.publish("4", webApp("4"));
      const { ok, error } = await app.control("check");
      assert.ok(ok, error);
      await running.stop();
    } finally {
      // also from under an app that a failed test left behind
      await $`umount -l ${folder}`;
      await publisher.close();
    }
  },
);

test.run();
