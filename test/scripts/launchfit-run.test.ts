import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { controlPath } from "../../lib/launch/control.ts";
import { launchIn } from "../../lib/launch/launch.ts";
import { deploy, opensNoSocket, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
// everything that follows begins with version 1
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

/** A fresh start: VERSION names 1 again, whatever the test before has published. */
async function freshPublisher() {
  const fresh = await makePublisher();
  await fresh.publish("1", webApp("1"));
  return fresh;
}

test("an app runs, a new version replaces it on check, and the old one can be had back", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher);
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  await publisher.publish("2", webApp("2"));
  const checked = await app.tell("check");
  assert.is(checked.code, 0, checked.stderr);
  assert.match(checked.stdout, /updated 1 → 2/);
  assert.is(await app.ask(), "2");
  assert.match((await app.tell("check")).stdout, /up to date/);
  assert.match((await app.tell("list")).stdout, /^\* 2\n {2}1\n$/);
  assert.match((await app.tell("rollback")).stdout, /rolled back 2 → 1/);
  assert.is(await app.ask(), "1");
  assert.match((await app.tell("check")).stdout, /2 is not tried again: rolled back by hand/);
  assert.match((await app.tell("rollback", "2")).stdout, /rolled back 1 → 2/);
  assert.is((await app.tell("rollback", "9")).code, 2);
  const status = await app.tell("status");
  assert.is(status.code, 0);
  for (const fact of [
    /version +2/,
    /app +running, process \d+/,
    /restarts +0/,
    /last check +/,
    /next check +in 1[3-6]m/,
  ]) {
    assert.match(status.stdout, fact);
  }
  assert.match((await app.tell("log", "-n", "100")).stdout, /app \| app 2 serves/);
  assert.match((await app.tell("config")).stdout, /app\.exec +"exec node server\.js" +.*launchify\.yml:3:/);
  const before = (await app.status())["pid"];
  assert.match((await app.tell("restart")).stdout, /restarted 2, process/);
  await waitFor(async () => (await app.ask()) === "2", { what: "the app after restart" });
  assert.is.not((await app.status())["pid"], before);
  assert.is(statSync(join(app.folder, ".launchfit/socket")).mode & 0o777, 0o600);
  assert.is((await app.tell("stop")).code, 0);
  assert.is((await running.exited).code, 0);
  assert.is(await app.ask(), "ECONNREFUSED");
  assert.match((await app.tell("check")).stderr, /no launchfit runs in .*; start it/);
  assert.is((await app.tell("status")).code, 1);
  await publisher.close();
});

testUnless(test, opensNoSocket)(
  "with app.listen, not one request fails while updates and a rollback go on",
  async () => {
    const publisher = await freshPublisher();
    const app = await deploy(publisher, { listen: true });
    const running = await app.launch();
    await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
    let asking = true;
    const answers = new Map<string, number>();
    const client = (async () => {
      while (asking) {
        const answer = await app.ask();
        answers.set(answer, (answers.get(answer) ?? 0) + 1);
      }
    })();
    for (const version of ["2", "3"]) {
      await publisher.publish(version, webApp(version));
      assert.is((await app.control("check")).ok, true);
    }
    assert.is((await app.control("rollback")).ok, true);
    asking = false;
    await client;
    assert.equal([...answers.keys()].sort(), ["1", "2", "3"]);
    await running.stop();
    await publisher.close();
  },
);

test("a release that crashes at once is undone, and not tried again until VERSION changes", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher);
  const running = await app.launch();
  await publisher.publish("2", webApp("2", "process.exit(7);"));
  const checked = await app.tell("check");
  assert.is(checked.code, 1);
  assert.match(checked.stderr, /2 did not hold up: it ended with exit code 7; 1 runs again/);
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  assert.is(app.current(), "releases/my-app-1");
  assert.match(String((await app.control("check"))["result"]), /2 is not tried again/);
  assert.match((await app.tell("status")).stdout, /last update +1 → 2: 2 did not hold up/);
  await publisher.publish("3", webApp("3"));
  assert.match(String((await app.control("check"))["result"]), /updated 1 → 3/);
  await running.stop();
  await publisher.close();
});

test("a release that hangs, or answers and dies soon after, is undone too", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, { updates: ["watch: 1m"] });
  // long enough for a start here and now
  const within = Math.ceil(700 * slowness());
  writeFileSync(
    join(app.folder, "launchify.yml"),
    readFileSync(join(app.folder, "launchify.yml"), "utf8").replace("20s", `${within}ms`),
  );
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  await publisher.publish("2", { "server.js": "setInterval(() => {}, 1000)" });
  assert.match(
    (await app.control("check")).error ?? "",
    // the last try may have had no time left
    /no good answer within [\d.]+ s: (?:ECONNREFUSED|no answer)/,
  );
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  const dies = JSON.stringify(join(app.folder, "dies"));
  await publisher.publish(
    "3",
    webApp("3", `setInterval(() => require("fs").existsSync(${dies}) && process.exit(3), 10);`),
  );
  const checking = app.tell("check");
  await waitFor(async () => (await app.ask()) === "3", { what: "version 3" });
  await sleep(500 * slowness());
  writeFileSync(join(app.folder, "dies"), "");
  const checked = await checking;
  assert.is(checked.code, 1, "its first answer was good, the verdict is not");
  assert.match(checked.stderr, /3 did not hold up: it ended with exit code 3 soon after its start; 1 runs again/);
  assert.is(app.current(), "releases/my-app-1");
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1 again" });
  assert.match((await app.tell("status")).stdout, /1 → 3: 3 did not hold up: it ended with exit code 3 soon after/);
  await running.stop();
  await publisher.close();
});

test("a hook that fails or hangs stops the update before anything is touched", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, {
    hooks: [
      'before_symlink: test -e good || { echo "no good in $PWD"; exit 4; }',
      `timeout: ${Math.ceil(slowness())}s`,
    ],
  });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  const { pid } = await app.status();
  await publisher.publish("2", webApp("2"));
  assert.match((await app.control("check")).error ?? "", /the hook before_symlink failed with exit code 4/);
  assert.match(running.output(), /before_symlink: no good in .*releases\/my-app-2/);
  await publisher.publish("3", {
    ...webApp("3"),
    good: "",
    "launchify.yml": "hooks: { before_restart: sleep 60 }\n",
  });
  assert.match((await app.control("check")).error ?? "", /the hook before_restart took too long/);
  assert.is((await app.status())["pid"], pid, "the app was not even restarted");
  await running.stop();
  await publisher.close();
});

test("hooks run in their order, with the versions in their environment", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, {
    hooks: ["before_symlink", "before_restart", "after_restart"].map(
      (name) => `${name}: echo "$LAUNCHFIT_HOOK $LAUNCHFIT_PREVIOUS_VERSION $LAUNCHFIT_VERSION" >> ${tempLog}`,
    ),
  });
  const running = await app.launch();
  await publisher.publish("2", webApp("2"));
  assert.is((await app.control("check")).ok, true);
  assert.is(readFileSync(tempLog, "utf8"), "before_symlink 1 2\nbefore_restart 1 2\nafter_restart 1 2\n");
  await running.stop();
  await publisher.close();
});
const tempLog = join(tempDir(), "hooks.log");

test("what a launchfit that was killed -9 left is ended before the next one starts the app, in other sessions too", async () => {
  const file = join(tempDir(), "pids");
  // a daemon of its own session, which became another program
  const exec = `exec: setsid sh -c 'exec sleep 4711' & echo $! > ${file}; exec node server.js`;
  const app = await deploy(publisher, { app: [exec] });
  const first = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  const { pid } = await app.status();
  const second = await app.tell();
  assert.is(second.code, 3, "one launchfit a directory");
  assert.match(second.stderr, /is locked by process \d+ \(launchfit/);
  first.kill("SIGKILL");
  await first.exited;
  const daemon = Number(readFileSync(file, "utf8"));
  assert.ok(await isAlive(daemon));
  const told = await app.tell("status");
  assert.is(told.code, 1);
  const next = await app.launch();
  assert.match(next.output(), new RegExp(`version 1, process ${String(pid)}, was left by a launchfit that was killed`));
  assert.not.ok(await isAlive(Number(pid)));
  assert.not.ok(await isAlive(daemon));
  await waitFor(async () => (await app.ask()) === "1", { what: "the app anew" });
  assert.is.not((await app.status())["pid"], pid);
  await next.stop();
  assert.is(await app.ask(), "ECONNREFUSED");
});

test("what a secret_file and an env_file hold is in the app's environment, and in nothing that launchfit shows", async () => {
  const app = await deploy(publisher, {
    app: [
      `exec: echo "got $KEY $WORD $PORT"; exec node server.js`,
      "env_file: [words]",
      `env: { KEY: { secret_file: secret }, PORT: "0" }`,
      "health: 'true'",
    ],
  });
  writeFileSync(join(app.folder, "secret"), "s3cr3t\n", { mode: 0o600 });
  writeFileSync(join(app.folder, "words"), '# two\nWORD="a b"\nPORT=1\n', { mode: 0o644 });
  const refused = await app.tell();
  assert.is(refused.code, 2);
  assert.match(
    refused.stderr,
    /launchify\.yml: app\.env_file: secret file .*words can be read by everybody; run: chmod/,
  );
  chmodSync(join(app.folder, "words"), 0o600);
  const running = await app.launch();
  await running.until(/got s3cr3t a b 0\n/);
  const shown = (await app.tell("config", "--json")).stdout + (await app.tell("status", "--json")).stdout;
  assert.match(shown, '"secret_file":"secret"');
  assert.not.match(shown, "s3cr3t");
  await running.stop();
});

test("without forever launchfit ends with the app's own exit code; with it the app comes back", async () => {
  const once = await deploy(publisher, { app: ["exec: sh -c 'sleep 0.2; exit 9'"] });
  const ended = await once.launch();
  assert.is((await ended.exited).code, 9);
  const forever = await deploy(publisher, { app: ["forever: true"] });
  const running = await forever.launch();
  await waitFor(async () => (await forever.ask()) === "1", { what: "version 1" });
  process.kill(Number((await forever.status())["pid"]), "SIGKILL");
  await waitFor(async () => (await forever.status())["restarts"] === 1, { what: "a restart" });
  await waitFor(async () => (await forever.ask()) === "1", { what: "the app again" });
  // the app's own lines may come between
  assert.match(running.output(), /1 ended with SIGKILL\n[\s\S]*starts again in 1 s/);
  await running.stop();
});

test("who follows the log and does not read is let go: what the app writes does not fill launchfit's memory", async () => {
  const written = join(tempDir(), "written");
  const flood = `process.on("SIGUSR2", () => process.stdout.write(("x".repeat(1023) + "\\n").repeat(32 * 1024),
  () => require("fs").writeFileSync(${JSON.stringify(written)}, "")));
const end = process.exit; process.exit = () => setTimeout(end, 500);`;
  const own = await makePublisher();
  await own.publish("1", webApp("1", flood));
  const app = await deploy(own);
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1");
  const socket = createConnection(controlPath(app.folder));
  await once(socket, "connect");
  socket.write('{"command":"log","follow":true,"lines":1}\n');
  await once(socket, "readable");
  running.kill("SIGUSR2");
  await waitFor(() => existsSync(written), { what: "32 MB of lines" });
  let got = "";
  let bytes = 0;
  socket.setEncoding("utf8");
  socket.on("data", (text: string) => {
    bytes += text.length;
    got = (got + text).slice(-200);
  });
  await once(socket, "close");
  assert.match(got, /"ok":false,"code":1,"error":"lines come faster than they are read/);
  assert.ok(bytes < 16 * 1024 * 1024, String(bytes));
  // the command that ends it is over when it has ended
  const pid = Number((await app.status())["pid"]);
  assert.is((await app.tell("stop")).code, 0);
  assert.not.ok(await isAlive(pid));
  assert.is((await running.exited).code, 0);
  await own.close();
});

test("an app that ignores TERM and one that left children in other sessions are ended whole", async () => {
  const file = join(tempDir(), "pids");
  const exec = `exec: trap "" TERM; setsid sleep 4712 & echo $! > ${file}; while :; do sleep 0.1; done`;
  const app = await deploy(publisher, { app: [exec, "grace: 300ms", "health: 'true'"] });
  const running = await app.launch();
  await waitFor(() => existsSync(file) && readFileSync(file, "utf8").trim() !== "");
  const { pid } = await app.status();
  assert.is((await running.stop()).code, 0);
  for (const each of [pid, readFileSync(file, "utf8").trim()]) {
    assert.not.ok(await isAlive(Number(each)), `process ${String(each)} is gone`);
  }
});

test("an app that goes into the background is told to stay in the foreground, and nothing of it is left", async () => {
  const file = join(tempDir(), "pid");
  const exec = `exec: setsid sleep 4713 & echo $! > ${file}; sleep 0.2`;
  const app = await deploy(publisher, { app: [exec, "forever: true", "health: 'true'"] });
  const running = await app.launch();
  await running.until(/1 ended with exit code 0 \(it went into the background, .*let it stay in the foreground\)/);
  assert.not.ok(await isAlive(Number(readFileSync(file, "utf8"))));
  assert.match((await app.tell("status")).stdout, /the last end: exit code 0 \(it went into the background/);
  await running.stop();
});

test("a TERM that comes before the app is started is not lost: nothing is started", async () => {
  const file = join(tempDir(), "ran");
  const app = await deploy(publisher, { app: [`exec: touch ${file}; sleep 60`, "health: 'true'"] });
  const stopping = new AbortController();
  stopping.abort();
  const silent = () => {};
  const launcher = await launchIn(app.folder, { stopping, show: silent, note: silent });
  const tooLong = sleep(10_000 * slowness(), "it runs", { ref: false });
  assert.is(await Promise.race([launcher.ended, tooLong]), 0);
  assert.not.ok(existsSync(file));
  assert.is((await app.tell("status")).code, 1);
});

test("whatever the update server does, the app never notices, and status tells", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, { updates: [`timeout: ${Math.ceil(500 * slowness())}ms`] });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  const { pid } = await app.status();
  const html = "<!doctype html><title>Welcome</title>";
  for (const how of [
    () => ({ status: 200, body: html }),
    () => ({ status: 500, body: "" }),
    () => ({ status: 200, body: "" }),
    () => "hang" as const,
  ]) {
    publisher.misbehave(how);
    const checked = await app.control("check");
    assert.ok(checked.code === 1 || checked.code === 4, `${checked.code} ${checked.error}`);
    const { lastCheck } = (await app.status()) as { lastCheck: { ok: boolean; result: string } };
    assert.is(lastCheck.ok, false);
    assert.is(lastCheck.result, checked.error);
  }
  publisher.misbehave();
  assert.match(String((await app.control("check"))["result"]), /up to date/);
  assert.is((await app.status())["pid"], pid);
  await running.stop();
  await publisher.close();
});

test("check --once updates where no launchfit runs, and the next start uses the new version", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher);
  await publisher.publish("2", webApp("2"));
  assert.match((await app.tell("check", "--once")).stdout, /updated 1 → 2/);
  assert.is(app.current(), "releases/my-app-2");
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "2", { what: "version 2" });
  await running.stop();
  await publisher.close();
});

test("a folder with spaces, Unicode and a long name works, its socket under the run folder", async () => {
  const folder = join(tempDir(), `ein Ordner mit ü und ${"x".repeat(80)}`);
  const app = await deploy(publisher, { folder });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  assert.is((await app.status())["state"], "running");
  await running.stop();
});

test("the new release's own launchify.yml counts with it, the deploy directory's wins", async () => {
  const publisher = await freshPublisher();
  const app = await deploy(publisher, { app: ["forever: true"] });
  await publisher.publish("2", {
    ...webApp("2"),
    "launchify.yml": "app: { forever: false, grace: 77s }\nupdates: { keep: 5 }\n",
  });
  assert.is((await app.tell("check", "--once")).code, 0);
  const { stdout } = await app.tell("config");
  assert.match(stdout, /app\.forever +true +.*launchify\.yml:/);
  assert.match(stdout, /updates\.keep +5 +.*releases\/my-app-2\/launchify\.yml:2:/);
  await publisher.close();
});

testUnless(test, opensNoSocket)(
  "an address that somebody else holds, or a missing app.exec, is told before anything starts",
  async () => {
    const other = await deploy(publisher);
    const running = await other.launch();
    await waitFor(async () => (await other.ask()) === "1", { what: "the other app" });
    const app = await deploy(publisher, { app: [`listen: ${other.port}`] });
    const taken = await app.tell();
    assert.is(taken.code, 2);
    assert.match(taken.stderr, /app\.listen: .*EADDRINUSE/);
    await running.stop();
    writeFileSync(join(app.folder, "launchify.yml"), "app: { name: my-app }\n");
    assert.match((await app.tell()).stderr, /app\.exec is missing/);
  },
);

test.run();
