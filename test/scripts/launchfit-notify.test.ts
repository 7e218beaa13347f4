// Whom launchfit tells, and of what: real updates, crash loops and refusals, and a command as the target.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { LauncherState } from "../../lib/launch/state.ts";
import { noticesOf } from "../../lib/launch/messages.ts";
import { deploy, type Deployed, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

/** A directory whose `notify:` appends a line a message to a file; `said` is what stands there. */
async function deployTold(publisher: Awaited<ReturnType<typeof makePublisher>>, app: string[] = []) {
  const file = join(tempDir(), "told");
  const deployed = await deploy(publisher, { app });
  const config = join(deployed.folder, "launchify.yml");
  // whole messages only: who sees the title sees the text
  const whole = `{ echo "== $NOTIFY_TITLE"; cat; } > ${file}.$$`;
  const command = `${whole}; cat ${file}.$$ >> ${file}; rm ${file}.$$`;
  const notify = `notify:\n  - command: ${JSON.stringify(command)}\n    group: 0s\n`;
  writeFileSync(config, readFileSync(config, "utf8") + notify);
  const said = () => (existsSync(file) ? readFileSync(file, "utf8") : "");
  const titles = () =>
    said()
      .split("\n")
      .filter((line) => line.startsWith("== "));
  const until = (title: string) =>
    waitFor(async () => titles().includes(`== ${title}`), { what: `${title}, not ${said()}` });
  return { ...deployed, config, said, titles, until };
}

const fresh = async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  return publisher;
};

test("an update that is taken, one that is undone, and the next that holds up are told", async () => {
  const publisher = await fresh();
  const app = await deployTold(publisher, ["forever: true"]);
  const running = await app.launch();
  await publisher.publish("2", webApp("2"));
  assert.is((await app.control("check")).ok, true);
  await app.until("NEWS: my-app update: version 2 in place of 1");
  await publisher.publish("3", webApp("3", 'console.log("no table users"); process.exit(3);'));
  assert.is((await app.control("check")).ok, false);
  await app.until("FAILED: my-app update");
  assert.match(app.said(), /^what: +an update failed: 3 did not hold up: it ended with exit code 3$/m);
  assert.match(app.said(), /^where: +launchfit on /m);
  assert.match(app.said(), / app \| no table users$/m);
  // nothing new is nothing to tell
  assert.is((await app.control("check")).ok, true);
  await publisher.publish("4", webApp("4"));
  assert.is((await app.control("check")).ok, true);
  await app.until("OK again: my-app update");
  assert.is(app.titles().length, 3);
  await running.stop();
  await publisher.close();
});

test("updates that are refused are told once, and that they are taken again", async () => {
  const publisher = await fresh();
  const app = await deployTold(publisher);
  const release = async (...args: string[]) =>
    await runScript("release", [...args, "--out", publisher.folder, "--key", publisher.key], {
      expect: 0,
    });
  await release("refresh", "--expires", "1ms");
  // a VERSION signed within the same second as the one before it is dated a second later
  const [, expires = ""] = /^EXPIRES (.+)$/m.exec(readFileSync(join(publisher.folder, "VERSION"), "utf8")) ?? [];
  await waitFor(async () => Date.now() > Date.parse(expires), { what: `${expires} to be over` });
  for (let round = 0; round < 2; round++) assert.is((await app.tell("check", "--once")).code, 4);
  assert.equal(app.titles(), ["== FAILED: my-app updates"]);
  assert.match(app.said(), /^what: +updates are refused: .*expired at /m);
  // a server that is down is neither
  publisher.misbehave(() => ({ status: 500, body: "" }));
  assert.is((await app.tell("check", "--once")).code, 1);
  publisher.misbehave();
  await release("refresh", "--expires", "1h");
  assert.is((await app.tell("check", "--once")).code, 0);
  assert.equal(app.titles().slice(1), ["== OK again: my-app updates"]);
  await publisher.close();
});

test("an app that is given up is told, and that it runs again", () => {
  const at = "2026-11-20T10:00:00.000Z";
  const reason = "crash loop: it ended 11 times in a row within a minute, the last time with SIGSEGV";
  const broken = { crashLoop: { at, reason } };
  const told = (from: LauncherState, to: LauncherState) =>
    noticesOf("my-app", from, to).map(({ outcome, subject, reason: why }) => [outcome, subject, why]);
  assert.equal(told({}, broken), [["failed", "my-app", reason]]);
  assert.equal(told(broken, { ...broken, stopped: { at, reason } }), []);
  assert.equal(told(broken, {}), [["ok", "my-app", undefined]]);
});

test("a target that does not answer holds nothing up, and is told by the next run", async () => {
  const publisher = await fresh();
  const app = await deploy(publisher);
  const got: string[] = [];
  let isDown = true;
  const hook = createServer((request, response) => {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => {
      if (isDown) return void response.writeHead(503).end();
      got.push(text);
      response.end();
    });
  });
  await new Promise<void>((done) => hook.listen(0, "127.0.0.1", done));
  const { port } = hook.address() as AddressInfo;
  writeFileSync(join(app.folder, "hook.url"), `http://127.0.0.1:${port}/secret-path-of-a-chat\n`, {
    mode: 0o600,
  });
  const config = join(app.folder, "launchify.yml");
  writeFileSync(config, `${readFileSync(config, "utf8")}notify: [{ webhook: { url_file: hook.url } }]\n`);
  await publisher.publish("2", webApp("2"));
  const checked = await app.tell("check", "--once");
  assert.is(checked.code, 0, checked.stderr);
  const outbox = join(app.folder, ".launchfit/notify/outbox");
  assert.is(readdirSync(outbox).length, 1);
  assert.not.match(checked.stderr, "secret-path");
  const shown = await app.tell("config");
  assert.match(shown.stdout, /^notify +\[webhook\] /m);
  assert.not.match(shown.stdout, "secret-path");
  isDown = false;
  assert.is((await app.tell("check", "--once")).code, 0);
  assert.is(got.length, 1);
  assert.match(got[0] ?? "", "version 2 in place of 1");
  assert.is(readdirSync(outbox).length, 0);
  const sample = await app.tell("notify", "test");
  assert.is(sample.code, 0, sample.stderr);
  assert.match(sample.stdout, /^webhook at 127\.0\.0\.1:\d+: told$/m);
  isDown = true;
  assert.is((await app.tell("notify", "test")).code, 1);
  await new Promise((done) => hook.close(done));
  await publisher.close();
});

test("a release names nobody to tell; a mistake in notify is told and keeps nothing from running", async () => {
  const publisher = await makePublisher();
  const file = join(tempDir(), "told");
  const evil = {
    "launchify.yml": `notify: [{ command: "touch ${file}", group: 0s, when: always }]\n`,
  };
  await publisher.publish("1", { ...webApp("1"), ...evil });
  const app: Deployed = await deploy(publisher);
  await publisher.publish("2", { ...webApp("2"), ...evil });
  assert.is((await app.tell("check", "--once")).code, 0);
  assert.not.ok(existsSync(file));
  assert.match((await app.tell("notify", "test")).stderr, /launchify\.yml: notify: names nobody to tell/);
  const config = join(app.folder, "launchify.yml");
  const good = readFileSync(config, "utf8");
  writeFileSync(config, `${good}notify: [{ ntfy: { topic: a, token_file: not-there } }]\n`);
  await publisher.publish("3", webApp("3"));
  const checked = await app.tell("check", "--once");
  assert.is(checked.code, 0, checked.stderr);
  assert.match(checked.stderr, /launchify\.yml:\d+:\d+: .*not-there.*; nobody is told/);
  assert.is((await app.tell("notify", "test")).code, 2);
  assert.is((await app.tell("notify")).code, 2);
  // what waits to be told cannot be read
  writeFileSync(config, `${good}notify: [{ command: "true" }]\n`);
  mkdirSync(join(app.folder, ".launchfit/notify"), { recursive: true });
  writeFileSync(join(app.folder, ".launchfit/notify/outbox"), "a file");
  const broken = await app.tell("check", "--once");
  assert.is(broken.code, 0, broken.stderr);
  assert.match(broken.stderr, /notify: EEXIST.*; nobody is told/);
  mkdirSync(join(app.folder, "x"));
  assert.is((await runScript("launchfit", ["notify", "test", "--dir", join(app.folder, "x")])).code, 2);
  await publisher.close();
});

test.run();
