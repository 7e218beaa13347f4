// The fleet tools beside what people use instead, in one run, on loopback addresses only:
// - telling 5,000 slaves (5 ms each, one in twenty never answers) beside curl -Z, xargs curl and clush;
// - one update of a repo of 3,000 files and 30 MB beside `rm -rf` and `git clone`, and beside `git fetch` and
//   `git reset --hard`, in memory, on disk, and over a line of 20 ms and 100 Mbit/s. The second peer writes into
//   the served folder: its readers can see both commits mixed, and nothing tells whether all of it is on disk.
// Each begins with nothing left to write. `rm -rf` and `git clone` is the two in a row; an update of ours removes the
// oldest tree after its work.
// Over git:// the server's small pieces wait 40 ms for the kernel's delayed acknowledgement.
//   npm run bundle && node --import tsx bench/fleet.ts [all|tell|update] [ROUNDS, default 3]
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { knowSite } from "../test/helpers/slaves.ts";

const slaves = 5000;
/** One in so many never answers. */
const deadEvery = 20;
const port = 9999;
const nullFile = "/dev/null";
let changes = 0;

/** Prints what the children of a command took at most, which no shell tool here does. */
const measuring = `
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("PEAK", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
`;

/** It runs a command for each host, with the host's name for %h, in a shell. */
const clush = ["clush", "-q", "--worker=exec", "-f", "64"];
const curlOne = (sha: string) => `curl -s -m 2 -o ${nullFile} 'http://%h:${port}/get/?repo=site&sha=${sha}'`;

const [what = "all", count = "3"] = process.argv.slice(2);
const rounds = Number(count);
if (what === "--serve") await serve(Number(process.argv[3]), Number(process.argv[4]));
else if (!existsSync("dist/server-update.mjs")) {
  console.error("dist/ is missing; run: npm run bundle");
  process.exitCode = 1;
} else {
  const folder = await mkdtemp(join(tmpdir(), "bf-"));
  try {
    if (what === "all" || what === "tell") await tell(folder);
    if (what === "all" || what === "update") await updates(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function addressOf(index: number): string {
  return `127.9.${Math.floor(index / 250)}.${(index % 250) + 1}`;
}

/** Some of the slaves, each on an address of its own. */
async function serve(from: number, to: number): Promise<void> {
  for (let index = from; index < to; index++) {
    const dead = index % deadEvery === 7;
    const server = dead
      ? createServer((socket) => void socket.on("error", () => {}))
      : createHttpServer((_, response) => {
          setTimeout(() => {
            response.writeHead(202, { "content-type": "application/json" });
            response.end('{"repo":"site","state":"queued"}\n');
          }, 5);
        });
    await new Promise<void>((done) => server.listen(port, addressOf(index), done));
  }
  console.log("ready");
}

async function tell(folder: string): Promise<void> {
  const parts = 4;
  const servers: ChildProcess[] = [];
  try {
    for (let part = 0; part < parts; part++) {
      const [from, to] = [(slaves / parts) * part, (slaves / parts) * (part + 1)];
      const argv = [...process.execArgv, resolve("bench/fleet.ts"), "--serve", `${from}`, `${to}`];
      const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "inherit"] });
      servers.push(child);
      await new Promise((done) => child.stdout?.once("data", done));
    }
    const addresses = Array.from({ length: slaves }, (_, index) => addressOf(index));
    const sha = "a".repeat(40);
    const urls = addresses.map((address) => `http://${address}:${port}/get/?repo=site&sha=${sha}`);
    const [list, urlFile, config] = ["list", "urls", "curl"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    await writeFile(list, `${addresses.join("\n")}\n`);
    await writeFile(urlFile, `${urls.join("\n")}\n`);
    await writeFile(config, urls.map((url) => `url = "${url}"\noutput = "${nullFile}"\n`).join(""));
    await knowSite(folder);
    const ways: Record<string, [argv: string[], rounds: number]> = {
      "server-update": [
        [
          "env",
          `XDG_STATE_HOME=${folder}`,
          process.execPath,
          "dist/server-update.mjs",
          "site",
          "--sha",
          sha,
          "--list",
          list,
          "--timeout",
          "2s",
          "--retries",
          "0",
          "--quiet",
          "--failed",
          join(folder, "failed"),
        ],
        rounds,
      ],
      "curl -Z": [["curl", "-s", "-Z", "--parallel-max", "300", "--max-time", "2", "-K", config], rounds],
      "xargs -P64 curl": [["sh", "-c", `xargs -P64 -n1 curl -s -m 2 -o ${nullFile} < ${urlFile}`], 1],
      ...(existsSync("/usr/bin/clush") ? { "clush -f64 curl": [[...clush, "--hostfile", list, curlOne(sha)], 1] } : {}),
    };
    const taken: Record<string, { s: number[]; mb: number[] }> = {};
    for (let round = 0; round < rounds; round++) {
      for (const [name, [argv, times]] of Object.entries(ways)) {
        if (round >= times) continue;
        const { ms, stdout } = await command(["python3", "-c", measuring, ...argv]);
        const entry = (taken[name] ??= { s: [], mb: [] });
        entry.s.push(ms / 1000);
        entry.mb.push(Number(/PEAK (\d+)/.exec(stdout)?.[1]) / 1024);
        if (name === "server-update" && round === 0) {
          console.log(stdout.split("\n").find((line) => line.includes("slaves:")) ?? stdout.slice(-300));
        }
      }
    }
    console.log(`\ntelling ${slaves} slaves, ${slaves / deadEvery} of them silent, time-out 2 s`);
    for (const [name, { s, mb }] of Object.entries(taken)) {
      console.log(`  ${name.padEnd(18)} ${median(s).toFixed(2)} s   ${median(mb).toFixed(0)} MB`);
    }
    const ours = median(taken["server-update"]?.s ?? []);
    ratio("tell / curl -Z", ours / median(taken["curl -Z"]?.s ?? []), 2.2);
    ratio("tell / xargs", ours / median(taken["xargs -P64 curl"]?.s ?? []), 0.4);
    const clushes = taken["clush -f64 curl"];
    if (clushes) ratio("tell / clush", ours / median(clushes.s), 0.4);
    else console.log("clush is not installed (apt install clustershell): left out");
  } finally {
    for (const server of servers) server.kill();
  }
}

async function updates(folder: string): Promise<void> {
  const server = join(folder, "git");
  const work = join(folder, "work");
  await makeRepo(server, work);
  const daemonPort = await freePort();
  const daemon = spawn(
    "git",
    [
      "daemon",
      "--reuseaddr",
      "--export-all",
      "--listen=127.0.0.1",
      `--port=${daemonPort}`,
      `--base-path=${server}`,
      server,
    ],
    { stdio: "ignore", detached: true },
  );
  const line = await slowLine(daemonPort);
  try {
    await sleep(500);
    const places: [name: string, dir: string, port: number, update: number][] = [
      ["in memory", "/dev/shm", daemonPort, 1],
      ["on disk", tmpdir(), daemonPort, 0.3],
      ["over 20 ms, 100 Mbit/s", "/dev/shm", line.port, 0.3],
    ];
    for (const [name, dir, at, update] of places) {
      const place = await mkdtemp(join(dir, "bf-"));
      try {
        await compare(name, place, `git://127.0.0.1:${at}`, work, line, update);
      } finally {
        await rm(place, { recursive: true, force: true });
      }
    }
  } finally {
    if (daemon.pid !== undefined) process.kill(-daemon.pid);
    line.close();
  }
}

async function compare(
  name: string,
  place: string,
  base: string,
  work: string,
  line: { bytes: number },
  maxUpdate: number,
): Promise<void> {
  const old = join(place, "old", "site");
  const repos = join(place, "repos");
  await mkdir(join(place, "old"));
  const ours = [process.execPath, "dist/slave-activate.mjs", "site", "--repos", repos, "--base", base, "--quiet"];
  const theirs = ["sh", "-c", `rm -rf ${old} && git clone -q ${base}/site.git ${old}`];
  // until older trees go, as on any slave after its fourth update
  for (let warm = 0; warm < 5; warm++) {
    await change(work);
    await command(ours);
  }
  await command(theirs);
  const reset = join(place, "reset");
  await command(["git", "clone", "-q", "--depth=1", `${base}/site.git`, reset]);
  const inPlace = "git fetch -q --depth=1 origin main && git reset -q --hard FETCH_HEAD";
  const taken = {
    update: [] as number[],
    same: [] as number[],
    clone: [] as number[],
    reset: [] as number[],
  };
  const bytes = { update: 0, clone: 0 };
  const missing = { update: 0, clone: 0 };
  for (let round = 0; round < rounds; round++) {
    await change(work);
    await command(["sync", "--file-system", place]);
    let before = line.bytes;
    let watch = watchFor(join(repos, "site", "dir-00/file-0000.bin"));
    taken.update.push((await command(ours)).ms);
    missing.update = Math.max(missing.update, await watch());
    bytes.update = line.bytes - before;
    taken.same.push((await command(ours)).ms);
    await command(["sync", "--file-system", place]);
    before = line.bytes;
    watch = watchFor(join(old, "dir-00/file-0000.bin"));
    taken.clone.push((await command(theirs)).ms);
    missing.clone = Math.max(missing.clone, await watch());
    bytes.clone = line.bytes - before;
    await command(["sync", "--file-system", place]);
    taken.reset.push((await command(["env", "-C", reset, "sh", "-c", inPlace])).ms);
  }
  const update = median(taken.update);
  const clone = median(taken.clone);
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  console.log(`\n3,000 files, 30 MB, one new commit, ${name}`);
  console.log(`  slave-activate          ${ms(update)}, without a file for ${ms(missing.update)}`);
  console.log(`  the same, nothing new   ${ms(median(taken.same))}`);
  console.log(`  rm -rf and git clone    ${ms(clone)}, without a file for ${ms(missing.clone)}`);
  console.log(`  git fetch and git reset ${ms(median(taken.reset))}`);
  if (bytes.clone > 0) console.log(`  over the line: ${kb(bytes.update)} and ${kb(bytes.clone)}`);
  ratio(`update ${name} / remove and clone`, update / clone, maxUpdate);
  ratio(`update ${name} / fetch and reset`, update / median(taken.reset));
}

/** Look at a file every millisecond; the returned function ends it and tells how long it was away. */
function watchFor(file: string): () => Promise<number> {
  let missing = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    if (!existsSync(file)) missing += now - last;
    last = now;
  }, 1);
  return async () => {
    clearInterval(timer);
    return Math.round(missing);
  };
}

async function makeRepo(server: string, work: string): Promise<void> {
  await mkdir(server, { recursive: true });
  await git("init", "--quiet", "--bare", "--initial-branch=main", join(server, "site.git"));
  await git("clone", "--quiet", join(server, "site.git"), work);
  await git("-C", work, "checkout", "--quiet", "-b", "main");
  for (let index = 0; index < 3000; index++) {
    const dir = join(work, `dir-${String(index % 60).padStart(2, "0")}`);
    await mkdir(dir, { recursive: true });
    const name = join(dir, `file-${String(index).padStart(4, "0")}.bin`);
    // nine tenths of it cannot be packed smaller
    await writeFile(name, Buffer.concat([randomBytes(9000), Buffer.alloc(1000, 65)]));
  }
  await change(work);
}

async function change(work: string): Promise<void> {
  changes += 1;
  await writeFile(join(work, "dir-07", "changing.txt"), `${changes}\n`);
  await git("-C", work, "add", "--all");
  await git("-C", work, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", `${changes}`);
  await git("-C", work, "push", "--quiet", "origin", "main");
}

async function git(...args: string[]): Promise<void> {
  await command(["git", ...args]);
}

/** A proxy that is a line: 10 ms each way, 100 Mbit/s. */
async function slowLine(to: number): Promise<{ port: number; bytes: number; close(): void }> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ host: "127.0.0.1", port: to, allowHalfOpen: true });
    for (const [from, into] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      let free = 0;
      let last: Promise<unknown> = Promise.resolve();
      from.on("error", () => into.destroy());
      from.on("data", (chunk: Buffer) => {
        result.bytes += chunk.length;
        const now = performance.now();
        free = Math.max(free, now) + chunk.length / 12_500;
        const due = free + 10;
        if (free - now > 20) {
          from.pause();
          setTimeout(() => from.resume(), free - now - 10);
        }
        last = last.then(() => sleep(Math.max(0, due - performance.now()))).then(() => into.write(chunk));
      });
      from.on("end", () => {
        last = last.then(() => sleep(10)).then(() => into.end());
      });
    }
  });
  const result = {
    port: 0,
    bytes: 0,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  result.port = (server.address() as AddressInfo).port;
  return result;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port: free } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return free;
}

/** Run a command; its failure is the caller's to see, since curl fails by design here. */
async function command(argv: string[]): Promise<{ ms: number; stdout: string }> {
  const [file = "", ...args] = argv;
  const started = performance.now();
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  const code = await new Promise((done, fail) => {
    child.on("error", fail);
    child.on("close", done);
  });
  if (code !== 0 && argv[0] !== "python3") throw new Error(`${argv.slice(0, 3).join(" ")} failed with ${code}`);
  return { ms: performance.now() - started, stdout };
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function kb(bytes: number): string {
  return `${(bytes / 1000).toFixed(0)} kB`;
}

function ratio(name: string, value: number, max?: number): void {
  const goal = max === undefined ? "" : ` (to reach <= ${max})`;
  console.log(`ratio ${name}: ${value.toFixed(2)}${goal}`);
}
