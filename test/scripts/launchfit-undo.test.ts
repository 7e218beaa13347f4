// Updates that are undone late, or while something else is under way.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

async function freshPublisher() {
  const fresh = await makePublisher();
  await fresh.publish("1", webApp("1"));
  return fresh;
}

/** Ends with 3 as soon as the file is there; the last thing it does is to make another one beside it. */
const diesAt = (file: string) => `
setInterval(() => require("fs").existsSync(${JSON.stringify(file)}) && process.exit(3), 10);
process.on("exit", () => require("fs").writeFileSync(${JSON.stringify(`${file}.done`)}, ""));`;

test("an app that ends while after_restart runs is a failed update and is undone", async () => {
  const publisher = await freshPublisher();
  const die = join(tempDir(), "die");
  const app = await deploy(publisher, {
    app: ["forever: true"],
    hooks: [`after_restart: touch ${die}; until test -e ${die}.done; do sleep 0.05; done; sleep 0.3`],
  });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  await publisher.publish("2", webApp("2", diesAt(die)));
  const { ok, error } = await app.control("check");
  assert.is(ok, false);
  assert.match(error ?? "", /2 did not hold up: it ended with exit code 3; 1 runs again/);
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  assert.is(app.current(), "releases/my-app-1");
  assert.not.match(running.output(), /starts again in/);
  const { lastUpdate, restarts } = (await app.status()) as {
    lastUpdate: { ok: boolean; reason: string };
    restarts: number;
  };
  assert.is(lastUpdate.ok, false);
  assert.is(restarts, 0);
  await running.stop();
  await publisher.close();
});

test("a rollback that launchfit was killed in is completed by the next one, and what was rolled back stays away", async () => {
  const publisher = await makePublisher();
  const hold = join(tempDir(), "hold");
  const waits = `while (require("fs").existsSync(${JSON.stringify(hold)}))
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);`;
  await publisher.publish("1", webApp("1", waits));
  const app = await deploy(publisher);
  const running = await app.launch();
  await publisher.publish("2", webApp("2"));
  assert.is((await app.control("check"))["result"], "updated 1 → 2");
  writeFileSync(hold, "");
  const asked = app.control("rollback").catch(() => undefined);
  await running.until(/rollback 2 → 1[^]*started 1/);
  await running.stop("SIGKILL");
  await asked;
  // nor does a check from cron bring it back meanwhile
  const away = /2 is not tried again: rolled back by hand/;
  assert.match((await app.tell("check", "--once")).stdout, away);
  rmSync(hold);
  const next = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  assert.match(`${(await app.control("check"))["result"]}`, /2 is not tried again: rolled back by hand/);
  assert.is(app.current(), "releases/my-app-1");
  await next.stop();
  await publisher.close();
});

test("killed between the switch and the start of a version that cannot be started, launchfit goes back", async () => {
  const publisher = await freshPublisher();
  const hold = join(tempDir(), "hold");
  writeFileSync(hold, "");
  const cannot = `{ echo at its start; while [ -e ${hold} ]; do sleep 0.02; done; exit 1; }`;
  const app = await deploy(publisher, {
    hooks: [`before_start: test $LAUNCHFIT_VERSION = 1 || ${cannot}`],
  });
  const running = await app.launch();
  await publisher.publish("2", webApp("2"));
  const asked = app.control("check").catch(() => undefined);
  await running.until(/before_start: at its start/);
  await running.stop("SIGKILL");
  await asked;
  assert.is(app.current(), "releases/my-app-2");
  rmSync(hold);
  const next = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  assert.is(app.current(), "releases/my-app-1");
  assert.match(String((await app.control("check"))["result"]), /2 is not tried again: the hook/);
  await next.stop();
  await publisher.close();
});

for (const [how, words] of [
  ["launchfit", []],
  ["check --once", ["check", "--once"]],
] as const) {
  test(`${how} that is killed while after_restart runs: the next one runs it again, and undoes what it refuses`, async () => {
    const publisher = await freshPublisher();
    const folder = tempDir();
    const [hold, ran] = [join(folder, "hold"), join(folder, "ran")];
    const app = await deploy(publisher, {
      hooks: [
        `after_restart: echo $LAUNCHFIT_VERSION >> ${ran}; while [ -e ${hold} ]; do sleep 0.02; done; test $LAUNCHFIT_VERSION != 3`,
      ],
    });
    const times = (version: string) =>
      readFileSync(ran, "utf8")
        .split("\n")
        .filter((line) => line === version).length;
    writeFileSync(ran, "");
    for (const version of ["2", "3"]) {
      await publisher.publish(version, webApp(version));
      writeFileSync(hold, "");
      const running = words.length === 0 ? await app.launch() : undefined;
      const once = running ?? startScript("launchfit", [...words, "--dir", app.folder]);
      const asked = running && app.control("check").catch(() => undefined);
      await waitFor(() => times(version) === 1, { what: `the hook of ${version}` });
      await once.stop("SIGKILL");
      await asked;
      rmSync(hold);
      if (running) {
        const next = await app.launch();
        await waitFor(() => times(version) === 2, { what: `the hook of ${version} again` });
        await waitFor(async () => (await app.ask()) === "2", { what: "version 2" });
        const record = join(app.folder, ".launchfit/launcher.json");
        await waitFor(() => !readFileSync(record, "utf8").includes("pending"), { what: "the verdict" });
        await next.stop();
      } else await app.tell(...words);
      assert.is(times(version), 2, version);
      assert.is(app.current(), "releases/my-app-2");
    }
    await publisher.close();
  });
}

test("a release that forks a daemon and ends is undone, and its daemon does not hold the port", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, { updates: ["watch: 1m"] });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  await publisher.publish("2", {
    "daemon.js": webApp("2")["server.js"] ?? "",
    "server.js": `const { spawn } = require("child_process");
spawn(process.execPath, ["daemon.js"], { detached: true, stdio: "ignore" }).unref();
setTimeout(() => process.exit(0), 300);`,
  });
  // the daemon answers the health check; the app itself has gone
  assert.match((await app.control("check")).error ?? "", /2 did not hold up: it ended with exit code 0/);
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  assert.is(app.current(), "releases/my-app-1");
  await running.stop();
  assert.is(await app.ask(), "ECONNREFUSED", "nothing is left");
  await publisher.close();
});

test("releases that their owner made read-only run, are replaced, and are pruned", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, {
    updates: ["keep: false"],
    hooks: ["before_symlink: mkdir -p data/below && chmod -R a-w ."],
  });
  for (const version of ["2", "3"]) {
    await publisher.publish(version, webApp(version));
    const checked = await app.tell("check", "--once");
    assert.is(checked.code, 0, checked.stderr);
  }
  assert.match((await app.tell("list")).stdout, /^\* 3\n$/);
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "3", { what: "version 3" });
  await running.stop();
  await publisher.close();
});

test.run();
