// launchfit beside other supervisors: the gap in service at an update or restart of one small app, the
// memory and the CPU of an idle supervisor, and the way from a new VERSION to the new app's answer beside
// a shell script that does the same. Run it after `npm run bundle`; arguments: rounds, idle seconds.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { Agent } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { askPort, deploy, webApp } from "../test/helpers/launch.ts";
import { openPage } from "../test/helpers/pages.ts";
import { freePort } from "../test/helpers/ports.ts";
import { makePublisher } from "../test/helpers/publisher.ts";
import { runCommand, startCommand } from "../test/helpers/run.ts";
import { needsCommand } from "../test/helpers/skip.ts";
import { tempDir } from "../test/helpers/tmp.ts";
import { waitFor } from "../test/helpers/wait.ts";

process.env["BOATYARD_TEST_DIST"] = "1";
const rounds = Number(process.argv[2] ?? 5);
const idleSeconds = Number(process.argv[3] ?? 60);

const median = (numbers: number[]) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
const ms = (value: number) => `${value.toFixed(0)} ms`;

/** Asks every millisecond while `change` runs; the longest time between two good answers, failures, the slowest answer. */
async function watch(port: number, change: () => Promise<unknown>) {
  let last = performance.now();
  let gap = 0;
  let failed = 0;
  let slowest = 0;
  let asked = 0;
  const pending = new Set<Promise<void>>();
  const timer = setInterval(() => {
    const start = performance.now();
    asked += 1;
    const one = askPort(port).then((answer) => {
      const now = performance.now();
      pending.delete(one);
      if (answer.startsWith("E")) {
        failed += 1;
        return;
      }
      gap = Math.max(gap, now - last);
      last = now;
      slowest = Math.max(slowest, now - start);
    });
    pending.add(one);
  }, 1);
  await sleep(100);
  await change();
  await sleep(400);
  clearInterval(timer);
  await Promise.all(pending);
  return { gap, failed, slowest, asked };
}

const memoryOf = (pid: number) =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;

/** Seconds of CPU that a process has used: fields 14 and 15 of proc(5)'s stat, in ticks of 10 ms. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const supervisorOf = (folder: string) =>
  (JSON.parse(readFileSync(join(folder, ".launchfit/lock"), "utf8")) as { pid: number }).pid;

// --- the gap at an update, and what the same app needs by itself
async function ours(listen: boolean) {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher, { listen });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1");
  const results = [];
  for (let round = 0; round < rounds; round++) {
    const version = (round + 2).toString(16);
    await publisher.publish(version, webApp(version));
    results.push(await watch(app.port, () => app.control("check")));
  }
  await sleep(2000);
  const pid = supervisorOf(app.folder);
  const memory = memoryOf(pid);
  const before = cpuOf(pid);
  if (!listen) await sleep(idleSeconds * 1000);
  const cpu = ((cpuOf(pid) - before) / idleSeconds) * 100;
  await running.stop();
  await publisher.close();
  return { results, memory, cpu };
}

/**
 * Requests at 200 a second while updates go on with app.overlap, to the app of docs/launchfit.md: with a connection for
 * each, or over connections that are kept. How long they took, sorted, and how many failed.
 */
async function overlapped(keepAlive: boolean) {
  const page = await openPage("launchfit.md");
  const files = { "server.mjs": page.block("// server.mjs") };
  const publisher = await makePublisher();
  await publisher.publish("1", files);
  const lines = ["exec: exec node server.mjs", "overlap: true"];
  const app = await deploy(publisher, { listen: true, app: lines });
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "version 1\n");
  const agent = keepAlive ? new Agent({ keepAlive: true, maxSockets: 20 }) : false;
  const waits: number[] = [];
  let failed = 0;
  const pending = new Set<Promise<void>>();
  const askOnce = () => {
    const start = performance.now();
    const one = askPort(app.port, agent).then((answer) => {
      pending.delete(one);
      if (answer.startsWith("version")) waits.push(performance.now() - start);
      else failed += 1;
    });
    pending.add(one);
  };
  for (let round = 0; round < rounds; round++) {
    const version = (round + 2).toString(16);
    // packing is done here, too: not while the requests are timed
    await publisher.publish(version, files);
    const timer = setInterval(askOnce, 5);
    await sleep(500);
    const { ok, error } = await app.control("check");
    if (!ok) throw new Error(error);
    await sleep(500);
    clearInterval(timer);
    await Promise.all(pending);
  }
  if (agent) agent.destroy();
  await running.stop();
  await publisher.close();
  return { failed, waits: waits.sort((a, b) => a - b) };
}

/** The stop and the start of the app alone: TERM, exit, start, first answer. */
async function alone() {
  const folder = tempDir();
  const port = await freePort();
  writeFileSync(join(folder, "server.js"), webApp("1")["server.js"] ?? "");
  const serve = () => startCommand(["node", "server.js"], { cwd: folder, env: { PORT: `${port}` } });
  const times = [];
  let app = serve();
  for (let round = 0; round < rounds; round++) {
    await waitFor(async () => (await askPort(port)) === "1");
    const start = performance.now();
    await app.stop();
    app = serve();
    while ((await askPort(port)) !== "1") await sleep(1);
    times.push(performance.now() - start);
  }
  await app.stop();
  return median(times);
}

async function supervisord() {
  if (needsCommand("supervisord")) return undefined;
  const folder = tempDir();
  const port = await freePort();
  writeFileSync(join(folder, "server.js"), webApp("1")["server.js"] ?? "");
  const conf = join(folder, "supervisord.conf");
  writeFileSync(
    conf,
    `[supervisord]\nlogfile=${folder}/log\npidfile=${folder}/pid\nnodaemon=true\n[unix_http_server]\nfile=${folder}/sock\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n[supervisorctl]\nserverurl=unix://${folder}/sock\n[program:app]\ncommand=node server.js\ndirectory=${folder}\nenvironment=PORT="${port}"\nstartsecs=0\n`,
  );
  const child = startCommand(["supervisord", "-c", conf]);
  await waitFor(async () => (await askPort(port)) === "1");
  const results = [];
  for (let round = 0; round < rounds; round++) {
    results.push(await watch(port, () => runCommand(["supervisorctl", "-c", conf, "restart", "app"], { expect: 0 })));
  }
  const memory = memoryOf(child.pid);
  await child.stop();
  return { results, memory };
}

async function runit() {
  if (needsCommand("runsv")) return undefined;
  const folder = tempDir();
  const port = await freePort();
  mkdirSync(join(folder, "app"));
  writeFileSync(join(folder, "app/server.js"), webApp("1")["server.js"] ?? "");
  writeFileSync(join(folder, "app/run"), `#!/bin/sh\nexport PORT=${port}\nexec node server.js\n`, {
    mode: 0o755,
  });
  const child = startCommand(["runsv", join(folder, "app")]);
  await waitFor(async () => (await askPort(port)) === "1");
  const results = [];
  for (let round = 0; round < rounds; round++) {
    results.push(
      await watch(port, () => runCommand(["sv", "-w", "10", "restart", join(folder, "app")], { expect: 0 })),
    );
  }
  await runCommand(["sv", "exit", join(folder, "app")]);
  await child.stop();
  return { results, memory: 0 };
}

// --- from a new VERSION to the new app's answer: launchfit check, and a shell script
async function way() {
  const publisher = await makePublisher();
  // 1 MB that does not compress, so that there is something to fetch
  const ballast = { "ballast.txt": createHash("sha512").update("x").digest("base64").repeat(1) };
  const megabyte = Array.from({ length: 12_000 }, (_, i) =>
    createHash("sha512").update(String(i)).digest("base64"),
  ).join("\n");
  const files = (version: string) => ({ ...webApp(version), ...ballast, "data.txt": megabyte });
  await publisher.publish("1", files("1"));
  const app = await deploy(publisher);
  const running = await app.launch();
  await waitFor(async () => (await app.ask()) === "1");
  const gnupg = tempDir("g-");
  const env = { GNUPGHOME: gnupg, HOME: gnupg };
  const argv = ["gpg", "--batch", "--import", join(publisher.folder, "KEY.asc")];
  await runCommand(argv, { env, expect: 0 });
  const shellDir = tempDir();
  const port = await freePort();
  const script = join(shellDir, "update.sh");
  writeFileSync(
    script,
    `set -e
cd ${shellDir}
curl -fsS ${publisher.url}/VERSION -o VERSION; curl -fsS ${publisher.url}/VERSION.sig -o VERSION.sig
gpg --batch -q --verify VERSION.sig VERSION 2>/dev/null
file=$(awk '/^CURRENT/{print $3}' VERSION); version=$(awk '/^CURRENT/{print $2}' VERSION)
curl -fsS ${publisher.url}/$file -o $file; curl -fsS ${publisher.url}/$file.sig -o $file.sig
gpg --batch -q --verify $file.sig $file 2>/dev/null
mkdir -p releases/$version; tar xzf $file -C releases/$version
ln -sfn releases/$version current.new; mv -T current.new current
if [ -f pid ]; then kill $(cat pid); while grep -q . /proc/$(cat pid)/cmdline 2>/dev/null; do sleep 0.005; done; fi
cd current; PORT=${port} setsid node server.js >/dev/null 2>&1 & echo $! > ${shellDir}/pid
until curl -fsS http://127.0.0.1:${port}/ >/dev/null 2>&1; do sleep 0.005; done
`,
  );
  const our: number[] = [];
  const theirs: number[] = [];
  // the first update of each is not counted: the script has no app to end yet, and launchfit loads what it then keeps
  for (let round = 0; round <= rounds; round++) {
    const version = (round + 2).toString(16);
    await publisher.publish(version, files(version));
    let start = performance.now();
    const check = app.control("check");
    while ((await app.ask()) !== version && performance.now() - start < 60_000) await sleep(5);
    our.push(performance.now() - start);
    const { ok, error } = await check;
    if (!ok) throw new Error(error);
    start = performance.now();
    await runCommand(["sh", script], { env, expect: 0 });
    theirs.push(performance.now() - start);
  }
  if (existsSync(join(shellDir, "pid"))) {
    process.kill(Number(readFileSync(join(shellDir, "pid"), "utf8")), "SIGTERM");
  }
  await running.stop();
  await publisher.close();
  return {
    our: median(our.slice(1)),
    theirs: median(theirs.slice(1)),
    first: our[0] ?? Number.NaN,
  };
}

for (const keepAlive of [false, true]) {
  const { failed, waits } = await overlapped(keepAlive);
  const what = keepAlive ? "kept connections" : "new connections";
  const late = waits[Math.floor(waits.length * 0.999)] ?? Number.NaN;
  console.log(
    `app.overlap, ${rounds} updates, ${waits.length} requests over ${what}: longest ${ms(waits.at(-1) ?? Number.NaN)}`,
  );
  console.log(`failed with app.overlap, ${what}: ${failed} (to reach 0)`);
  console.log(`ratio wait at p99.9 with app.overlap, ${what}: ${(late / 25).toFixed(2)} of 25 ms (to reach <= 1.0)`);
}
const own = await alone();
console.log(`the app's own stop and start: ${ms(own)}`);
const plain = await ours(false);
const socket = await ours(true);
const peers = { supervisord: await supervisord(), runit: await runit() };
const gapOf = (results: { gap: number }[]) => median(results.map(({ gap }) => gap));
const sum = (results: { failed: number; asked: number }[], key: "failed" | "asked") =>
  results.reduce((total, each) => total + each[key], 0);
console.log(`gap at an update, ${rounds} rounds, a request every millisecond:`);
console.log(
  `  launchfit                 ${ms(gapOf(plain.results))}, failed ${sum(plain.results, "failed")} of ${sum(plain.results, "asked")}`,
);
console.log(
  `  launchfit, app.listen     slowest answer ${ms(Math.max(...socket.results.map(({ slowest }) => slowest)))}, failed ${sum(socket.results, "failed")} of ${sum(socket.results, "asked")}`,
);
for (const [name, peer] of Object.entries(peers)) {
  if (!peer) console.log(`  ${name} is not installed: skipped`);
  else
    console.log(
      `  ${name.padEnd(25)} ${ms(gapOf(peer.results))}, failed ${sum(peer.results, "failed")} of ${sum(peer.results, "asked")}`,
    );
}
console.log(`ratio gap without app.listen: ${(gapOf(plain.results) / 100).toFixed(2)} of 100 ms (to reach <= 1.0)`);
if (peers.supervisord) {
  console.log(`ratio gap to supervisord: ${(gapOf(plain.results) / gapOf(peers.supervisord.results)).toFixed(2)}`);
}
console.log(`failed with app.listen: ${sum(socket.results, "failed")} (to reach 0)`);
const slowest = Math.max(...socket.results.map((each) => each.slowest));
console.log(
  `ratio slowest answer with app.listen to the app's stop and start plus 50 ms: ${(slowest / (own + 50)).toFixed(2)} (to reach <= 1.0)`,
);
console.log(
  `memory of the idle supervisor: ${plain.memory.toFixed(0)} MB${peers.supervisord ? `, supervisord ${peers.supervisord.memory.toFixed(0)} MB` : ""}`,
);
console.log(`CPU of the idle supervisor over ${idleSeconds} s: ${plain.cpu.toFixed(2)} % of a core (to reach <= 0.2)`);
const { our, theirs, first } = await way();
console.log(
  `a new VERSION to the new app's answer, 1 MB: launchfit ${ms(our)} (the first ${ms(first)}), shell ${ms(theirs)}`,
);
console.log(`ratio update: ${(our / theirs).toFixed(2)} (to reach <= 1.2)`);
process.exit(0);
