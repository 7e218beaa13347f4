// hook-server's page: the overview of many repos, many who follow one live log, a line's way into a browser. Measures
// dist/hook-server.mjs; the browser is Debian's chromium. Where there are two cores the server has one of its own.
//   node --import tsx bench/page.ts [ROUNDS]
import { readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser } from "playwright-core";
import { newRunId } from "../lib/core/id.ts";
import { encode } from "../lib/run-store/file-store.ts";
import type { Run } from "../lib/run-store/run-store.ts";
import { startBrowser } from "../test/helpers/browser.ts";
import { deliver, load, secret, untilAccepts } from "./hook-load.ts";
import { bundle, freePort, newPath, onCore, removeAll, type Server, start, stop } from "./hook-servers.ts";

const rounds = Number(process.argv[2] ?? 3);
const followers = 500;

const sorted = (values: number[]) => [...values].sort((a, b) => a - b);
const median = (values: number[]) => sorted(values)[Math.floor(values.length / 2)] ?? Number.NaN;
const worst = (values: number[]) => Math.max(...values);

/** Says a figure with its bound. */
function figure(what: string, value: number, unit: string, bound: string): void {
  console.log(`figure ${what}: ${value.toFixed(value < 10 ? 2 : 0)} ${unit} (to reach ${bound})`);
}

type Yard = { repos: string[]; job: string };

/** A folder whose page anybody may see; the first repo runs `job` on each push. */
async function yard(port: number, { repos, job }: Yard): Promise<string> {
  const dir = newPath("page");
  await mkdir(join(dir, "co"), { recursive: true });
  await writeFile(join(dir, "secret"), secret, { mode: 0o600 });
  await writeFile(join(dir, "job"), `#!/bin/sh\n${job}\n`);
  await chmod(join(dir, "job"), 0o755);
  const each = (name: string) =>
    `  ${name}: { dir: co, secret_file: secret, refs: [main], poll: false, on: { push: ${dir}/job, release: false } }`;
  const top = [`listen: 127.0.0.1:${port}`, "state: state", "status: { public: true }", "repos:"];
  await writeFile(join(dir, "hooks.yml"), `${[...top, ...repos.map(each)].join("\n")}\n`);
  return dir;
}

async function startIn(dir: string, port: number): Promise<Server> {
  const child = start(onCore(0, [process.execPath, bundle, "--quiet"]), dir);
  const server = { name: "hook-server", port, child };
  await untilAccepts(port);
  return server;
}

/** Milliseconds until a page is here, whole. */
function fetchPage(port: number, path: string): Promise<{ ms: number; text: string }> {
  const begin = performance.now();
  return new Promise((done, failed) => {
    get({ host: "127.0.0.1", port, path, headers: { accept: "text/html" } }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (data: string) => (text += data));
      response.on("end", () => done({ ms: performance.now() - begin, text }));
    }).on("error", failed);
  });
}

/** What a page takes over the wire, in kB, as browsers ask for it. */
function weight(port: number, path: string): Promise<number> {
  const headers = { accept: "text/html", "accept-encoding": "gzip" };
  return new Promise((done, failed) => {
    get({ host: "127.0.0.1", port, path, headers }, (response) => {
      let bytes = 0;
      response.on("data", (data: Buffer) => (bytes += data.length));
      response.on("end", () => done(bytes / 1000));
    }).on("error", failed);
  });
}

/** A log as npm and compilers print it. */
function logText(lines: number): string {
  const words = ["added", "package", "warning", "compiled", "src/pages/index.ts", "in", "dist/assets/main.js", "kB"];
  const line = (n: number) =>
    `npm | ${Array.from({ length: 9 }, (_, at) => words[(n * 7 + at * at * 3) % words.length]).join(" ")} ${(n * 7919) % 10_007}`;
  return Array.from({ length: lines }, (_, n) => `${line(n)}\n`).join("");
}

/** The records of runs that ended, as a server leaves them; returns the newest one's id. */
async function writeRuns(dir: string, repos: readonly string[], count: number): Promise<string> {
  let newest = "";
  const begin = Date.now() - repos.length * count * 60_000;
  const lines: string[] = [];
  for (const [index, repo] of repos.entries())
    for (let n = 0; n < count; n++) {
      const serial = n * repos.length + index;
      const accepted = begin + serial * 60_000;
      const seconds = 20 + ((serial * 37) % 400);
      const id = newRunId(accepted);
      const time = (ms: number) => new Date(ms).toISOString();
      const record: Run = {
        ...{ id, repo, forge: "github", event: "push", delivery: `d${serial}` },
        ...{ kind: "push", ref: "refs/heads/main", sha: serial.toString(16).padStart(40, "0") },
        commit: { title: `Change number ${serial}`, author: "Ada", pusher: "ada" },
        ...{ accepted: time(accepted), state: serial % 9 === 0 ? "failed" : "succeeded" },
        ...{ attempt: 1, started: time(accepted), ended: time(accepted + seconds * 1000) },
        ...{ seconds, exit: serial % 9 === 0 ? 1 : 0 },
      };
      lines.push(encode({ n: lines.length + 1, runs: [record] }));
      newest = id;
    }
  await mkdir(join(dir, "state"), { recursive: true });
  await writeFile(join(dir, "state/runs.jsonl"), lines.join(""));
  return newest;
}

async function overview(browser: Browser): Promise<void> {
  const port = await freePort();
  const repos = ["me/site", ...Array.from({ length: 199 }, (_, n) => `harbour/repo-${n}`)];
  const dir = await yard(port, { repos, job: "sleep 1" });
  const newest = await writeRuns(dir, repos, 50);
  await mkdir(join(dir, "state/runs", newest), { recursive: true });
  await writeFile(join(dir, "state/runs", newest, "log"), logText(200_000));
  const server = await startIn(dir, port);
  const first = await fetchPage(port, "/");
  figure("overview over the wire", await weight(port, "/"), "kB", "<= 40");
  figure(
    "page of a run with a log of 200,000 lines over the wire",
    await weight(port, `/runs/${newest}`),
    "kB",
    "<= 15",
  );
  const times: number[] = [];
  for (let n = 0; n < 7 * rounds; n++) {
    // each time something has changed
    await deliver(port, `overview-${n}`);
    times.push((await fetchPage(port, "/")).ms);
  }
  console.log(
    `overview of ${repos.length} repos with 50 runs each: ${(first.text.length / 1000).toFixed(0)} kB; the first ${first.ms.toFixed(0)} ms, worst ${worst(times).toFixed(0)} ms`,
  );
  figure("overview on the server, median", median(times), "ms", "<= 100");
  const usable: number[] = [];
  for (let n = 0; n <= rounds; n++) {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(20_000);
    const begin = performance.now();
    await page.goto(`http://localhost:${port}/`, { waitUntil: "commit" });
    // usable: what is typed into the filter takes effect
    await page.waitForSelector("input[data-filter]");
    for (;;) {
      await page.fill("input[data-filter]", "repo-17");
      if ((await page.locator("tr[data-words]:visible").count()) < 20) break;
      await page.fill("input[data-filter]", "");
    }
    // the first one warms the browser up
    if (n > 0) usable.push(performance.now() - begin);
    await page.context().close();
  }
  figure("overview usable in the browser, median", median(usable) / 1000, "s", "<= 1");
  await stop(server);
}

/** MB of resident memory. */
function memoryOf({ child }: Server): number {
  const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

/** The run that goes on. */
async function runningRun(port: number): Promise<string> {
  for (;;) {
    const { text } = await fetchPage(port, "/repos/me/site");
    const id = /href="\/runs\/([\w-]+)"><span class="pill running"/.exec(text)?.[1];
    if (id !== undefined) return id;
    await sleep(50);
  }
}

/** Sockets that follow a log from where it is, and count what comes. */
async function follow(port: number, run: string): Promise<{ bytes: () => number; close: () => void }> {
  let bytes = 0;
  const sockets: Socket[] = [];
  for (let n = 0; n < followers; n++) {
    const socket = connect(port, "127.0.0.1");
    await new Promise((done, failed) => socket.once("connect", done).once("error", failed));
    socket.on("data", (data) => (bytes += data.length)).on("error", () => {});
    socket.write(`GET /runs/${run}/log?follow=1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`);
    sockets.push(socket);
  }
  return { bytes: () => bytes, close: () => sockets.forEach((socket) => void socket.destroy()) };
}

async function manyFollowers(): Promise<void> {
  const port = await freePort();
  const job =
    'while :; do echo "a line of a build, some sixty characters long, like $$"; echo and another; sleep 0.02; done';
  const server = await startIn(await yard(port, { repos: ["me/site"], job }), port);
  const run = await runningRun(port);
  await load(server, 2, onCore(1, []));
  const alone: number[] = [];
  const beside: number[] = [];
  let cost = 0;
  for (let round = 0; round < rounds; round++) {
    alone.push((await load(server, 4, onCore(1, []))).rate);
    const before = memoryOf(server);
    const all = await follow(port, run);
    let most = before;
    const looking = setInterval(() => (most = Math.max(most, memoryOf(server))), 200);
    await sleep(3000);
    cost = Math.max(cost, most - before);
    beside.push((await load(server, 4, onCore(1, []))).rate);
    clearInterval(looking);
    const got = all.bytes();
    all.close();
    if (got < followers * 1000) console.log(`the followers got ${got} bytes only`);
    await sleep(500);
  }
  console.log(
    `deliveries a second: ${median(alone).toFixed(0)} alone, ${median(beside).toFixed(0)} beside ${followers} who follow one live log`,
  );
  figure(`memory that ${followers} followers cost`, cost, "MB", "<= 100");
  figure("deliveries beside them, of their rate alone", median(beside) / median(alone), "", ">= 0.8");
  await stop(server);
}

async function lineToBrowser(browser: Browser): Promise<void> {
  const port = await freePort();
  const job = 'while :; do echo "written at $(date +%s%3N)"; sleep 0.23; done';
  const server = await startIn(await yard(port, { repos: ["me/site"], job }), port);
  const run = await runningRun(port);
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(`http://localhost:${port}/runs/${run}`);
  await page.waitForSelector(".window .row");
  // in the page, after the frame in which the line is drawn
  await page.evaluate(`(() => {
    const seen = new Set();
    globalThis.delays = [];
    const look = () => {
      for (const row of document.querySelectorAll(".row")) {
        const [, at] = /written at (\\d+)/.exec(row.textContent) ?? [];
        if (at === undefined || seen.has(at)) continue;
        seen.add(at);
        delays.push(Date.now() - Number(at));
      }
      requestAnimationFrame(look);
    };
    look();
    // what stood there before does not count
    delays.length = 0;
  })()`);
  await sleep(10_000 + 5000 * rounds);
  const delays = await page.evaluate<number[]>("delays");
  console.log(
    `${delays.length} lines in the browser after they were written: median ${median(delays)} ms, worst ${worst(delays)} ms`,
  );
  const most = sorted(delays)[Math.ceil(delays.length * 0.95) - 1] ?? Number.NaN;
  figure("a line in the browser, 95 of 100", most, "ms", "<= 300");
  await page.context().close();
  await stop(server);
}

const browser = await startBrowser();
try {
  await overview(browser);
  await manyFollowers();
  await lineToBrowser(browser);
} finally {
  await browser.close();
  await removeAll();
}
