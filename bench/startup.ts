// What a script costs before it does anything: `NAME --help` from its bundle, beside `node` on an
// empty file, in turns. Prints the medians and their ratio.
import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

const rounds = Number(process.argv[2] ?? 20);
const folder = await mkdtemp(join(tmpdir(), "startup-"));
const empty = join(folder, "empty.mjs");
await writeFile(empty, "");
const bundles = (await readdir("dist")).filter((file) => file.endsWith(".mjs")).sort();
const commands = new Map<string, string[]>([["node", [empty]]]);
for (const file of bundles) commands.set(file.slice(0, -4), [join("dist", file), "--help"]);

const times = new Map([...commands.keys()].map((name) => [name, [] as number[]]));
for (let round = 0; round <= rounds; round++) {
  for (const [name, args] of commands) {
    const ms = await time(args);
    if (round > 0) times.get(name)?.push(ms); // the first round fills the caches
  }
}
await rm(folder, { recursive: true });

const base = median("node");
console.log(`node on an empty file: ${base.toFixed(1)} ms (median of ${rounds})`);
for (const name of [...commands.keys()].slice(1)) {
  const ratio = (median(name) / base).toFixed(2);
  console.log(`${median(name).toFixed(1).padStart(6)} ms  ${name} --help`);
  console.log(`ratio startup ${name}: ${ratio} (to reach <= 1.6)`);
}

async function time(args: string[]): Promise<number> {
  const begin = performance.now();
  const child = spawn(process.execPath, args, { stdio: "ignore" });
  await new Promise((resolve, reject) => child.on("error", reject).on("exit", resolve));
  return performance.now() - begin;
}

function median(name: string): number {
  const sorted = [...(times.get(name) ?? [])].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
