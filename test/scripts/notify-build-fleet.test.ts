// build from cron and server-update tell people by a file of their own, and send samples.
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeRepo } from "../helpers/repos.ts";
import { closeReceivers, startReceiver } from "../helpers/receiver.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

test.after(closeReceivers);

/** A home with a notify.yml of one webhook, and a clone whose build fails while `broken` is in it. */
async function makeHome() {
  const chat = await startReceiver();
  const home = tempDir();
  const settings = join(home, ".config/boatyard/notify.yml");
  await mkdir(dirname(settings), { recursive: true });
  await writeFile(settings, `notify: [{ webhook: { url: "${chat.url}" } }]\n`);
  const build = "stages: [page]\ncommands: { page: 'echo working; test ! -e broken' }\n";
  const repo = await makeRepo({ files: { "build.yml": build } });
  const dir = join(home, "site");
  await runCommand(["git", "clone", "--quiet", repo.bare, dir], { expect: 0 });
  return { chat, home, dir, env: { HOME: home } };
}

test("build tells the first failure with its last lines, and the recovery, once each", async () => {
  const { chat, dir, env } = await makeHome();
  await runScript("build", [dir], { env, expect: 0 });
  await writeFile(join(dir, "broken"), "");
  for (let at = 0; at < 2; at++) await runScript("build", [dir], { env, expect: 1 });
  await runCommand(["rm", join(dir, "broken")], { expect: 0 });
  await runScript("build", [dir], { env, expect: 0 });
  assert.equal(
    chat.received.map(({ body }) => body.message.replace(dir, "DIR")),
    ["FAILED: DIR main: page", "OK again: DIR main"],
  );
  const [failed] = chat.received;
  assert.ok(failed?.body.lines.includes("working"), failed?.text);
  assert.is(failed?.body.stage, "page");
});

test("a build that hook-server started tells nobody itself, and a wrong notify.yml is refused before anything is done", async () => {
  const { chat, home, dir, env } = await makeHome();
  await writeFile(join(dir, "broken"), "");
  const hook = { ...env, HOOK_RUN: "20261120T101500Z-3f2a9c" };
  await runScript("build", [dir], { env: hook, expect: 1 });
  assert.is(chat.received.length, 0);
  await writeFile(join(home, ".config/boatyard/notify.yml"), "notify: [{ webhok: {} }]\n");
  const { stderr } = await runScript("build", [dir], { env, expect: 2 });
  assert.match(stderr, /notify\.yml:1:\d+: unknown key "webhok"/);
});

test("build --notify-test and server-update --notify-test send a sample", async () => {
  const { chat, home, env } = await makeHome();
  await runScript("build", ["--notify-test"], { env, expect: 0 });
  const file = join(home, ".config/boatyard/notify.yml");
  await runScript("server-update", ["--notify-test", "--notify", file], { env, expect: 0 });
  assert.equal(
    chat.received.map(({ body }) => body.by),
    ["build", "server-update"],
  );
  const none = ["--notify-test", "--notify", join(home, "none.yml")];
  const { stderr } = await runScript("server-update", none, { env, expect: 2 });
  assert.match(stderr, /nobody is to be told/);
});

test("server-update tells which slaves failed, then that all are up to date, and drift", async () => {
  const { chat, home, env } = await makeHome();
  let isUp = false;
  const commit = "a".repeat(40);
  const slave = await startReceiver(({ path }) =>
    !isUp
      ? { status: 500, text: '{"error":"the disk is full"}' }
      : path.startsWith("/status")
        ? { status: 200, text: JSON.stringify({ repo: "site", sha: "b".repeat(40) }) }
        : { status: 202, text: '{"job":"1","repo":"site"}' },
  );
  const list = join(home, "slaves.txt");
  await writeFile(list, `${slave.url}/get/\n`);
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const common = ["site", "--list", list, "--notify", join(home, ".config/boatyard/notify.yml")];
  const args = [...common, "--base", `file://${dirname(repo.bare)}`, "--retries", "0"];
  const state = { ...env, XDG_STATE_HOME: join(home, "state") };
  await runScript("server-update", args, { env: state, expect: 1 });
  isUp = true;
  await runScript("server-update", args, { env: state, expect: 0 });
  const status = ["--status", ...common, "--sha", commit];
  await runScript("server-update", status, { env: state, expect: 1 });
  assert.equal(
    chat.received.map(({ body }) => body.message),
    ["FAILED: site on its slaves", "OK again: site on its slaves", "FAILED: drift of site"],
  );
  assert.match(chat.received[0]?.body.text, /1 of 1 slaves are not up to date/);
  assert.match(chat.received[0]?.body.lines.join(), /127\.0\.0\.1.*: .*/);
});

test.run();
