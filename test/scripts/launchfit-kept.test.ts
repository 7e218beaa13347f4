// What an install wrote into launchify.yml and launchfit must keep: the server, the pinned key, the app's name. And a
// directory where no updates are meant to be.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { openPage } from "../helpers/pages.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const publisher = await makePublisher();
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

test("a launchify.yml that lost its server is an error that says what to write, until updates: false says that it is meant", async () => {
  const app = await deploy(publisher);
  const path = join(app.folder, "launchify.yml");
  const whole = readFileSync(path, "utf8");
  const settings = "app:\n  exec: exec node server.js\nupdates:\n  every: 1h\n";
  writeFileSync(path, settings);
  const lost = `updates.server is missing; this directory follows ${publisher.url}/. Write it back below "updates:" as server: ${publisher.url}/`;
  for (const args of [[], ["check", "--once"], ["fetch"], ["verify"]]) {
    const { code, stderr } = await app.tell(...args);
    assert.is(code, 2, `${args.join(" ")}: ${stderr}`);
    assert.match(stderr, `${path}: ${lost}`);
    assert.not.match(stderr, /^ +at /m);
  }
  const status = await app.tell("status");
  assert.is(status.code, 2);
  assert.match(status.stdout, /^updates +no updates are configured: .*updates\.server is missing/m);

  writeFileSync(path, `app:\n  exec: exec node server.js\n  env: { PORT: "${app.port}" }\nupdates: false\n`);
  const running = await app.launch();
  const meant = await app.tell("status");
  assert.is(meant.code, 0, meant.stdout);
  assert.match(meant.stdout, /^updates +off \(launchify\.yml\)$/m);
  const refused = await app.tell("check");
  assert.is(refused.code, 2);
  assert.match(refused.stderr, /updates are switched off by launchify\.yml/);
  await running.stop();
  const again = await app.tell(publisher.url);
  assert.is(again.code, 2, "an install does not switch them on");
  assert.match((await app.tell("config")).stdout, /updates\.enabled +false +.*launchify\.yml:4:10/);

  writeFileSync(path, whole);
  assert.match((await app.tell("check", "--once")).stdout, "up to date");
});

test("a directory in which nothing was ever installed has no updates, exit 2", async () => {
  const dir = tempDir();
  const { code, stdout } = await runScript("launchfit", ["status", "--dir", dir]);
  assert.is(code, 2);
  assert.match(stdout, /^updates +no updates are configured/m);
});

test("a mistake in launchify.yml is shown as that, not as updates that nobody has configured", async () => {
  const dir = tempDir();
  writeFileSync(join(dir, "launchify.yml"), "app:\n  nam: my-app\n");
  const { code, stdout } = await runScript("launchfit", ["status", "--dir", dir]);
  assert.is(code, 2);
  assert.match(stdout, /^updates +none until this is corrected: .*launchify\.yml:2:3: unknown key/m);
  const json = await runScript("launchfit", ["status", "--json", "--dir", dir]);
  assert.is(json.code, 2);
  const { updates, hint } = JSON.parse(json.stdout) as Record<string, string>;
  assert.is(updates, "unknown");
  assert.match(hint ?? "", /launchify\.yml:2:3/);
});

test("the pinned key holds although launchify.yml lost it, and another app's name is an error with its line", async () => {
  const app = await deploy(publisher);
  const path = join(app.folder, "launchify.yml");
  const whole = readFileSync(path, "utf8");
  const other = await makePublisher();
  await other.publish("2", webApp("2"));
  writeFileSync(path, whole.replace(/ {2}gpg:\n.*\n/, "").replace(/server: .*/, `server: ${other.url}`));
  const stolen = await app.tell("check", "--once");
  assert.is(stolen.code, 4, stolen.stdout);
  assert.match(stolen.stderr, publisher.fingerprint);
  await other.close();
  writeFileSync(path, whole.replace("name: my-app", "name: my-ap"));
  const line = whole.split("\n").findIndex((each) => each.includes("name: my-app")) + 1;
  for (const args of [[], ["check", "--once"]]) {
    const { code, stderr } = await app.tell(...args);
    assert.is(code, 2, stderr);
    assert.match(
      stderr,
      new RegExp(`launchify\\.yml:${line}:\\d+: app\\.name is "my-ap", but my-app is installed here`),
    );
  }
});

test("the launchify.yml of docs/self-updating.md works as it is written", async () => {
  const page = await openPage("self-updating.md");
  const app = await deploy(publisher);
  const text = page.block("every: 15m", {
    "https://example.com/app-updates": publisher.url,
    "0123456789ABCDEF0123456789ABCDEF01234567": publisher.fingerprint,
  });
  writeFileSync(join(app.folder, "launchify.yml"), text);
  const checked = await app.tell("check", "--once");
  assert.is(checked.code, 0, checked.stderr);
  assert.match(checked.stdout, "up to date");
  assert.match((await app.tell("config")).stdout, /updates\.every +15m +.*launchify\.yml:/);
});

test.run();
