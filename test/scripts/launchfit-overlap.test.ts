// app.overlap: the new version is started beside the old one, on the same socket.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { Agent } from "node:http";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { askPort, type Deployed, deploy, opensNoSocket } from "../helpers/launch.ts";
import { openPage } from "../helpers/pages.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const listening = testUnless(test, opensNoSocket);

/** The app of the page, to the letter; `first` and `last` are put before and after it. */
const sample = (await openPage("launchfit.md")).block("// server.mjs");
const drains = (first = "", last = "") => ({ "server.mjs": `${first}\n${sample}\n${last}` });

const exec = "exec: exec node server.mjs";

async function start(options: { app?: string[] } = {}) {
  const publisher = await makePublisher();
  await publisher.publish("1", drains());
  const app = await deploy(publisher, {
    listen: true,
    app: [exec, "overlap: true", ...(options.app ?? [])],
  });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "version 1\n", { what: "version 1" });
  return { publisher, app, running };
}

/** Clients that ask one request after the other: with a connection for each, and over connections that they keep. */
function clients(port: number) {
  const answers = new Map<string, number>();
  let asking = true;
  const one = async (agent: Agent | false) => {
    while (asking) {
      const answer = (await askPort(port, agent)).trim();
      answers.set(answer, (answers.get(answer) ?? 0) + 1);
      // idle for a moment, so that the server may be about to close it
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  const kept = Array.from({ length: 4 }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  const all = [...kept.map((agent) => one(agent)), one(false), one(false)];
  return async () => {
    asking = false;
    await Promise.all(all);
    for (const agent of kept) agent.destroy();
    return Object.fromEntries(answers);
  };
}

const pidOf = async (app: Deployed) => Number((await app.status())["pid"]);

listening(
  "an update and a rollback lose no request, new or on a kept connection, and the old version ends only after the new one answered",
  async () => {
    const { publisher, app, running } = await start();
    const stop = clients(app.port);
    const first = await pidOf(app);
    // it takes a while to start
    await publisher.publish("2", drains("await new Promise((r) => setTimeout(r, 700));"));
    const checked = await app.control("check");
    assert.ok(checked.ok, checked.error);
    assert.match(
      running.output(),
      /started 2, process \d+, beside 1[\s\S]*ended 1\n/,
      "started before the other ended",
    );
    assert.not.ok(await isAlive(first));
    assert.is(await app.ask(), "version 2\n");
    assert.is(app.current(), "releases/my-app-2");
    assert.ok((await app.control("rollback")).ok);
    assert.is(await app.ask(), "version 1\n");
    const answers = await stop();
    assert.equal(Object.keys(answers).sort(), ["version 1", "version 2"], JSON.stringify(answers));
    await running.stop();
    assert.is(await app.ask(), "ECONNREFUSED");
    await publisher.close();
  },
);

listening("a new version that does not answer is ended, and the old one was never touched", async () => {
  const { publisher, app, running } = await start();
  const stop = clients(app.port);
  const first = await pidOf(app);
  const path = join(app.folder, "launchify.yml");
  const within = (ms: number) =>
    writeFileSync(path, readFileSync(path, "utf8").replace(/within: \w+/, `within: ${ms}ms`));
  const pids = join(tempDir(), "pids");
  const tell = `(await import("node:fs")).appendFileSync("${pids}", process.pid + "\\n");`;
  for (const [version, files, reason] of [
    // answers nowhere but on the shared socket: the old one's answers are not its own
    [
      "2",
      drains(`${tell} delete process.env.LAUNCHFIT_HEALTH_PORT;`),
      /ECONNREFUSED; with app\.overlap the app must answer on 127\.0\.0\.1, port LAUNCHFIT_HEALTH_PORT, too/,
    ],
    // accepts, and never answers
    [
      "3",
      {
        "server.mjs": `${tell} const { createServer } = await import("node:net");
createServer(() => {}).listen(process.env.LAUNCHFIT_HEALTH_PORT, "127.0.0.1");`,
      },
      /no good answer within [\d.]+ s/,
    ],
    // says that it is not well
    [
      "4",
      drains(tell, "web.prependListener('request', (_, r) => (r.statusCode = 500));"),
      /status 500: version 4; 1 runs on/,
    ],
  ] as const) {
    await publisher.publish(version, files);
    // each needs time to start
    within(Math.ceil(1200 * slowness()));
    const { ok, error } = await app.control("check");
    assert.is(ok, false);
    assert.match(error ?? "", reason, error);
    assert.is(app.current(), "releases/my-app-1");
  }
  assert.is(await pidOf(app), first, "it was not even restarted");
  const started = readFileSync(pids, "utf8").trim().split("\n");
  assert.is(started.length, 3);
  for (const pid of started) assert.not.ok(await isAlive(Number(pid)), `process ${pid} is gone`);
  const { failed } = JSON.parse(readFileSync(join(app.folder, ".launchfit/launcher.json"), "utf8")) as {
    failed: Record<string, unknown>;
  };
  assert.equal(Object.keys(failed), ["2", "3", "4"]);
  await stop();
  await running.stop();
  await publisher.close();
});

listening("an app that cannot run twice is replaced as without overlap, and the log says what to write", async () => {
  const { publisher, app, running } = await start();
  const lock = join(tempDir(), "lock");
  const alone = `
    import { mkdirSync, rmdirSync } from "node:fs";
    mkdirSync("${lock}");
    process.on("exit", () => rmdirSync("${lock}"));
  `;
  await publisher.publish("2", drains(alone));
  assert.ok((await app.control("check")).ok);
  await publisher.publish("3", drains(alone));
  const checked = await app.control("check");
  assert.ok(checked.ok, checked.error);
  assert.match(
    running.output(),
    /3 cannot run beside 2: it ended with exit code 1 before it was healthy \(if the app cannot run twice, write app\.overlap: false\); 2 is ended first/,
  );
  assert.is(await app.ask(), "version 3\n");
  // one that always ends is undone
  await publisher.publish("4", { "server.mjs": "process.exit(7)" });
  const { error } = await app.control("check");
  assert.match(error ?? "", /4 did not hold up: it ended with exit code 7; 3 runs again/);
  await waitFor(async () => (await app.ask()) === "version 3\n", { what: "version 3 again" });
  await running.stop();
  assert.not.ok(existsSync(lock));
  await publisher.close();
});

listening(
  "a launchfit that is killed while two run: the next one ends both, and starts the version that is current",
  async () => {
    const { publisher, app, running } = await start({ app: ["grace: 3s"] });
    // before the switch: the new one is still starting
    const one = await pidOf(app);
    await publisher.publish("2", drains("await new Promise((r) => setTimeout(r, 60000));"));
    void app.control("check").catch(() => {});
    const [, two] = await running.until(/started 2, process (\d+), beside 1/);
    running.kill("SIGKILL");
    await running.exited;
    const second = await app.launch();
    assert.match(second.output(), new RegExp(`version 1, process ${one}, was left by a launchfit that was killed`));
    for (const pid of [one, Number(two)]) assert.not.ok(await isAlive(pid));
    await waitFor(async () => (await app.ask()) === "version 1\n", { what: "version 1" });

    // after the switch: the old one still drains
    const slow = `process.on("SIGTERM", () => setTimeout(() => {}, 5000)); process.exit = () => {};`;
    await publisher.publish("4", drains("", slow));
    assert.ok((await app.control("check")).ok);
    const four = await pidOf(app);
    await publisher.publish("5", drains());
    void app.control("check").catch(() => {});
    const [, five] = await second.until(/started 5, process (\d+), beside 4/);
    await waitFor(() => app.current() === "releases/my-app-5", { what: "the switch" });
    second.kill("SIGKILL");
    await second.exited;
    const last = await app.launch();
    for (const pid of [four, Number(five)]) assert.not.ok(await isAlive(pid));
    await waitFor(async () => (await app.ask()) === "version 5\n", { what: "version 5" });
    await last.stop();
    await publisher.close();
  },
);

listening(
  "app.overlap without app.listen, or without a URL that the app answers on it, is refused before anything starts",
  async () => {
    const publisher = await makePublisher();
    await publisher.publish("1", drains());
    for (const lines of [
      ["listen: 8081", "health: 'true'"],
      ["listen: 8081", "health: http://127.0.0.1:8082/"],
      ["health: http://127.0.0.1:8081/"],
    ]) {
      const app = await deploy(publisher, { app: [exec, "overlap: true", ...lines] });
      const { code, stderr } = await app.tell();
      assert.is(code, 2);
      assert.match(stderr, /launchify\.yml: app\.overlap needs app\.listen, and in app\.health a URL/);
    }
    await publisher.close();
  },
);

test.run();
