// A mistake in launchify.yml while the app runs: it is told, and what runs goes on.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
test.after(() => publisher.close());

test("a mistake in launchify.yml ends nothing, hides nothing, and once it is corrected all goes on", async () => {
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher, { app: ["forever: true"], updates: ["every: 2s"] });
  const config = join(app.folder, "launchify.yml");
  const good = readFileSync(config, "utf8").replace("within: 20s", "within: 20s, every: 200ms");
  writeFileSync(config, good);
  const running = await app.launch();
  await waitFor(async () => (await app.status())["health"] === "well", { what: "a good answer" });
  const { pid } = (await app.status()) as { pid: number };

  writeFileSync(config, `${good}appp: {}\n`);
  const mistake = /launchify\.yml:\d+:1: unknown key "appp"/;
  for (const command of ["restart", "check"]) {
    const { code, stderr } = await app.tell(command);
    assert.is(code, 2);
    assert.match(stderr, mistake);
  }
  assert.is(await app.ask(), "1");
  const status = await app.tell("status");
  assert.match(status.stdout, new RegExp(`running, process ${pid}$`, "m"));
  assert.match(status.stdout, /^health +well$/m);
  assert.match(status.stdout, /^version +1$/m);
  assert.match(status.stdout, mistake);
  // systemd's watchdog is fed for as long as the health is asked
  await running.until(/update: .*unknown key "appp"/);
  assert.is((await app.status())["pid"], pid);

  writeFileSync(config, good);
  await publisher.publish("2", webApp("2"));
  await waitFor(async () => (await app.ask()) === "2", { what: "the next check, by itself" });
  await running.stop();
});

test("an app that cannot be started again is tried again, after restart and after an update that failed", async () => {
  await publisher.publish("3", webApp("3"));
  const app = await deploy(publisher, { app: ["forever: true"] });
  const refuse = join(app.folder, "refuse");
  writeFileSync(
    join(app.folder, "launchify.yml"),
    `${readFileSync(join(app.folder, "launchify.yml"), "utf8")}hooks: { before_start: "test ! -e ${refuse}" }\n`,
  );
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "3", { what: "version 3" });
  writeFileSync(refuse, "");
  assert.match((await app.tell("restart")).stderr, "the hook before_start failed with exit code 1");
  rmSync(refuse);
  await waitFor(async () => (await app.ask()) === "3", { what: "version 3 again" });
  // it takes the way back along
  await publisher.publish("4", webApp("4", `require("fs").writeFileSync("${refuse}", ""); process.exit(1);`));
  const { error } = await app.control("check");
  assert.match(error ?? "", /4 did not hold up: .*; 3 is started again/);
  rmSync(refuse);
  await waitFor(async () => (await app.ask()) === "3", { what: "version 3 after the update" });
  await running.stop();
});

test("verify works beside a launchfit that runs", async () => {
  await publisher.publish("5", webApp("5"));
  const app = await deploy(publisher);
  const running = await app.launch();
  const verified = await app.tell("verify");
  assert.is(verified.code, 0, verified.stderr);
  assert.match(verified.stdout, /^my-app-5: good, signed by [0-9A-F]{40} \(installed\)\n/);
  await running.stop();
});

test("what is typed wrong is told with what to type, and nothing is made", async () => {
  const url = "https://updates.invalid/app";
  const cases: [string[], string | RegExp][] = [
    [["chekc"], '"chekc" is no command (did you mean "check"?) and not the address of a web folder'],
    [["./web"], '"./web" is no command and not the address of a web folder; write https://HOST/PATH/ or file:///PATH/'],
    [["verify"], "no web folder is known; install the app first (launchfit URL)"],
    [[url, "--key", "12"], '"12" is not a fingerprint'],
    [[url, "--key-file", "no-such-file"], "no-such-file: there is no such file"],
    [[url, "--key", "0".repeat(40), "--key-file", "a-file"], "give --key or --key-file, not both"],
    [["log", "-n", "1.5"], '--lines: "1.5" is not a whole number'],
    [["log", "--lines=-5"], '--lines: "-5" is not a whole number'],
    [["log", "-1"], /unknown flag -1; see/],
    ...[["status"], ["list"], ["config"], ["log"], ["check"], ["check", "--once"], ["rollback"]]
      .concat([["verify"], ["fetch"], ["restart"], ["notify", "test"], []])
      .flatMap((words): [string[], string][] => [
        [[...words, "--dir", "nowhere"], "nowhere is not there; name the deploy directory"],
        [[...words, "--dir", "/etc/passwd"], "/etc/passwd is not a folder; name the deploy"],
      ]),
  ];
  const tried = cases.map(async ([words, told]) => {
    const cwd = tempDir();
    const { code, stdout, stderr } = await runScript("launchfit", words, { cwd });
    const what = `launchfit ${words.join(" ")}: ${JSON.stringify({ code, stdout, stderr })}`;
    assert.ok(typeof told === "string" ? stderr.includes(told) : told.test(stderr), what);
    assert.is(code, 2, what);
    assert.is(stdout, "", what);
    assert.equal(readdirSync(cwd), [], what);
  });
  await Promise.all(tried);
});

test("a directory without an app says so in its list and its log", async () => {
  const cwd = tempDir();
  const list = await runScript("launchfit", ["list"], { cwd, expect: 0 });
  assert.match(list.stderr, "nothing is installed in .");
  const log = await runScript("launchfit", ["log"], { cwd, expect: 0 });
  assert.match(log.stderr, "no output yet in .");
  assert.is(list.stdout + log.stdout, "");
});

test.run();
