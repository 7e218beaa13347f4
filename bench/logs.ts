// The log tool beside tail, grep and multilog, in turns: medians and their ratios.
//   node --import tsx bench/logs.ts [ROUNDS] [GIGABYTES OF THE LONG LOG, default 2]
// Makes logs of that size and half of it under TMPDIR, and removes them.
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { formatLine, formatMark, type Mark, markStage } from "../lib/log/format.ts";
import { openLog } from "../lib/log/writer.ts";
import { newRunId } from "../lib/core/id.ts";

const perSecond = 50_000;
const output = join(tmpdir(), `bench-logs-output-${process.pid}`);

/** What a writer took for the lines that came on its standard input. */
type Written = { lines: number; ms: number; cpu: number };

if (process.argv[2] === "--write") await writeInput(process.argv[3] ?? "");
else await compare(Number(process.argv[2] ?? 7), Number(process.argv[3] ?? 2));

async function compare(rounds: number, gigabytes: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "bench-logs-"));
  try {
    const [long = "", short = ""] = ["long", "short"].map((name) => join(folder, name));
    await makeLog(short, gigabytes * 500);
    await makeLog(long, gigabytes * 1000);
    await reading(folder, long, short, rounds);
    await writing(folder, rounds);
  } finally {
    await rm(folder, { recursive: true });
    await rm(output, { force: true });
  }
}

async function reading(folder: string, long: string, short: string, rounds: number): Promise<void> {
  const ours = [process.execPath, "dist/logs.mjs"];
  const empty = join(folder, "empty.mjs");
  await writeFile(empty, "");
  const log = join(short, "logs.txt");
  const pairs: [name: string, target: number, ours: string[], peers: string[][]][] = [
    [
      "last run",
      1.3,
      [...ours, long],
      [
        ["tail", "-n", "200", join(long, "logs.txt")],
        [process.execPath, empty],
      ],
    ],
  ];
  for (const pattern of [
    "ELIFECYCLE needle7$",
    "no such words anywhere",
    "vulnerabilities found",
    "(changed|audited) [0-9]+$",
  ]) {
    pairs.push([
      `grep ${pattern}`,
      2.5,
      [...ours, short, "--grep", pattern],
      [["grep", "-E", pattern, log]],
    ]);
  }
  for (const [name, target, mine, peers] of pairs) {
    const times: [number[], number[]] = [[], []];
    for (let round = 0; round <= rounds; round += 1) {
      const first = await time(mine);
      let second = 0;
      for (const peer of peers) second += await time(peer);
      // the first round fills the caches
      if (round === 0) continue;
      times[0].push(first);
      times[1].push(second);
    }
    report(name, median(times[0]), median(times[1]), target);
  }
}

async function writing(folder: string, rounds: number): Promise<void> {
  const input = join(folder, "input");
  const line = "added 22 packages, and audited 23 packages in 3s; found 0 vulnerabilities\n";
  await writeFile(input, line.repeat(1_000_000));
  const writer = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url), "--write"];
  const times: [number[], number[]] = [[], []];
  const hasPeer = (await exitOf(["sh", "-c", "command -v multilog"])) === 0;
  for (let round = 0; round < Math.min(rounds, 5); round += 1) {
    const file = join(folder, `w${round}`, "logs.txt");
    const { ms } = await written(writer, file, `cat ${input}`);
    times[0].push(ms);
    if (hasPeer)
      times[1].push(
        await time([
          "sh",
          "-c",
          `multilog t s16777215 n100 ${join(folder, `m${round}`)} < ${input}`,
        ]),
      );
  }
  if (hasPeer) report("writing 1,000,000 lines (multilog)", median(times[0]), median(times[1]), 1);
  else console.log("multilog is not installed (daemontools): not compared");
  const paced = `const t = Date.now(); let n = 0; setInterval(() => { const due = (Date.now() - t) * ${perSecond / 1000}; if (due > n) process.stdout.write(${JSON.stringify(line)}.repeat(due - n)); n = due; if (n > ${perSecond * 10}) process.exit(); }, 10)`;
  const producer = join(folder, "paced.mjs");
  await writeFile(producer, `import process from "node:process";\n${paced}`);
  const { lines, ms, cpu } = await written(
    writer,
    join(folder, "paced", "logs.txt"),
    `${process.execPath} ${producer}`,
  );
  const rate = Math.round(lines / (ms / 1000));
  console.log(
    `writing ${rate} lines a second for ${(ms / 1000).toFixed(1)} s: ${((100 * cpu) / ms).toFixed(1)} % of a core`,
  );
  console.log(`ratio writing cpu: ${(cpu / ms).toFixed(2)} (to reach <= 0.40)`);
}

/** Lines from standard input into the log, as `build` reads its stages. */
async function writeInput(file: string): Promise<void> {
  const log = await openLog(file, {
    run: newRunId(),
    rotateAt: 1e12,
    secrets: ["a secret that never comes"],
  });
  const begin = performance.now();
  const before = process.cpuUsage();
  let rest = "";
  let lines = 0;
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    const texts = (rest + String(chunk)).split("\n");
    rest = texts.pop() ?? "";
    lines += texts.length;
    log.lines("install", texts);
    log.flush();
  }
  await log.close();
  const { user, system } = process.cpuUsage(before);
  const result: Written = { lines, ms: performance.now() - begin, cpu: (user + system) / 1000 };
  console.log(JSON.stringify(result));
}

async function written(writer: string[], file: string, source: string): Promise<Written> {
  await mkdir(join(file, ".."), { recursive: true });
  const child = spawn("sh", ["-c", `${source} | "$@"`, "sh", ...writer, file], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (part: string) => {
    text += part;
  });
  await new Promise((resolve) => child.on("close", resolve));
  return JSON.parse(text) as Written;
}

function report(name: string, ours: number, peer: number, target: number): void {
  console.log(`${ours.toFixed(0).padStart(7)} ms, peer ${peer.toFixed(0).padStart(7)} ms  ${name}`);
  console.log(`ratio ${name}: ${(ours / peer).toFixed(2)} (to reach <= ${target})`);
}

async function time(argv: string[]): Promise<number> {
  const begin = performance.now();
  await exitOf(argv);
  return performance.now() - begin;
}

async function exitOf([file = "", ...args]: string[]): Promise<unknown> {
  // into a file: grep stops at the first match when it sees /dev/null
  const child = spawn("sh", ["-c", '"$@" > "$0" 2>&1', output, file, ...args], { stdio: "ignore" });
  return new Promise((resolve, reject) => child.on("error", reject).on("exit", resolve));
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A log of many runs, `megabytes` long. */
async function makeLog(folder: string, megabytes: number): Promise<void> {
  await mkdir(folder, { recursive: true });
  const words =
    "added removed changed audited packages in found vulnerabilities building page compiled successfully deprecated".split(
      " ",
    );
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 16807) % 2147483647;
    return seed % below;
  };
  let now = Date.parse("2026-11-01T00:00:00.000Z");
  const handle = await open(join(folder, "logs.txt"), "w");
  let size = 0;
  for (let number = 1; size < megabytes * 1e6; number += 1) {
    const run = newRunId(new Date(now));
    let text = "";
    const write = (stage: string, words: string) => {
      now += 1 + random(20);
      text += `${formatLine({ time: new Date(now).toISOString(), run, stage, text: words })}\n`;
    };
    const mark = (mark: Mark) => write(markStage, formatMark(mark));
    mark({ kind: "start", event: "push", ref: "main" });
    for (const stage of ["pull", "install", "litpro", "uploads"]) {
      for (let line = 50 + random(500); line > 0; line -= 1) {
        write(
          stage,
          `${Array.from({ length: 4 + random(8) }, () => words[random(words.length)]).join(" ")} ${line}`,
        );
      }
      if (stage === "litpro" && number % 500 === 7)
        write(stage, `npm ERR! code ELIFECYCLE needle${number}`);
      mark({ kind: "stage", name: stage, result: "ok", code: 0, seconds: 1 });
    }
    mark({ kind: "end", result: "ok", code: 0, seconds: 9 });
    await handle.write(text);
    size += text.length;
  }
  await handle.close();
}
