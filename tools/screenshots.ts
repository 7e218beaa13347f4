// Makes docs/images/: the page of a real hook-server with real runs, in Debian's chromium. What ran within seconds is
// spread over the days before, so that ages and durations look as they do at work; what a fleet and web folders serve is
// made up. Run: npm run screenshots
import { createHmac } from "node:crypto";
import { appendFile, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { spawn, type ChildProcess } from "node:child_process";
import type { Browser } from "playwright-core";
import { encode } from "../lib/run-store/file-store.ts";
import type { Run } from "../lib/run-store/run-store.ts";

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

/** What each run does: output with colours, and stages told of as `build` tells of them. */
const job = `#!/bin/sh
tell() {
  at=$(stat -Lc %s /proc/$$/fd/1)
  echo "{\\"time\\":\\"$(date -u +%FT%T.%3NZ)\\",\\"name\\":\\"$1\\",\\"at\\":$at$2}" >> "$BOATYARD_STAGES"
}
stage() {
  test -z "$now" || tell "$now" ',"result":"ok","seconds":0'
  now=$1
  tell "$now"
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
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text, { mode: 0o600 });
  await chmod(join(dir, "job"), 0o755);
  const lines = repos.map(
    ({ name }) =>
      `  ${name}: { dir: co, secret_file: secret, refs: [main], poll: false, on: { push: ${dir}/job, release: false } }`,
  );
  const top = [
    "listen: 127.0.0.1:0",
    "state: state",
    "concurrency: 1",
    "status: { password_file: password }",
    "url: http://localhost",
    "fleet: { list: slaves.txt, state: fleet }",
    `releases: [${Object.keys(offers).join(", ")}]`,
    "",
  ].join("\n");
  await writeFile(join(dir, "hooks.yml"), `${top}repos:\n${lines.join("\n")}\n`);
}

/** What the web folders of /releases offer. */
const offers = {
  "tide-table": {
    version: "2.4.1",
    release: "Neap",
    age: 3,
    sizes: { "gnu-linux": 6.1, macos: 6.4 },
  },
  moorings: { version: "0.9.0", release: "Bollard", age: 19, sizes: { "gnu-linux": 12.8 } },
};

/** What `server-update --status` would have left, and web folders as `release pack` makes them. */
async function prepareFleet(): Promise<void> {
  const time = (days: number) => new Date(Date.now() - days * 86_400_000).toISOString();
  await writeFile(join(dir, "slaves.txt"), "quay-1.example.org\nquay-2.example.org\n");
  const commit = (n: number) => createHmac("sha1", "fleet").update(String(n)).digest("hex");
  const served = (repo: string, n: number, since: number, drift = "") => ({
    ...{ repo, sha: commit(n), branch: "main", since: time(since), drift },
    wanted: commit(drift === "" ? n : n + 1),
  });
  const hosts = [
    { target: "quay-1.example.org", repos: [served("site", 1, 0.2), served("tide-tables", 2, 6)] },
    {
      target: "quay-2.example.org",
      repos: [served("site", 1, 0.2), served("tide-tables", 1, 9, "DIFFERS: an older commit")],
    },
    { target: "buoy.example.org", repos: [served("site", 1, 0.2), served("tide-tables", 2, 6)] },
  ];
  await mkdir(join(dir, "fleet/status"), { recursive: true });
  const snapshot = { time: time(0.003), list: join(dir, "slaves.txt"), hosts };
  await writeFile(join(dir, "fleet/status/all.json"), JSON.stringify(snapshot));
  for (const [app, { version, release, age, sizes }] of Object.entries(offers)) {
    const lines = Object.entries(sizes).flatMap(([platform, size]) => [
      `CURRENT ${version} ${app}-${platform}-${version}.tar.gz`,
      `PLATFORM ${platform}`,
      `SHA256 ${createHmac("sha256", app).update(platform).digest("hex")}`,
      `SIZE ${Math.round(size * 1024 * 1024)}`,
    ]);
    const about = [`APP ${app}`, `RELEASE ${release}`, `DATE ${time(age)}`, `EXPIRES ${time(-60)}`];
    await mkdir(join(dir, app));
    await writeFile(join(dir, app, "VERSION"), `${[...lines, ...about].join("\n")}\n`);
  }
}

interface Server {
  readonly child: ChildProcess;
  readonly port: number;
}

async function startServer(): Promise<Server> {
  const argv = ["--import", "tsx", join(root, "scripts/hook-server.ts"), "--config", join(dir, "hooks.yml")];
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

const recordsFile = join(dir, "state/runs.jsonl");

/** All lines of the server's runs. */
async function recordLines(): Promise<{ runs?: Run[] }[]> {
  const text = await readFile(recordsFile, "utf8").catch(() => "");
  return text
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { runs?: Run[] });
}

async function ended(id: string): Promise<Run> {
  for (;;) {
    const run = (await recordLines()).flatMap(({ runs = [] }) => runs).findLast((each) => each.id === id);
    if (run?.state === "succeeded" || run?.state === "failed") return run;
    await sleep(20);
  }
}

/** Give a run of a few milliseconds, and its stages, the time they would have had at work. */
async function spread(id: string, age: number, seconds: number): Promise<void> {
  const record = await ended(id);
  const begin = Date.now() - age * 1000;
  const time = (at: number) => new Date(begin + at * 1000).toISOString();
  const shares = [0.25, 0.45, 0.3];
  let done = 0;
  const stages = (record.stages ?? []).map((stage, index) => {
    const started = time(done);
    const taken = (shares[index] ?? 0) * seconds;
    done += taken;
    return { ...stage, started, seconds: taken };
  });
  const changed = { accepted: time(-1), started: time(0), ended: time(seconds), seconds };
  const n = (await recordLines()).length + 1;
  await appendFile(recordsFile, encode({ n, runs: [{ ...record, ...changed, stages }] }));
  const log = await readFile(join(dir, "state/runs", id, "log"), "utf8");
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
    { name: "fleet", path: "/fleet", scheme: "light", width: 1200, height: 460 },
    { name: "releases", path: "/releases", scheme: "light", width: 1200, height: 460 },
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
  await prepareFleet();
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
