// Makes docs/images/: the page of a real hook-server with real runs, in Debian's chromium. What ran within seconds is
// spread over the days before, so that ages and durations look as they do at work. Run: npm run screenshots
import { createHmac } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { spawn, type ChildProcess } from "node:child_process";
import type { Browser } from "playwright-core";

const root = fileURLToPath(new URL("../", import.meta.url));
const images = join(root, "docs/images");
const secret = "of-the-screenshots-alone";
const password = "correct horse";
const dir = await mkdtemp(join(tmpdir(), "screenshots-"));

/** The repos, how long a run of each takes (s), and which of the last runs failed (0: the newest). */
const repos = [
  { name: "harbour/site", seconds: 74, failed: [9, 21] },
  { name: "harbour/tide-tables", seconds: 212, failed: [0, 1, 14] },
  { name: "harbour/moorings", seconds: 38, failed: [17] },
  { name: "ada/sail-plan", seconds: 126, failed: [5, 6, 7] },
  { name: "ada/logbook", seconds: 19, failed: [] },
  { name: "ada/dotfiles", seconds: 4, failed: [] },
] as const;

const titles = [
  "Berths are sorted by length, then by draught",
  "Fix the time zone of the night ferry",
  "Tide tables for next year",
  "Cache the map's tiles for an hour",
  "Say which pier a boat is moored at",
  "Fewer words on the start page",
  "Update the packages",
  "The form keeps what was typed when it is refused",
];
const people = ["ada", "grace", "edsger", "barbara"];

/** What each run does: stages as `build` tells of them, output with colours. */
const job = `#!/bin/sh
stage() {
  printf '\\033[1;34m==>\\033[0m %s\\n' "$1"
}
stage "npm ci"
echo "added 214 packages in 9s"
echo "61 packages are looking for funding"
stage "npm run build"
for page in index piers berths tides contact prices weather webcam; do
  printf '  \\033[32m✓\\033[0m %-22s \\033[2m%s kB\\033[0m\\n' "pages/$page.html" "$(( $(printf %s "$page$HOOK_SHA" | cksum | cut -c1-3) % 60 + 4 ))"
done
stage "npm test"
printf '  \\033[32m✓\\033[0m berths are sorted by length\\n  \\033[32m✓\\033[0m a boat without a berth is waiting\\n'
if test "$(cat "$PWD/../fail")" = yes; then
  printf '  \\033[31m✗\\033[0m the last ferry leaves after midnight\\n\\n'
  printf '\\033[31mAssertionError\\033[0m: expected \\033[32m"00:10"\\033[0m, got \\033[31m"23:10"\\033[0m\\n'
  printf '    at test/ferries.test.js:\\033[33m41\\033[0m:12\\n\\n'
  echo "1 of 58 tests failed"
  exit 1
fi
echo "58 tests passed"
while test -e "$PWD/../hold"; do sleep 0.1; done
`;

async function prepare(): Promise<void> {
  await mkdir(join(dir, "co"), { recursive: true });
  await mkdir(images, { recursive: true });
  const files = { secret, password, job, fail: "no" };
  for (const [name, text] of Object.entries(files))
    await writeFile(join(dir, name), text, { mode: 0o600 });
  await chmod(join(dir, "job"), 0o755);
  const lines = repos.map(
    ({ name }) =>
      `  ${name}: { dir: co, secret_file: secret, refs: [main], poll: false, on: { push: ${dir}/job, release: false } }`,
  );
  const top =
    "listen: 127.0.0.1:0\nstate: state\nconcurrency: 1\nstatus: { password_file: password }\n";
  await writeFile(join(dir, "hooks.yml"), `${top}repos:\n${lines.join("\n")}\n`);
}

interface Server {
  readonly child: ChildProcess;
  readonly port: number;
}

async function startServer(): Promise<Server> {
  const argv = [
    "--import",
    "tsx",
    join(root, "scripts/hook-server.ts"),
    "--config",
    join(dir, "hooks.yml"),
  ];
  const child = spawn(process.execPath, argv, { cwd: root, stdio: ["ignore", "ignore", "pipe"] });
  let text = "";
  const port = await new Promise<number>((done, failed) => {
    child.stderr.on("data", (data: Buffer) => {
      text += data.toString();
      const [, found] = /listens on [^ ]*?:(\d+),/.exec(text) ?? [];
      if (found !== undefined) done(Number(found));
    });
    child.once("exit", () => failed(new Error(text)));
  });
  return { child, port };
}

async function stopServer({ child }: Server): Promise<void> {
  const gone = new Promise((done) => child.once("exit", done));
  child.kill("SIGTERM");
  await gone;
}

let pushes = 0;

/** A signed push; returns the run's id. */
async function push({ port }: Server, repo: string): Promise<string> {
  pushes += 1;
  const sha = createHmac("sha1", repo).update(String(pushes)).digest("hex");
  const person = people[(pushes * 7) % people.length] ?? "";
  const body = JSON.stringify({
    ref: "refs/heads/main",
    before: "0".repeat(40),
    after: sha,
    repository: { full_name: repo, default_branch: "main" },
    head_commit: {
      id: sha,
      message: titles[(pushes * 3) % titles.length],
      author: { name: person },
      url: `https://forge.example.org/${repo}/commit/${sha}`,
    },
    pusher: { name: person },
  });
  const answer = await fetch(`http://127.0.0.1:${port}/hook`, {
    method: "POST",
    body,
    headers: {
      "content-type": "application/json",
      "x-github-event": "push",
      "x-github-delivery": `screenshot-${pushes}`,
      "x-hub-signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
    },
  });
  return ((await answer.json()) as { run: string }).run;
}

interface RunRecord {
  state: string;
  accepted: string;
  started: string;
  ended: string;
  seconds: number;
  stages?: object[];
}

const recordFile = (id: string) => join(dir, "state/runs", id, "run.json");

async function ended(id: string): Promise<RunRecord> {
  for (;;) {
    const text = await readFile(recordFile(id), "utf8").catch(() => "{}");
    const record = JSON.parse(text) as RunRecord;
    if (["succeeded", "failed"].includes(record.state)) return record;
    await sleep(20);
  }
}

/** Give a run of a few milliseconds the time it would have had at work, and its stages. */
async function spread(id: string, age: number, seconds: number): Promise<void> {
  const record = await ended(id);
  const begin = Date.now() - age * 1000;
  const time = (at: number) => new Date(begin + at * 1000).toISOString();
  const log = await readFile(join(dir, "state/runs", id, "log"), "utf8");
  const isGood = record.state === "succeeded";
  const names = ["npm ci", "npm run build", "npm test"];
  const shares = [0.25, 0.45, 0.3];
  let done = 0;
  const stages = names.map((name, index) => {
    const start = done;
    done += (shares[index] ?? 0) * seconds;
    const from = Buffer.byteLength(log.slice(0, log.indexOf(`\u001b[0m ${name}\n`) - 10));
    return {
      ...{ name, result: isGood || index < 2 ? "ok" : "failed", started: time(start) },
      ...{ seconds: done - start, from: Math.max(0, from) },
    };
  });
  const ends = [...stages.slice(1).map(({ from }) => from), Buffer.byteLength(log)];
  const whole = stages.map((stage, index) => ({ ...stage, to: ends[index] }));
  const changed = { accepted: time(-1), started: time(0), ended: time(seconds), seconds };
  await writeFile(recordFile(id), JSON.stringify({ ...record, ...changed, stages: whole }));
  const end = log.lastIndexOf("\n", log.length - 2) + 1;
  const last = log
    .slice(end)
    .replace(/^\S+/, time(seconds))
    .replace(/\([\d.]+ s\)/, `(${seconds.toFixed(1)} s)`);
  await writeFile(join(dir, "state/runs", id, "log"), log.slice(0, end) + last);
}

/** 30 runs of each repo; returns the newest of each. */
async function fill(): Promise<Map<string, string>> {
  const server = await startServer();
  const newest = new Map<string, string>();
  const times: [id: string, age: number, seconds: number][] = [];
  for (const [index, { name, seconds, failed }] of repos.entries())
    for (let n = 29; n >= 0; n--) {
      await writeFile(join(dir, "fail"), (failed as readonly number[]).includes(n) ? "yes" : "no");
      const id = await push(server, name);
      await ended(id);
      newest.set(name, id);
      const wave = 1 + 0.35 * Math.sin(n * 1.7 + index) + (n % 11 === 3 ? 0.9 : 0);
      times.push([id, 600 * (index + 1) + n * 5400 * (1 + index / 3), seconds * wave]);
    }
  await stopServer(server);
  for (const each of times) await spread(...each);
  return newest;
}

async function shoot(browser: Browser, server: Server, newest: Map<string, string>): Promise<void> {
  const broken = newest.get("harbour/tide-tables") ?? "";
  const shots = [
    { name: "overview", path: "/", scheme: "light", width: 1200, height: 560 },
    { name: "overview-dark", path: "/", scheme: "dark", width: 1200, height: 560 },
    { name: "run", path: `/runs/${broken}`, scheme: "light", width: 1200, height: 760 },
    { name: "run-dark", path: `/runs/${broken}`, scheme: "dark", width: 1200, height: 760 },
    { name: "repo", path: "/repos/harbour/tide-tables", scheme: "light", width: 1200, height: 640 },
    { name: "phone", path: "/", scheme: "light", width: 390, height: 780 },
  ] as const;
  const context = await browser.newContext();
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(`http://localhost:${server.port}/`);
  await page.fill("#secret", password);
  await page.press("#secret", "Enter");
  await page.waitForSelector("form[action='/sign-out']");
  for (const { name, path, scheme, width, height } of shots) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height });
    await page.goto(`http://localhost:${server.port}${path}`);
    if (path.startsWith("/runs/")) await page.waitForSelector(".window .row");
    await sleep(500);
    await page.screenshot({ path: join(images, `${name}.png`) });
  }
  await context.close();
}

let server: Server | undefined;
let browser: Browser | undefined;
try {
  await prepare();
  const newest = await fill();
  server = await startServer();
  // one that runs, and one that waits behind it
  await writeFile(join(dir, "fail"), "no");
  await writeFile(join(dir, "hold"), "");
  await push(server, "harbour/site");
  await sleep(4000);
  await push(server, "harbour/site");
  const { chromium } = await import("playwright-core");
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args });
  await shoot(browser, server, newest);
} finally {
  await browser?.close();
  await rm(join(dir, "hold"), { force: true });
  if (server) await stopServer(server);
  await rm(dir, { recursive: true, force: true });
}
