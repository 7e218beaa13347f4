// hook-server beside Debian's webhook and a bare Node server: durable deliveries a second, queued runs,
// idle memory, time from the start to the first accepted delivery. Measures dist/hook-server.mjs.
// The server under test has one core, the client that loads it another, where there are two.
//   node --import tsx bench/hook.ts [SECONDS] [ROUNDS]
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { connections, deliver, type Load, load, untilAccepts } from "./hook-load.ts";
import {
  bareArgv,
  bundle,
  freePort,
  onCore,
  ourFolder,
  removeAll,
  root,
  start,
  startBare,
  startOurs,
  startWebhook,
  stop,
} from "./hook-servers.ts";

const median = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

async function throughput(seconds: number, rounds: number): Promise<void> {
  const hasWebhook = ["/usr/bin/webhook", "/usr/local/bin/webhook"].some((path) => existsSync(path));
  const starters = [startOurs, ...(hasWebhook ? [startWebhook] : []), startBare];
  if (!hasWebhook) console.log("webhook is not installed (apt install webhook): left out");
  const loads = new Map<string, Load[]>();
  for (let round = 0; round < rounds; round++) {
    for (const starter of starters) {
      const server = await starter();
      await untilAccepts(server.port);
      const result = await load(server, seconds, onCore(1, []));
      await stop(server);
      loads.set(server.name, [...(loads.get(server.name) ?? []), result]);
    }
  }
  console.log(`deliveries of 10 KB, signed, ${connections} connections, ${rounds} rounds of ${seconds} s, medians`);
  for (const [name, list] of loads) {
    const [rate, p50, p99, cpu] = (["rate", "p50", "p99", "cpu"] as const).map((key) =>
      median(list.map((each) => each[key])),
    );
    console.log(
      `  ${name.padEnd(12)} ${Math.round(rate ?? 0)}/s  p50 ${p50?.toFixed(2)} ms  p99 ${p99?.toFixed(2)} ms  processor ${cpu?.toFixed(0)} µs each  answers ${JSON.stringify(list[0]?.statuses)}`,
    );
  }
  const rate = (name: string) => median((loads.get(name) ?? []).map((each) => each.rate));
  const p99 = (name: string) => median((loads.get(name) ?? []).map((each) => each.p99));
  const cpu = (name: string) => median((loads.get(name) ?? []).map((each) => each.cpu));
  if (hasWebhook) {
    console.log(
      `ratio deliveries hook-server/webhook: ${(rate("hook-server") / rate("webhook")).toFixed(2)} (to reach >= 1.0)`,
    );
    console.log(`ratio p99 hook-server/webhook: ${(p99("hook-server") / p99("webhook")).toFixed(2)} (to reach <= 1.0)`);
    console.log(`ratio processor time webhook/hook-server: ${(cpu("webhook") / cpu("hook-server")).toFixed(2)}`);
  }
  console.log(
    `ratio deliveries hook-server/bare node: ${(rate("hook-server") / rate("bare node")).toFixed(2)} (to reach >= 0.6)`,
  );
}

/** The state of all runs, through the Unix socket. */
function runsOf(dir: string): Promise<{ state: string; started?: string; ended?: string }[]> {
  return new Promise((done, failed) => {
    const call = request({ socketPath: join(dir, "state/socket"), path: "/runs?limit=1000" }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (data) => {
        text += String(data);
      });
      response.on("end", () => done(JSON.parse(text).runs));
    });
    call.on("error", failed);
    call.end();
  });
}

async function queuedRuns(rounds: number): Promise<void> {
  const ours: number[] = [];
  const plain: number[] = [];
  for (let round = 0; round < rounds; round++) {
    // the first run holds the queue until all are in it
    const server = await startOurs(
      "#!/bin/sh\nuntil test -e ../go; do sleep 0.01; done\n",
      "['refs/heads/*', 'refs/tags/*']",
    );
    await untilAccepts(server.port);
    for (let n = 0; n < 100; n++) await deliver(server.port, `run-${n}`, `refs/tags/${n}`);
    await writeFile(join(server.dir, "go"), "");
    let runs = await runsOf(server.dir);
    while (runs.filter((run) => run.state === "succeeded").length < 101) {
      await sleep(50);
      runs = await runsOf(server.dir);
    }
    const ends = runs
      .filter((run) => run.state === "succeeded")
      .map((run) => Date.parse(run.ended ?? ""))
      .sort((a, b) => a - b);
    ours.push((ends.at(-1) ?? 0) - (ends[0] ?? 0));
    await stop(server);
    const begin = performance.now();
    const child = spawn("/bin/sh", ["-c", "i=0; while [ $i -lt 100 ]; do ../job; i=$((i+1)); done"], {
      cwd: join(server.dir, "co"),
      stdio: "ignore",
    });
    await new Promise((done) => child.once("exit", done));
    plain.push(performance.now() - begin);
  }
  const beyond = (median(ours) - median(plain)) / 1000;
  console.log(
    `100 queued runs of one repo: ${(median(ours) / 1000).toFixed(2)} s; the commands alone ${(median(plain) / 1000).toFixed(2)} s`,
  );
  console.log(`figure beyond the commands: ${beyond.toFixed(2)} s (to reach <= 1.2)`);
  if (!existsSync("/usr/sbin/laminard")) console.log("laminar is not installed (not in Debian 12): left out");
}

async function startAndMemory(rounds: number): Promise<void> {
  const times = new Map<string, number[]>();
  const memory = new Map<string, number[]>();
  for (let round = 0; round <= rounds; round++) {
    for (const starter of [startOurs, startBare]) {
      const port = await freePort();
      const ours = starter === startOurs;
      const dir = ours ? await ourFolder(port, "#!/bin/sh\n") : root;
      const argv = ours ? [process.execPath, bundle, "--quiet"] : await bareArgv(port);
      const name = ours ? "hook-server" : "bare node";
      const begin = performance.now();
      const child = start(argv, dir);
      await untilAccepts(port);
      const took = performance.now() - begin;
      if (round > 0) times.set(name, [...(times.get(name) ?? []), took]);
      await sleep(300);
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      memory.set(name, [...(memory.get(name) ?? []), Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024]);
      await stop({ child });
    }
  }
  for (const [name, list] of times)
    console.log(
      `  ${name.padEnd(12)} start to first accepted delivery ${median(list).toFixed(0)} ms, memory ${median(memory.get(name) ?? []).toFixed(1)} MB`,
    );
  const of = (map: Map<string, number[]>, name: string) => median(map.get(name) ?? []);
  console.log(
    `ratio start hook-server/bare node: ${(of(times, "hook-server") / of(times, "bare node")).toFixed(2)} (to reach <= 1.9)`,
  );
  console.log(`figure idle memory: ${of(memory, "hook-server").toFixed(1)} MB (to reach <= 60)`);
}

const seconds = Number(process.argv[2] ?? 4);
const rounds = Number(process.argv[3] ?? 3);
await throughput(seconds, rounds);
await queuedRuns(Math.min(rounds, 3));
await startAndMemory(10);
await removeAll();
