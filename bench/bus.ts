// One update of many slaves, over the bus and beside it: put on a real nats-server (templates/nats.conf) and followed to
// each slave's report; asked over HTTP and followed to each slave's answer; and told by clush, which follows nobody.
// The slaves are the product's, in a process of their own, each on the bus and at an address of its own; their updates
// take no time. Processor time: of the master (or clush), of nats-server, and of all slaves together.
//   npm run bundle && node --import tsx bench/bus.ts [SLAVES, default 1000] [ROUNDS, default 3]
// All current after a kill of the bus, half of them off, three real ones: npm run soak -- fleet-bus
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { keyOfSeed } from "../lib/bus/nkey.ts";
import { parsePublicKey, writeKey } from "../lib/fleet/keys.ts";
import { followBus } from "../lib/fleet/slave/bus-transport.ts";
import { createHttpSide } from "../lib/fleet/slave/routes.ts";
import { Slave } from "../lib/fleet/slave/slave.ts";
import { needsNats, startBus } from "../test/helpers/nats.ts";
import { freePort } from "../test/helpers/ports.ts";
import { knowSite } from "../test/helpers/slaves.ts";

const [first = "1000", second = "3", ...rest] = process.argv.slice(2);
if (first === "--slaves") await beSlaves(second, ...rest);
else if (!existsSync("dist/server-update.mjs")) fail("dist/ is missing; run: npm run bundle");
else if (needsNats !== undefined) fail(`${needsNats}: apt-get install nats-server`);
else await compare(Number(first), Number(second));

function fail(why: string): void {
  console.error(why);
  process.exitCode = 1;
}

function addressOf(index: number): string {
  return `127.10.${Math.floor(index / 250)}.${(index % 250) + 1}`;
}

function nameOf(index: number): string {
  return `web-${index}`;
}

async function compare(count: number, rounds: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "bus-bench-"));
  const bus = await startBus();
  let child: ChildProcess | undefined;
  try {
    const names = Array.from({ length: count }, (_, index) => nameOf(index));
    const made = await Promise.all(names.map((name) => bus.newKey(name)));
    await bus.admitAll(new Map(names.map((name, at) => [name, made[at]?.key as never])));
    const { publicKey } = await writeKey(join(dir, "order.key"));
    const port = await freePort();
    const via = join(dir, "bus.yml");
    await writeFile(via, `url: ${bus.url}\nseed_file: ${join(bus.dir, "master.seed")}\n`);
    const lists = {
      bus: join(dir, "by-bus"),
      http: join(dir, "by-http"),
      hosts: join(dir, "hosts"),
    };
    await writeFile(lists.bus, names.map((name) => `bus://${name}\n`).join(""));
    const hosts = names.map((_, at) => addressOf(at));
    await writeFile(lists.http, hosts.map((host, at) => `${host}:${port} name=${names[at]}\n`).join(""));
    await writeFile(lists.hosts, hosts.map((host) => `${host}\n`).join(""));

    const argv = [...process.execArgv, resolve("bench/bus.ts"), "--slaves", `${count}`];
    const more = [dir, bus.url, bus.dir, `${port}`, publicKey];
    child = spawn(process.execPath, [...argv, ...more], { stdio: ["ignore", "pipe", "inherit"] });
    const slaves = child;
    await new Promise((done) => slaves.stdout?.once("data", done));
    const update = ["dist/server-update.mjs", "--key-file", join(dir, "order.key"), "--via", via];
    const env = { XDG_STATE_HOME: dir };
    const ask = (...flags: string[]) => run([process.execPath, ...update, ...flags], env);
    for (let tries = 0; tries < 60; tries++) {
      const { stdout } = await ask("--status", "--list", lists.bus);
      if (/\b0 are not/.test(stdout)) break;
      await new Promise((done) => setTimeout(done, 1000));
    }
    const curl = `curl -s -o /dev/null 'http://%h:${port + 1}/get/?repo=site'`;
    await knowSite(dir);
    const ways: Record<string, (sha: string) => Promise<Run>> = {
      "over the bus": (sha) => ask("site", "--wait", "--sha", sha, "--list", lists.bus),
      "over HTTP": (sha) => ask("site", "--wait", "--sha", sha, "--list", lists.http),
    };
    if (existsSync("/usr/bin/clush")) {
      const clush = ["clush", "-q", "--worker=exec", "-f", "64", "--hostfile", lists.hosts, curl];
      ways["clush -f64 curl"] = () => run(clush, {});
    } else console.log("clush is not installed (apt install clustershell): left out");

    const taken: Record<string, { s: number[]; own: number[]; nats: number[]; all: number[] }> = {};
    let memory = 0;
    for (let round = 0; round < rounds; round++)
      for (const [name, way] of Object.entries(ways)) {
        const before = [await processorTime(bus.pid()), await processorTime(slaves.pid)];
        const sha = (round * 16 + Object.keys(taken).length).toString(16).padStart(40, "a");
        const { seconds, stdout, own, peak } = await way(sha);
        const after = [await processorTime(bus.pid()), await processorTime(slaves.pid)];
        if (name !== "clush -f64 curl" && !stdout.includes(`${count} slaves: ${count} ok`))
          throw new Error(`${name}: ${stdout.slice(-400)}`);
        if (name === "over the bus") memory = Math.max(memory, peak);
        const entry = (taken[name] ??= { s: [], own: [], nats: [], all: [] });
        entry.s.push(seconds);
        entry.own.push(own);
        entry.nats.push((after[0] ?? 0) - (before[0] ?? 0));
        entry.all.push((after[1] ?? 0) - (before[1] ?? 0));
      }
    console.log(`\n${count} slaves, one update each, medians of ${rounds}`);
    console.log("                   seconds   processor seconds: master  nats-server  slaves");
    for (const [name, { s, own, nats, all }] of Object.entries(taken)) {
      const [a, b, c, d] = [s, own, nats, all].map((list) => median(list).toFixed(2).padStart(8));
      console.log(`  ${name.padEnd(16)} ${a}                     ${b}     ${c} ${d}`);
    }
    console.log(`memory: nats-server ${await memoryOf(bus.pid())} MB, master ${memory.toFixed(0)} MB at most`);
    const of = (name: string) => median(taken[name]?.s ?? []);
    ratio("update over the bus / over HTTP", of("over the bus") / of("over HTTP"), 1.5);
    if (taken["clush -f64 curl"]) ratio("update over the bus / clush", of("over the bus") / of("clush -f64 curl"), 1);
  } finally {
    child?.kill("SIGKILL");
    await bus.kill();
    await rm(dir, { recursive: true, force: true });
  }
}

type Run = { seconds: number; stdout: string; own: number; peak: number };

/** A command's time, and the processor time and memory of all that it started, which no shell tool tells. */
async function run(argv: string[], env: Record<string, string>): Promise<Run> {
  const measuring = `
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("USED", used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
`;
  const begin = performance.now();
  const child = spawn("python3", ["-c", measuring, ...argv], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (stdout += String(chunk)));
  await new Promise((done) => child.once("close", done));
  const seconds = (performance.now() - begin) / 1000;
  const [, own, peak] = /^USED (\S+) (\S+)$/m.exec(stdout) ?? [];
  return { seconds, stdout, own: Number(own), peak: Number(peak) };
}

/** Seconds of the processor that a process has used. */
async function processorTime(pid: number | undefined): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function memoryOf(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Math.round(Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024);
}

function median(list: readonly number[]): number {
  return list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN;
}

function ratio(name: string, value: number, most: number): void {
  console.log(`ratio ${name}: ${value.toFixed(2)} (to reach <= ${most})`);
}

/** Many slaves in this process; beside each a server that takes what clush sends. */
async function beSlaves(count: string, ...given: string[]): Promise<void> {
  const [dir = "", url = "", seeds = "", port = "", publicKey = ""] = given;
  const none = { file: undefined, values: {}, where: () => "" };
  for (let index = 0; index < Number(count); index++) {
    const name = nameOf(index);
    let sha = "";
    const options = {
      settings: none,
      ...{ repos: join(dir, "none"), state: join(dir, name), allow: [], names: [name] },
      ...{ jobs: 1, identity: undefined },
      ...{ keys: [parsePublicKey(publicKey)], secrets: [], metricsToken: undefined },
      ...{ file: undefined, onBug: () => {}, note: () => {} },
      async run(order: { sha?: string | undefined }) {
        const before = sha;
        sha = order.sha ?? "";
        return { before, sha };
      },
    };
    const slave = new Slave(options);
    await slave.open();
    const key = keyOfSeed((await readFile(join(seeds, `${name}.seed`), "utf8")).trim());
    if (!key) throw new Error("a seed that is none");
    followBus(slave, { servers: [url], ca: undefined, key, name });
    const server = createHttpSide(slave, options);
    const told = createServer((_, response) => void response.writeHead(202).end("{}"));
    await new Promise<void>((done) => server.listen(Number(port), addressOf(index), done));
    await new Promise<void>((done) => told.listen(Number(port) + 1, addressOf(index), done));
  }
  console.log("ready");
}
