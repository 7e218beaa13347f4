// downloads beside curl -Z, aria2c and wget2, in turns, against one nginx on loopback; a proxy adds 20 ms
// in each direction where a row says "20 ms away". Whole processes, as users run them; medians.
//   node --import tsx bench/downloads.ts [ROUNDS] [--only small,loopback,medium,large,idle]
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { startNginx } from "../test/helpers/nginx.ts";
import { runCommand, startCommand } from "../test/helpers/run.ts";
import { tempDir } from "../test/helpers/tmp.ts";

const rounds = Number(process.argv[2] ?? 5) || 5;
const only = process.argv.includes("--only") ? process.argv.at(-1)?.split(",") : undefined;
const chosen = (row: string) => !only || only.includes(row);

const work = tempDir("bench-downloads-");
// ext4 goes through all inodes of a group that were freed within the last minute before it gives a new one there:
// aria2c's thousand control files, each removed, would make the next one's files take up to ten times as long.
// With this attribute each target folder gets a group of its own; other file systems do without.
await runCommand(["chattr", "+T", work]);
const www = join(work, "www");
await mkdir(www);
const nginx = await startNginx(www);
const proxy = startCommand([process.execPath, "--import", "tsx", "bench/delay-proxy.ts", String(nginx.port), "20"]);
const far = `http://127.0.0.1:${(await proxy.until(/\d+/))[0]}`;

/** How many files of which size, and where they are. */
interface Load {
  url: string;
  names: string[];
}

async function load(url: string, count: number, size: number): Promise<Load> {
  const names = Array.from({ length: count }, (_, index) => `${size}-${index}.bin`);
  const block = randomBytes(Math.min(size, 1 << 20));
  for (const name of names) {
    const file = await open(join(www, name), "w");
    for (let done = 0; done < size; done += block.length) await file.write(block);
    await file.close();
  }
  return { url, names };
}

interface Contender {
  name: string;
  /** Prepares a folder and gives the command line. */
  prepare: (load: Load, dir: string) => Promise<string[]>;
}

const bundle = join(process.cwd(), "dist/downloads.mjs");
const ours: Contender = {
  name: "downloads",
  async prepare({ url, names }, dir) {
    await writeFile(join(dir, "manifest.txt"), names.map((name) => `${url}/${name} ${name}\n`).join(""));
    return [process.execPath, bundle, dir, "--quiet"];
  },
};
const curl: Contender = {
  name: "curl -Z 50",
  async prepare({ url, names }, dir) {
    const lines = names.map((name) => `url = "${url}/${name}"\noutput = "${join(dir, name)}"\n`);
    await writeFile(join(dir, "curl.txt"), lines.join(""));
    return ["curl", "-sS", "-Z", "--parallel-max", "50", "--config", join(dir, "curl.txt")];
  },
};
const list = async ({ url, names }: Load, dir: string) => {
  await writeFile(join(dir, "list.txt"), names.map((name) => `${url}/${name}\n`).join(""));
  return join(dir, "list.txt");
};
const aria2c: Contender = {
  name: "aria2c -j16",
  prepare: async (load, dir) => ["aria2c", "-q", "-j16", "-d", dir, "-i", await list(load, dir)],
};
const wget2: Contender = {
  name: "wget2",
  prepare: async (load, dir) => ["wget2", "-q", "--max-threads=16", "-P", dir, "-i", await list(load, dir)],
};

interface Result {
  seconds: number;
  /** The most memory that the process had at once, in MiB. */
  peak: number;
}

async function timed(argv: string[]): Promise<Result> {
  const [file = "", ...args] = argv;
  const begin = performance.now();
  const child = spawn(file, args, { stdio: "ignore" });
  let peak = 0;
  const look = async () => {
    const status = await readFile(`/proc/${child.pid}/status`, "utf8").catch(() => "");
    peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024);
  };
  const timer = setInterval(() => void look(), 25);
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("exit", resolve));
  const seconds = (performance.now() - begin) / 1000;
  clearInterval(timer);
  if (code !== 0) throw new Error(`${argv.join(" ").slice(0, 100)} exited ${code}`);
  return { seconds, peak };
}

let targets = 0;

/** Runs the contenders in turns; the median of each, and a ratio against each peer. */
async function row(
  title: string,
  key: string,
  load: Load,
  peers: [Contender, number | undefined][],
  times = rounds,
): Promise<void> {
  const results = new Map<string, Result[]>();
  for (let round = 0; round < times; round++) {
    for (const contender of [ours, ...peers.map(([peer]) => peer)]) {
      const dir = join(work, `target-${targets++}`);
      await mkdir(dir);
      const argv = await contender.prepare(load, dir);
      const had = await runCommand(["sh", "-c", `command -v ${argv[0]}`]);
      if (had.code === 0) {
        const all = results.get(contender.name) ?? [];
        results.set(contender.name, [...all, await timed(argv)]);
      }
      // as above: a thousand files removed here would slow the next ones
      if (load.names.length < 500) await rm(dir, { recursive: true });
    }
  }
  console.log(`\n${title}`);
  const median = (name: string, pick: (result: Result) => number) => {
    const sorted = (results.get(name) ?? []).map(pick).sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  };
  for (const [name] of results) {
    const peak = median(name, ({ peak }) => peak).toFixed(0);
    console.log(
      `  ${median(name, ({ seconds }) => seconds)
        .toFixed(2)
        .padStart(6)} s  ${peak.padStart(4)} MiB  ${name}`,
    );
  }
  for (const [peer, goal] of peers) {
    if (!results.has(peer.name)) console.log(`  ${peer.name} is not installed: left out`);
    else if (goal !== undefined) {
      const ratio = median("downloads", ({ seconds }) => seconds) / median(peer.name, ({ seconds }) => seconds);
      console.log(`ratio ${key} / ${peer.name}: ${ratio.toFixed(2)} (to reach <= ${goal})`);
    }
  }
}

if (chosen("small"))
  await row("1,000 x 10 KB, 20 ms away", "small", await load(far, 1000, 10_240), [
    [curl, 1.5],
    [aria2c, 0.5],
    [wget2, undefined],
  ]);
if (chosen("loopback"))
  await row("1,000 x 10 KB, loopback", "loopback", await load(nginx.url, 1000, 10_240), [
    [aria2c, 1.0],
    [curl, undefined],
    [wget2, undefined],
  ]);
if (chosen("medium"))
  await row("200 x 1 MB, 20 ms away", "medium", await load(far, 200, 1_000_000), [
    [aria2c, 1],
    [curl, undefined],
    [wget2, undefined],
  ]);
if (chosen("large"))
  await row(
    "1 x 1 GiB, hashed as it comes",
    "large",
    await load(nginx.url, 1, 1 << 30),
    [
      [aria2c, 1.4],
      [curl, 2.5],
    ],
    Math.min(rounds, 3),
  );

/** Nothing to do, with the server gone: who asks it anything fails. */
if (chosen("idle")) {
  const dir = join(work, "idle");
  await mkdir(dir);
  const argv = await ours.prepare(await load(nginx.url, 1000, 10_240), dir);
  await timed(argv);
  proxy.kill();
  await nginx.stop();
  const empty = join(work, "empty.mjs");
  await writeFile(empty, "");
  const times = { idle: [] as number[], node: [] as number[] };
  for (let round = 0; round < Math.max(rounds, 5) * 4; round++) {
    times.node.push((await timed([process.execPath, empty])).seconds);
    times.idle.push((await timed(argv)).seconds);
  }
  const median = (all: number[]) => all.sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN;
  console.log("\nnothing to do, 1,000 files recorded, the server gone");
  console.log(
    `  ${(median(times.idle) * 1000).toFixed(0)} ms  downloads\n  ${(median(times.node) * 1000).toFixed(0)} ms  node on an empty file`,
  );
  console.log(`ratio idle / node: ${(median(times.idle) / median(times.node)).toFixed(2)} (to reach <= 3.0)`);
}
process.exit(0);
