// What launchfit does where no launchfit runs, no server answers, or nothing is to be run; and what it says of an update
// that it does not take.
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { installInto, status } from "../../lib/launch/launch.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { nextSecond, waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

/** Replaces a line of the directory's launchify.yml. */
function edit(folder: string, from: RegExp | string, to: string): void {
  const path = join(folder, "launchify.yml");
  writeFileSync(path, readFileSync(path, "utf8").replace(from, to));
}

test("a server that is down or unknown is one line that names it, in every command and in status", async () => {
  const app = await deploy(publisher, { updates: ["timeout: 20s"] });
  const running = await app.launch();
  for (const [server, words] of [
    ["http://127.0.0.1:9", "the connection was refused (ECONNREFUSED)"],
    ["http://no-such-host.invalid", "the host "],
  ] as const) {
    edit(app.folder, /server: .*/, `server: ${server}`);
    const wanted = `${server}/VERSION: ${words}`;
    const { code, error } = await app.control("check");
    assert.is(code, 1);
    assert.ok(error?.startsWith(wanted), error);
    const { stdout } = await app.tell("status");
    assert.match(stdout, new RegExp(`^last check +${wanted.replace(/[().]/g, ".")}.* ago\\)$`, "m"));
    if (words === "the host ") continue;
    const fetched = await app.tell("fetch", "--look");
    assert.is(fetched.code, 1);
    assert.match(fetched.stderr, `launchfit: ${wanted}`);
    assert.not.match(fetched.stderr, /^ +at /m);
  }
  await running.stop();
});

test("check --once updates where nothing is to be run, and its hooks run: app.exec is not needed", async () => {
  const folder = tempDir();
  const own = await makePublisher();
  await own.publish("1", { "data.txt": "one" });
  await installInto(folder, own.url, { key: own.fingerprint, note: () => {} });
  await own.publish("2", {
    "data.txt": "two",
    "launchify.yml": `hooks: { before_symlink: 'echo "$LAUNCHFIT_HOOK" >> ../../hooks.txt', after_restart: 'echo "$LAUNCHFIT_HOOK" >> ../../hooks.txt' }\n`,
  });
  const checked = await runScript("launchfit", ["check", "--once", "--dir", folder]);
  assert.is(checked.code, 0, checked.stderr);
  assert.match(checked.stdout, "updated 1 → 2");
  assert.is(readFileSync(join(folder, "current/data.txt"), "utf8"), "two");
  assert.is(readFileSync(join(folder, "hooks.txt"), "utf8"), "before_symlink\nafter_restart\n");
  const { stderr } = await runScript("launchfit", ["--dir", folder]);
  assert.match(stderr, "app.exec is missing");
  await own.close();
});

test("log and rollback work while no launchfit runs, and what was rolled back stays away, server or no server", async () => {
  const own = await makePublisher();
  await own.publish("1", webApp("1"));
  const app = await deploy(own);
  await own.publish("2", webApp("2"));
  const running = await app.launch();
  assert.is((await app.control("check")).ok, true);
  await running.stop();
  const lines = await app.tell("log", "-n", "3");
  assert.is(lines.code, 0, lines.stderr);
  assert.is(lines.stdout.trim().split("\n").length, 3);
  assert.match(lines.stdout, / launchfit \| ended 2\n$/);
  const followed = await app.tell("log", "-f", "-n", "1");
  assert.is(followed.code, 0);
  assert.match(followed.stderr, /no launchfit runs in .*: nothing more comes/);
  // the server's answer is not needed for the way back
  own.misbehave(() => ({ status: 500, body: "" }));
  const back = await app.tell("rollback");
  assert.is(back.code, 0, back.stderr);
  assert.match(back.stdout, /rolled back 2 → 1; the next start of the app uses it/);
  assert.is(app.current(), "releases/my-app-1");
  assert.is((await app.tell("rollback", "9")).code, 2);
  own.misbehave();
  const status = await app.tell("status");
  assert.match(status.stdout, /^offered +2, not taken: rolled back by hand/m);
  const checked = await app.tell("check", "--once");
  assert.match(checked.stdout, /2 is not tried again: rolled back by hand/);
  assert.is(app.current(), "releases/my-app-1");
  await own.close();
});

test("of a log with long lines as many are shown as were asked for", async () => {
  const folder = tempDir();
  mkdirSync(join(folder, ".launchfit"));
  const lines = Array.from({ length: 1000 }, (_, n) => `${n} app | ${"x".repeat(300)}\n`);
  writeFileSync(join(folder, ".launchfit/app.log"), lines.join(""));
  const { stdout } = await runScript("launchfit", ["log", "-n", "400", "--dir", folder]);
  assert.is(stdout, lines.slice(-400).join(""));
});

const offered = { version: "2", reason: "rolled back by hand" };

for (const etags of [true, false]) {
  test(`after a rollback check and status say what is offered and why it is not taken, ${etags ? "with" : "without"} ETags`, async () => {
    const own = await makePublisher({ etags });
    await own.publish("1", webApp("1"));
    const app = await deploy(own);
    const running = await app.launch();
    await own.publish("2", webApp("2"));
    for (const result of ["updated 1 → 2", "up to date", "up to date"])
      assert.is((await app.control("check"))["result"], result);
    assert.is((await app.status())["offered"], undefined);
    assert.is((await app.control("rollback")).ok, true);
    for (let round = 0; round < 2; round++) {
      assert.equal((await app.status())["offered"], offered);
      assert.match(String((await app.control("check"))["result"]), /^2 is not tried again: rolled back by hand/);
    }
    assert.match((await app.tell("status")).stdout, /offered +2, not taken: rolled back by hand/);
    await own.publish("3", webApp("3"));
    assert.is((await app.control("check"))["result"], "updated 1 → 3");
    await waitFor(async () => (await app.ask()) === "3", { what: "version 3" });
    assert.is((await app.status())["offered"], undefined);
    await running.stop();
    await own.close();
  });
}

test("a version that was rolled back stays away when VERSION is only signed again, and when a version after it is withdrawn", async () => {
  const own = await makePublisher();
  await own.publish("1", webApp("1"));
  const app = await deploy(own, { updates: ["keep: 3"] });
  const expectOnly = async (installed: string) => {
    const checked = await app.tell("check", "--once");
    assert.match(checked.stdout, /^2 is not tried again: rolled back by hand/, JSON.stringify(checked));
    assert.equal((await status(app.folder)).offered, offered);
    assert.is(app.current(), `releases/my-app-${installed}`);
  };
  await own.publish("2", webApp("2"));
  assert.is((await app.tell("check", "--once")).code, 0);
  assert.is((await app.tell("rollback")).code, 0);
  for (let round = 0; round < 2; round++) {
    await own.refresh();
    await expectOnly("1");
  }
  // what is offered while 2 is rolled back may be another version
  assert.is((await app.tell("rollback", "2")).code, 0);
  await own.publish("3", webApp("3", "process.exit(1);"));
  const running = await app.launch();
  const { error } = await app.control("check");
  assert.match(error ?? "", "3 did not hold up", `${error}: ${running.output()}`);
  assert.match((await app.control("rollback")).error ?? "", /1: rolled back by hand.*name one/);
  assert.is((await app.control("rollback", { version: "1" })).ok, true);
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  await running.stop();
  await own.withdraw("3");
  await expectOnly("1");
  // one that held up after all is a version to go back to
  assert.is((await app.tell("rollback", "2")).code, 0);
  await own.publish("4", webApp("4"));
  assert.is((await app.tell("check", "--once")).code, 0);
  assert.match((await app.tell("rollback")).stdout, "rolled back 4 → 2");
  await own.close();
});

test("the newest first is by the time of the release's signature, also in a copy of the directory", async () => {
  const own = await makePublisher();
  await own.publish("b", webApp("b"));
  const app = await deploy(own, { updates: ["keep: 3"] });
  for (const version of ["c", "a"]) {
    // signatures have whole seconds
    await nextSecond();
    await own.publish(version, webApp(version));
    assert.is((await app.tell("check", "--once")).code, 0);
  }
  const copy = tempDir();
  rmSync(copy, { recursive: true });
  await runCommand(["cp", "-a", app.folder, copy]);
  // even as a copy in another order would leave it
  for (const version of ["a", "b"]) {
    const release = join(copy, `releases/my-app-${version}`);
    cpSync(release, `${release}.copy`, { recursive: true });
    rmSync(release, { recursive: true });
    await runCommand(["mv", `${release}.copy`, release]);
  }
  const listed = await runScript("launchfit", ["list", "--dir", copy]);
  assert.is(listed.stdout, "* a\n  c\n  b\n");
  const back = await runScript("launchfit", ["rollback", "--dir", copy]);
  assert.match(back.stdout, "rolled back a → c");
  await own.close();
});

test.run();
