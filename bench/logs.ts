// The log tool beside tail, grep and multilog, in turns: medians and their ratios.
//   node --import tsx bench/logs.ts [ROUNDS] [PARTS OF THE LOG, default 10]
// Makes a log of so many parts of 10 MiB under TMPDIR, and removes it.
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, open, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { formatLine, formatMark, type Mark, markStage } from "../lib/log/format.ts";
import { newRunId } from "../lib/core/id.ts";
import { stampOf } from "../lib/log/parts.ts";
import { bundled } from "./bundled.ts";

const output = join(tmpdir(), `bench-logs-output-${process.pid}`);

await compare(Number(process.argv[2] ?? 7), Number(process.argv[3] ?? 10));

async function compare(rounds: number, parts: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "bench-logs-"));
  try {
    const log = join(folder, "log");
    await makeLog(log, parts);
    await reading(folder, log, rounds);
    await writing(folder, Math.min(rounds, 5));
  } finally {
    await rm(folder, { recursive: true });
    await rm(output, { force: true });
  }
}

async function reading(folder: string, log: string, rounds: number): Promise<void> {
  const ours = [process.execPath, "dist/logs.mjs"];
  const empty = join(folder, "empty.mjs");
  await writeFile(empty, "");
  // the peer's time is tail's and that of a Node that does nothing: ours cannot be without that one
  const tail = { argv: ["tail", "-n", "200", join(log, "logs.txt")] };
  const node = { argv: [process.execPath, empty] };
  await beside("last run (tail, and Node's start)", 1.6, rounds, { argv: [...ours, log] }, [tail, node]);
  for (const pattern of [
    "ELIFECYCLE needle7$",
    "no such words anywhere",
    "vulnerabilities found",
    "(changed|audited) [0-9]+$",
  ]) {
    const grep = { argv: ["sh", "-c", 'grep -hE "$0" "$1"/logs.txt.* "$1/logs.txt"', pattern, log] };
    const mine = { argv: [...ours, log, "--grep", pattern] };
    await beside(`grep ${pattern} (grep, LC_ALL=C, and Node's start)`, 4, rounds, mine, [grep, node]);
  }
}

/** Both stamp each line, rotate at 16 MB, compress the parts, sync, and are timed from their start to their end. */
async function writing(folder: string, rounds: number): Promise<void> {
  const name = "1,000,000 lines written (multilog)";
  if ((await exitOf({ argv: ["sh", "-c", "command -v multilog"] })) !== 0)
    return console.log(`${name}: not compared, multilog is not installed (daemontools)`);
  const input = join(folder, "input");
  const line = "added 22 packages, and audited 23 packages in 3s; found 0 vulnerabilities\n";
  await writeFile(input, line.repeat(1_000_000));
  const writer = join(folder, "log-writer.mjs");
  await bundled(fileURLToPath(new URL("log-writer.ts", import.meta.url)), writer);
  const clean = () => rm(join(folder, "written"), { recursive: true, force: true });
  const ours = [process.execPath, writer, join(folder, "written", "logs.txt")];
  const peer = ["multilog", "t", "s16777215", "n100", "!gzip", join(folder, "written")];
  await beside(name, 1.3, rounds, { argv: ours, input, clean }, [{ argv: peer, input, clean }]);
}

interface Command {
  argv: string[];
  /** The file that is its standard input. */
  input?: string;
  /** Called after each run, outside of its time. */
  clean?: () => Promise<void>;
}

/** Run ours and its peers in turns, and print the medians and their ratio; the peers' times are added up. */
async function beside(name: string, target: number, rounds: number, ours: Command, peers: Command[]): Promise<void> {
  const times: [number[], number[]] = [[], []];
  for (let round = 0; round <= rounds; round += 1) {
    const first = await time(ours);
    let second = 0;
    for (const peer of peers) second += await time(peer);
    // the first round fills the caches
    if (round === 0) continue;
    times[0].push(first);
    times[1].push(second);
  }
  report(name, median(times[0]), median(times[1]), target);
}

function report(name: string, ours: number, peer: number, target: number): void {
  console.log(`${ours.toFixed(0).padStart(7)} ms, peer ${peer.toFixed(0).padStart(7)} ms  ${name}`);
  console.log(`ratio ${name}: ${(ours / peer).toFixed(2)} (to reach <= ${target})`);
}

async function time(command: Command): Promise<number> {
  const started = performance.now();
  const code = await exitOf(command);
  const took = performance.now() - started;
  if (code !== 0 && code !== 1) throw new Error(`${command.argv.join(" ")} ended with ${code}`);
  await command.clean?.();
  return took;
}

async function exitOf({ argv: [file = "", ...args], input = "/dev/null" }: Command) {
  // into a file: grep stops at the first match when it sees /dev/null
  const script = 'exec "$@" > "$0" 2>&1';
  const stdin = await open(input, "r");
  const child = spawn("sh", ["-c", script, output, file, ...args], {
    stdio: [stdin.fd, "ignore", "ignore"],
    env: { ...process.env, LC_ALL: "C" },
  });
  const code = await new Promise<number | null>((resolve, reject) => child.on("error", reject).on("exit", resolve));
  await stdin.close();
  return code;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** A log of many runs in `parts` parts, and half a one. */
async function makeLog(folder: string, parts: number): Promise<void> {
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
  const file = join(folder, "logs.txt");
  const full = 10 * 1024 * 1024;
  let handle = await open(file, "w");
  let size = 0;
  for (let number = 1, done = 0; done < parts || size < full / 2; number += 1) {
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
        write(stage, `${Array.from({ length: 4 + random(8) }, () => words[random(words.length)]).join(" ")} ${line}`);
      }
      if (stage === "litpro" && number % 500 === 7) write(stage, `npm ERR! code ELIFECYCLE needle${number}`);
      mark({ kind: "stage", name: stage, result: "ok", code: 0, seconds: 1 });
    }
    mark({ kind: "end", result: "ok", code: 0, seconds: 9 });
    await handle.write(text);
    size += text.length;
    if (size < full || done === parts) continue;
    await handle.close();
    await rename(file, `${file}.${stampOf(new Date(now))}`);
    handle = await open(file, "w");
    size = 0;
    done += 1;
  }
  await handle.close();
}
