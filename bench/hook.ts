// hook-server beside Debian's webhook and a bare Node server: durable deliveries a second, queued runs,
// idle memory, time from the start to the first accepted delivery. Measures dist/hook-server.mjs.
// The server under test has one core, the client that loads it another, where there are two.
//   node --import tsx bench/hook.ts [SECONDS] [ROUNDS]
import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { connect, createServer, type Socket } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const secret = "benchmark";
const connections = 32;

/** A push of about 10 KB, as a commit with a long message makes it. */
function payload(sha: string, ref = "refs/heads/main"): string {
  const filler = "a line of a commit message that somebody wrote; ".repeat(200);
  const repository = { id: 1, full_name: "me/site", default_branch: "main" };
  const commits = [{ id: sha, message: filler, added: [], removed: [], modified: ["a.md"] }];
  return JSON.stringify({ ref, before: "0".repeat(40), after: sha, repository, commits });
}

/** A whole HTTP request, less the delivery id in the middle. */
function rawRequest(port: number, ref?: string): { head: string; tail: Buffer } {
  const body = payload("a".repeat(40), ref);
  const signature = createHmac("sha256", secret).update(body).digest("hex");
  const head = `POST /hook HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${signature}\r\nx-github-delivery: `;
  const tail = Buffer.from(`\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  return { head, tail };
}

type Load = {
  cpu?: number;
  rate: number;
  p50: number;
  p99: number;
  statuses: Record<string, number>;
};

/** Seconds of load before the measuring begins: compilers warm up, of all servers alike. */
const warmUp = 1;

/** The client's own process: keeps every connection busy for so many seconds. */
async function client(port: number, seconds: number): Promise<void> {
  const { head, tail } = rawRequest(port);
  const times: number[] = [];
  const statuses: Record<string, number> = {};
  const begin = performance.now() + warmUp * 1000;
  const end = begin + seconds * 1000;
  let id = 0;
  await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = connect(port, "127.0.0.1");
      socket.setNoDelay(true);
      await new Promise((ready, failed) => socket.once("connect", ready).once("error", failed));
      while (performance.now() < end) {
        const sent = performance.now();
        const answer = nextAnswer(socket);
        socket.write(Buffer.concat([Buffer.from(`${head}${process.pid}-${id++}`), tail]));
        const status = await answer;
        if (sent < begin) continue;
        times.push(performance.now() - sent);
        statuses[status] = (statuses[status] ?? 0) + 1;
      }
      socket.destroy();
    }),
  );
  const took = (performance.now() - begin) / 1000;
  times.sort((a, b) => a - b);
  const at = (share: number) => times[Math.floor(times.length * share)] ?? Number.NaN;
  const load: Load = { rate: times.length / took, p50: at(0.5), p99: at(0.99), statuses };
  console.log(JSON.stringify(load));
}

function nextAnswer(socket: Socket): Promise<string> {
  return new Promise((done, failed) => {
    let text = "";
    const onData = (data: Buffer) => {
      text += data.toString("latin1");
      const headEnd = text.indexOf("\r\n\r\n");
      if (headEnd < 0) return;
      const length = /content-length: (\d+)/i.exec(text)?.[1];
      if (length !== undefined && text.length < headEnd + 4 + Number(length)) return;
      if (length === undefined && !text.endsWith("0\r\n\r\n")) return;
      socket.off("data", onData);
      socket.off("error", failed);
      done(text.slice(9, 12));
    };
    socket.on("data", onData);
    socket.once("error", failed);
  });
}

/** What hook-server must do at least, in as few lines as possible: parse, verify, append, one fdatasync for those that came together. */
const bareServer = `
import { createServer } from "node:http";
import { createHmac, timingSafeEqual } from "node:crypto";
import { openSync, write, fdatasync } from "node:fs";
const [port, file] = process.argv.slice(2);
const fd = openSync(file, "a");
let waiting = [], busy = false;
function flush() {
  if (busy || waiting.length === 0) return;
  const batch = waiting; waiting = []; busy = true;
  write(fd, Buffer.concat(batch.map((each) => each.body)), () => fdatasync(fd, () => {
    busy = false;
    for (const { response } of batch) { response.writeHead(202, { "content-length": "2" }); response.end("{}"); }
    flush();
  }));
}
createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
    const body = Buffer.concat(chunks);
    const want = createHmac("sha256", "${secret}").update(body).digest();
    const given = Buffer.from((request.headers["x-hub-signature-256"] ?? "").slice(7), "hex");
    if (given.length !== 32 || !timingSafeEqual(want, given)) { response.writeHead(401); response.end(); return; }
    JSON.parse(body.toString());
    waiting.push({ body, response });
    setImmediate(flush);
  });
}).listen(Number(port), "127.0.0.1");
`;

type Server = { name: string; port: number; child: ChildProcess };

const children = new Set<ChildProcess>();
const twoCores = availableParallelism() > 1;
const onCore = (core: number, argv: string[]) =>
  twoCores ? ["taskset", "-c", String(core), ...argv] : argv;

function start(argv: string[], cwd: string): ChildProcess {
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { cwd, stdio: ["ignore", "ignore", "ignore"] });
  children.add(child);
  child.on("error", () => {});
  child.on("exit", () => children.delete(child));
  return child;
}

async function stop({ child }: { child: ChildProcess }): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
  await gone;
  clearTimeout(timer);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  await new Promise((done) => server.close(done));
  return port;
}

/** One signed delivery; the status, or 0 when nobody listens. */
async function deliver(port: number, id: string, ref?: string): Promise<number> {
  const { head, tail } = rawRequest(port, ref);
  const socket = connect(port, "127.0.0.1");
  try {
    await new Promise((ready, failed) => socket.once("connect", ready).once("error", failed));
    const answer = nextAnswer(socket);
    socket.write(Buffer.concat([Buffer.from(head + id), tail]));
    return Number(await answer);
  } catch {
    return 0;
  } finally {
    socket.destroy();
  }
}

async function untilAccepts(port: number): Promise<void> {
  for (let tries = 0; (await deliver(port, `first-${process.pid}-${tries}`)) === 0; tries++)
    await sleep(1);
}

const bundle = resolve("dist/hook-server.mjs");
let folders = 0;
const root = await mkdtemp(join(tmpdir(), "bench-hook-"));

async function ourFolder(port: number, job: string, refs = "[main]"): Promise<string> {
  const dir = join(root, `ours${folders++}`);
  await mkdir(join(dir, "co"), { recursive: true });
  await writeFile(join(dir, "secret"), secret, { mode: 0o600 });
  await writeFile(join(dir, "job"), job);
  await chmod(join(dir, "job"), 0o755);
  const lines = [
    `listen: 127.0.0.1:${port}`,
    "state: state",
    "keep: 200",
    "repos:",
    "  me/site:",
    "    dir: co",
    "    secret_file: secret",
    `    refs: ${refs}`,
    "    poll: false",
    `    on: { push: ${dir}/job, release: false }`,
  ];
  await writeFile(join(dir, "hooks.yml"), `${lines.join("\n")}\n`);
  return dir;
}

async function startOurs(
  job = "#!/bin/sh\nexec sleep 600\n",
  refs?: string,
): Promise<Server & { dir: string }> {
  const port = await freePort();
  const dir = await ourFolder(port, job, refs);
  const child = start(onCore(0, [process.execPath, bundle, "--quiet"]), dir);
  return { name: "hook-server", port, child, dir };
}

async function startBare(): Promise<Server> {
  const port = await freePort();
  const file = join(root, "bare.mjs");
  await writeFile(file, bareServer);
  const child = start(
    onCore(0, [process.execPath, file, String(port), join(root, `bare${folders++}`)]),
    root,
  );
  return { name: "bare node", port, child };
}

async function startWebhook(): Promise<Server> {
  const port = await freePort();
  const rule = {
    match: {
      type: "payload-hmac-sha256",
      secret,
      parameter: { source: "header", name: "X-Hub-Signature-256" },
    },
  };
  // the second rule never holds: webhook verifies and runs nothing
  const never = {
    match: { type: "value", value: "never", parameter: { source: "payload", name: "ref" } },
  };
  const hooks = [
    { id: "hook", "execute-command": "/bin/true", "trigger-rule": { and: [rule, never] } },
  ];
  const file = join(root, "webhook.json");
  await writeFile(file, JSON.stringify(hooks));
  const argv = [
    "webhook",
    "-hooks",
    file,
    "-ip",
    "127.0.0.1",
    "-port",
    String(port),
    "-urlprefix",
    "",
  ];
  return { name: "webhook", port, child: start(onCore(0, ["env", "GOMAXPROCS=1", ...argv]), root) };
}

async function load(port: number, seconds: number): Promise<Load> {
  const argv = onCore(1, [
    process.execPath,
    "--import",
    import.meta.resolve("tsx"),
    fileURLToPath(import.meta.url),
    "--client",
    String(port),
    String(seconds),
  ]);
  const [file = "", ...args] = argv;
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.on("data", (data: Buffer) => {
    text += data.toString();
  });
  await new Promise((done) => child.once("close", done));
  return JSON.parse(text) as Load;
}

const median = (values: number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

/** The processor time a process has used: what it costs, however busy the machine is with other things. */
function cpuSeconds(pid: number | undefined): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function throughput(seconds: number, rounds: number): Promise<void> {
  const hasWebhook = ["/usr/bin/webhook", "/usr/local/bin/webhook"].some((path) =>
    existsSync(path),
  );
  const starters = [startOurs, ...(hasWebhook ? [startWebhook] : []), startBare];
  if (!hasWebhook) console.log("webhook is not installed (apt install webhook): left out");
  const loads = new Map<string, Load[]>();
  for (let round = 0; round < rounds; round++) {
    for (const starter of starters) {
      const server = await starter();
      await untilAccepts(server.port);
      const before = cpuSeconds(server.child.pid);
      const result = await load(server.port, seconds);
      const answers = Object.values(result.statuses).reduce((sum, count) => sum + count, 0);
      result.cpu = ((cpuSeconds(server.child.pid) - before) / answers) * 1e6;
      await stop(server);
      loads.set(server.name, [...(loads.get(server.name) ?? []), result]);
    }
  }
  console.log(
    `deliveries of 10 KB, signed, ${connections} connections, ${rounds} rounds of ${seconds} s, medians`,
  );
  for (const [name, list] of loads) {
    const [rate, p50, p99, cpu] = (["rate", "p50", "p99", "cpu"] as const).map((key) =>
      median(list.map((each) => each[key] ?? Number.NaN)),
    );
    console.log(
      `  ${name.padEnd(12)} ${Math.round(rate ?? 0)}/s  p50 ${p50?.toFixed(2)} ms  p99 ${p99?.toFixed(2)} ms  processor ${cpu?.toFixed(0)} µs each  answers ${JSON.stringify(list[0]?.statuses)}`,
    );
  }
  const rate = (name: string) => median((loads.get(name) ?? []).map((each) => each.rate));
  const p99 = (name: string) => median((loads.get(name) ?? []).map((each) => each.p99));
  console.log(
    `figure deliveries a second: ${Math.round(rate("hook-server"))} (to reach >= 8000 on an idle core)`,
  );
  console.log(`figure p99: ${p99("hook-server").toFixed(2)} ms (to reach <= 10 on an idle core)`);
  if (hasWebhook) {
    console.log(
      `ratio deliveries hook-server/webhook: ${(rate("hook-server") / rate("webhook")).toFixed(2)} (to reach >= 1.5)`,
    );
    console.log(
      `ratio p99 hook-server/webhook: ${(p99("hook-server") / p99("webhook")).toFixed(2)} (to reach <= 1.0)`,
    );
  }
  const cpu = (name: string) =>
    median((loads.get(name) ?? []).map((each) => each.cpu ?? Number.NaN));
  console.log(
    `figure deliveries a second of processor time: ${Math.round(1e6 / cpu("hook-server"))} (to reach >= 8000)`,
  );
  if (hasWebhook)
    console.log(
      `ratio processor time webhook/hook-server: ${(cpu("webhook") / cpu("hook-server")).toFixed(2)} (to reach >= 1.5)`,
    );
  console.log(
    `ratio deliveries hook-server/bare node: ${(rate("hook-server") / rate("bare node")).toFixed(2)}`,
  );
}

/** The state of all runs, through the Unix socket. */
function runsOf(dir: string): Promise<{ state: string; started?: string; ended?: string }[]> {
  return new Promise((done, failed) => {
    const call = request(
      { socketPath: join(dir, "state/socket"), path: "/runs?limit=1000" },
      (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (data) => {
          text += String(data);
        });
        response.on("end", () => done(JSON.parse(text).runs));
      },
    );
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
    const child = spawn(
      "/bin/sh",
      ["-c", "i=0; while [ $i -lt 100 ]; do ../job; i=$((i+1)); done"],
      { cwd: join(server.dir, "co"), stdio: "ignore" },
    );
    await new Promise((done) => child.once("exit", done));
    plain.push(performance.now() - begin);
  }
  const beyond = (median(ours) - median(plain)) / 1000;
  console.log(
    `100 queued runs of one repo: ${(median(ours) / 1000).toFixed(2)} s; the commands alone ${(median(plain) / 1000).toFixed(2)} s`,
  );
  console.log(`figure beyond the commands: ${beyond.toFixed(2)} s (to reach <= 1.0)`);
  if (!existsSync("/usr/sbin/laminard"))
    console.log("laminar is not installed (not in Debian 12): left out");
}

async function startAndMemory(rounds: number): Promise<void> {
  const times = new Map<string, number[]>();
  const memory = new Map<string, number[]>();
  for (let round = 0; round <= rounds; round++) {
    for (const starter of [startOurs, startBare]) {
      const port = await freePort();
      const dir = starter === startOurs ? await ourFolder(port, "#!/bin/sh\n") : root;
      const bare = [join(root, "bare.mjs"), String(port), join(root, `bare${folders++}`)];
      const argv = starter === startOurs ? [bundle, "--quiet"] : bare;
      const name = starter === startOurs ? "hook-server" : "bare node";
      await writeFile(join(root, "bare.mjs"), bareServer);
      const begin = performance.now();
      const child = start([process.execPath, ...argv], dir);
      await untilAccepts(port);
      const took = performance.now() - begin;
      if (round > 0) times.set(name, [...(times.get(name) ?? []), took]);
      await sleep(300);
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      memory.set(name, [
        ...(memory.get(name) ?? []),
        Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024,
      ]);
      await stop({ child });
    }
  }
  for (const [name, list] of times)
    console.log(
      `  ${name.padEnd(12)} start to first accepted delivery ${median(list).toFixed(0)} ms, memory ${median(memory.get(name) ?? []).toFixed(1)} MB`,
    );
  const of = (map: Map<string, number[]>, name: string) => median(map.get(name) ?? []);
  console.log(
    `ratio start hook-server/bare node: ${(of(times, "hook-server") / of(times, "bare node")).toFixed(2)} (to reach <= 1.6)`,
  );
  console.log(`figure idle memory: ${of(memory, "hook-server").toFixed(1)} MB (to reach <= 60)`);
}

if (process.argv[2] === "--client") {
  await client(Number(process.argv[3]), Number(process.argv[4]));
} else {
  process.on("exit", () => {
    for (const child of children) child.kill("SIGKILL");
  });
  const seconds = Number(process.argv[2] ?? 4);
  const rounds = Number(process.argv[3] ?? 3);
  await throughput(seconds, rounds);
  await queuedRuns(Math.min(rounds, 3));
  await startAndMemory(10);
  await rm(root, { recursive: true, force: true });
}
