// More than one launchfit at once: in one directory they wait for each other or say who is there; in two they do not meet.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { deploy, type Deployed, opensNoSocket, webApp } from "../helpers/launch.ts";
import { freePort } from "../helpers/ports.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, runScript, type Running, startCommand, startScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
test.after(() => publisher.close());
await publisher.publish("1", webApp("1"));

/** A process that holds the lock. */
async function hold(path: string): Promise<Running> {
  const holder = startCommand(current.argv(join(root, "test/helpers/hold-lock.ts")).concat(path));
  await holder.until(/held/);
  return holder;
}

const install = (dir: string) => runScript("launchfit", [publisher.url, "--key", publisher.fingerprint, "--dir", dir]);

test("an install where another launchfit works says at once who that is, and touches nothing", async () => {
  const dir = tempDir("deploy-");
  const holders = [await hold(join(dir, ".launchfit/lock"))];
  for (const other of ["fetch.lock", undefined]) {
    const { code, stderr } = await install(dir);
    assert.is(code, 3, stderr);
    assert.match(stderr, `is locked by process ${holders[0]?.pid} (holding`);
    assert.equal(readdirSync(dir), [".launchfit"]);
    // also when the other one fetches at that moment: it is not waited for then
    if (other) holders.push(await hold(join(dir, ".launchfit", other)));
  }
  for (const holder of holders) await holder.stop("SIGKILL");
  assert.is((await install(dir)).code, 0);
});

test("an install waits for a fetch that is under way", async () => {
  const dir = tempDir("deploy-");
  const fetching = await hold(join(dir, ".launchfit/fetch.lock"));
  const installing = install(dir);
  await waitFor(() => readFileSync(join(dir, ".launchfit/lock"), "utf8").includes("install"), {
    what: "the install's own lock",
  });
  assert.not(existsSync(join(dir, "releases")));
  await fetching.stop("SIGKILL");
  assert.is((await installing).code, 0);
});

test("of many installs in one directory at once one works, and the others say so or find it done", async () => {
  const dir = tempDir("deploy-");
  const results = await Promise.all(Array.from({ length: 6 }, () => install(dir)));
  assert.ok(
    results.every(({ code }) => code === 0 || code === 3),
    JSON.stringify(results),
  );
  assert.ok(results.some(({ stdout }) => stdout.includes("my-app-1 installed")));
  assert.match(readFileSync(join(dir, "current/server.js"), "utf8"), "createServer");
  assert.equal(readdirSync(join(dir, ".launchfit/temporary")), []);
});

test("two directories that follow one web folder are updated at once, each whole and apart", async () => {
  const base = tempDir("two-");
  const apps: Deployed[] = [];
  for (const name of ["a", "b"]) {
    mkdirSync(join(base, name));
    apps.push(await deploy(publisher, { folder: join(base, name), listen: opensNoSocket === undefined }));
  }
  const running = await Promise.all(apps.map((app) => app.launch()));
  for (const version of ["2", "3"]) {
    await publisher.publish(version, webApp(version));
    const answers = await Promise.all(apps.map((app) => app.control("check")));
    for (const { ok, error } of answers) assert.ok(ok, error);
    for (const app of apps) {
      assert.is(app.current(), `releases/my-app-${version}`);
      await waitFor(async () => (await app.ask()) === version, { what: version });
    }
  }
  // what fails in one is undone there, and is no matter of the other
  await publisher.publish("4", webApp("4", `if (process.cwd().includes("/a/")) process.exit(1);`));
  const [one, other] = await Promise.all(apps.map((app) => app.control("check")));
  assert.is(one?.ok, false);
  assert.ok(other?.ok, other?.error);
  assert.equal(
    apps.map((app) => app.current()),
    ["releases/my-app-3", "releases/my-app-4"],
  );
  for (const [at, version] of ["3", "4"].entries())
    await waitFor(async () => (await apps[at]?.ask()) === version, { what: `version ${version}` });
  await Promise.all(running.map((each) => each.stop()));
});

/** An app that nothing in its environment tells from any other process. */
const bare = (port: number) => `exec: exec env -i PATH="$PATH" PORT=${port} node server.js`;

test("an app that a killed launchfit left is ended when another version is current, whatever it made of its environment", async () => {
  const port = await freePort();
  const served = await makePublisher();
  await served.publish("1", webApp("1"));
  const app = await deploy(served, { port, app: [bare(port)] });
  const first = await app.launch();
  await waitFor(async () => (await app.ask()) === "1", { what: "version 1" });
  const { pid } = await app.status();
  await first.stop("SIGKILL");
  const told = await app.tell("status");
  assert.is(told.code, 1);
  assert.match(told.stdout, `launchfit was killed, and its app (version 1, process ${pid}) runs on`);
  await served.publish("2", webApp("2"));
  assert.is((await app.tell("check", "--once")).code, 0);
  const next = await app.launch();
  await waitFor(async () => (await app.ask()) === "2", { what: "version 2" });
  assert.not.ok(await isAlive(Number(pid)));
  assert.match(next.output(), `version 1, process ${pid}, was left by a launchfit that was killed: it is ended`);
  await next.stop();
  await served.close();
});

test("a restart that is asked for while an app that crashed is being started again leaves one app", async () => {
  const go = join(tempDir(), "go");
  writeFileSync(go, "");
  const app = await deploy(publisher, {
    app: ["exec: exec sleep 60", "forever: true", "health: 'true'"],
    hooks: [`before_start: echo starting; until test -e ${go}; do sleep 0.05; done`],
  });
  const running = await app.launch();
  const started = () => [...running.output().matchAll(/started \S+, process (\d+)/g)].map(([, pid]) => Number(pid));
  const [first] = started();
  assert.ok(first);
  rmSync(go);
  process.kill(first, "SIGKILL");
  await running.until(/starts again in[\s\S]*before_start: starting/);
  const restarted = app.control("restart");
  await app.status();
  writeFileSync(go, "");
  assert.ok((await restarted).ok);
  await waitFor(() => started().length === 3, { what: "both starts" });
  const alive = await Promise.all(started().map((pid) => isAlive(pid)));
  assert.equal(alive, [false, false, true]);
  assert.is((await app.status())["pid"], started()[2]);
  await running.stop();
  assert.not.ok(await isAlive(started()[2] ?? 0));
});

test("a copy of a directory whose app runs has an app of its own", async () => {
  const app = await deploy(publisher);
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) !== "ECONNREFUSED", { what: "the app" });
  const { pid } = await app.status();
  const copy = join(tempDir(), "copy");
  await runCommand(["cp", "-a", app.folder, copy], { expect: 0 });
  const config = join(copy, "launchify.yml");
  const port = await freePort();
  writeFileSync(config, readFileSync(config, "utf8").replaceAll(RegExp(`\\b${app.port}\\b`, "g"), `${port}`));
  const other = startScript("launchfit", ["--dir", copy]);
  await other.until(/started .* process \d+|took over/);
  assert.not.match(other.output(), /took over/);
  await other.stop();
  assert.ok(await isAlive(Number(pid)), "the first one's app runs on");
  await running.stop();
});

test.run();
