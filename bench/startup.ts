// What a script costs before it does anything: `NAME --help` from its bundle, beside `node` on an
// empty file, in turns. Prints the medians and their ratios.
//   node --import tsx bench/startup.ts [ROUNDS] [FOLDER]     FOLDER: other bundles, measured in turns with ours
import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";

/** What a `--help` may cost, in starts of Node; those that carry both the S3 client and openpgp may cost more. */
const limit = 2.2;
const limits: Record<string, number> = { launchfit: 2.6, release: 2.6, setup: 2.6 };

const rounds = Number(process.argv[2] ?? 20);
const others = process.argv[3];
const folder = await mkdtemp(join(tmpdir(), "startup-"));
const empty = join(folder, "empty.mjs");
await writeFile(empty, "");
const commands = new Map<string, string[]>([["node", [empty]]]);
for (const dist of others === undefined ? ["dist"] : ["dist", others])
  for (const file of (await readdir(dist)).filter((file) => file.endsWith(".mjs")).sort())
    commands.set(join(dist, file), [join(dist, file), "--help"]);

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
for (const file of commands.keys()) {
  const [, name = ""] = /^dist\/(.*)\.mjs$/.exec(file) ?? [];
  if (!name) continue;
  const ms = median(file);
  console.log(`${ms.toFixed(1).padStart(6)} ms  ${name} --help`);
  console.log(`ratio startup ${name}: ${(ms / base).toFixed(2)} (to reach <= ${limits[name] ?? limit})`);
  if (others !== undefined) {
    const before = median(join(others, `${name}.mjs`));
    console.log(`${" ".repeat(11)}there ${(before / base).toFixed(2)}`);
  }
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
