// The README's first command: from a push to a built repo, for real, in a temporary folder.
// A bare git repository plays the forge, and this file signs its deliveries as GitHub does.
import { execFile, spawn } from "node:child_process";
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { access, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { createTerminal } from "../lib/terminal.ts";

const { paint, print } = createTerminal();
const root = fileURLToPath(new URL("../", import.meta.url));
const hookServer = join(root, "dist/hook-server.mjs");
const repo = "ada/harbour";
const started = Date.now();

const folder = await mkdtemp(join(tmpdir(), "boatyard-demo-"));
const place = (...names: string[]) => join(folder, ...names);
/** Nobody's git configuration, and a name for the commits. */
const env = {
  ...process.env,
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_AUTHOR_NAME: "Ada",
  GIT_AUTHOR_EMAIL: "ada@example.com",
  GIT_COMMITTER_NAME: "Ada",
  GIT_COMMITTER_EMAIL: "ada@example.com",
};
const end = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => end.abort());

try {
  await demo();
} catch (error) {
  if (!end.signal.aborted) print(`${paint.red("failed")} ${String(error)}`);
  process.exitCode = 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function demo(): Promise<void> {
  await access(hookServer).catch(() => Promise.reject(new Error("no bundles: npm run bundle")));

  title("The forge: a bare git repository. The server: a checkout, a secret, hooks.yml");
  await git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "forge.git");
  await git(folder, "clone", "--quiet", "forge.git", "developer");
  await git(folder, "clone", "--quiet", "forge.git", "server");
  const secret = randomBytes(32).toString("hex");
  await writeFile(place("secret"), `${secret}\n`, { mode: 0o600 });
  const port = await freePort();
  const config = [
    "repos:",
    `  ${repo}:`,
    `    dir: ${place("server")}`,
    `    secret_file: ${place("secret")}`,
    "    on: { release: false }",
  ];
  await writeFile(place("hooks.yml"), `${config.join("\n")}\n`);
  const options = ["--config", "hooks.yml", "--state", "state", "--listen", `127.0.0.1:${port}`];
  const server = spawn(process.execPath, [hookServer, ...options], { cwd: folder, stdio: "pipe" });
  let words = "";
  for (const stream of [server.stdout, server.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => (words += text));
  }
  const ended = new Promise<number | null>((resolve) => server.on("exit", resolve));
  try {
    const url = `http://127.0.0.1:${port}`;
    await until(
      "hook-server answers",
      async () => (await fetch(`${url}/healthz`)).ok,
      () => words,
    );
    say(`hook-server listens on ${url}/hook`);

    title("A developer pushes a literate program");
    await cp(join(root, "tools/demo"), place("developer"), { recursive: true });
    const first = await push("Two ships");
    say(`project.md and lprc.js, commit ${first.slice(0, 7)}`);

    title("A stranger, who knows of it but not the secret");
    const refused = await deliver(`${url}/hook`, "a guess", first);
    say(`POST /hook, wrongly signed: ${refused.status} ${refused.text}`);

    title("The forge, which signs: the push is built, and logs.txt tells");
    await pushed(`${url}/hook`, secret, first);

    title("A third ship comes in: another push");
    const source = await readFile(place("developer/project.md"), "utf8");
    await writeFile(
      place("developer/project.md"),
      source.replace('"Beagle"]', '"Beagle", "Calypso"]'),
    );
    await pushed(`${url}/hook`, secret, await push("A third ship"));
  } finally {
    server.kill("SIGTERM");
    const code = await ended;
    title(`hook-server has ended with ${code}; ${folder} is removed`);
    if (code !== 0) print(words);
  }
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  print(`\n${paint.green("done")} in ${seconds} s. For a server of your own: README.md and docs/`);
}

/** Commits all changes and pushes them; returns the commit. */
async function push(message: string): Promise<string> {
  const dir = place("developer");
  await git(dir, "add", "--all");
  await git(dir, "commit", "--quiet", "-m", message);
  await git(dir, "push", "--quiet", "origin", "main");
  return (await git(dir, "rev-parse", "HEAD")).trim();
}

/** Sends a push's delivery, shows the log while the run lasts, and what the built program says. */
async function pushed(url: string, secret: string, sha: string): Promise<void> {
  const { status, text } = await deliver(url, secret, sha);
  say(`POST /hook, signed: ${status} ${text}`);
  const { run } = JSON.parse(text) as { run: string };
  let shown = 0;
  const log = place("server/logs.txt");
  await until("the run ends", async () => {
    const lines = (await readFile(log, "utf8")).split("\n").filter((line) => line.includes(run));
    for (; shown < lines.length; shown++) say(paint.dim(lines[shown]?.replace(` ${run}`, "")));
    return lines.some((line) => line.includes(`${run} run | end `));
  });
  const built = await promisify(execFile)(process.execPath, [place("server/build/harbour.js")]);
  say(`build/harbour.js says: ${paint.bold(built.stdout.trim())}`);
}

/** A delivery as GitHub sends it for a push. */
async function deliver(url: string, secret: string, sha: string) {
  const body = JSON.stringify({
    ref: "refs/heads/main",
    before: "0".repeat(40),
    after: sha,
    deleted: false,
    repository: { full_name: repo, clone_url: place("forge.git"), default_branch: "main" },
    head_commit: { id: sha },
    pusher: { name: "ada" },
  });
  const headers = {
    "Content-Type": "application/json",
    "User-Agent": "GitHub-Hookshot/demo",
    "X-GitHub-Event": "push",
    "X-GitHub-Delivery": randomUUID(),
    "X-Hub-Signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
  };
  const answer = await fetch(url, { method: "POST", headers, body, signal: end.signal });
  return { status: answer.status, text: (await answer.text()).trim() };
}

async function git(dir: string, ...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)("git", args, { cwd: dir, env, signal: end.signal });
  return stdout;
}

/** Asks until the answer is yes; an error is a no. Gives up after a minute. */
async function until(what: string, condition: () => Promise<boolean>, hint = () => "") {
  for (let tries = 0; tries < 600; tries++) {
    if (await condition().catch(() => false)) return;
    await sleep(100, undefined, { signal: end.signal });
  }
  throw new Error(`waited in vain until ${what}. ${hint()}`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address ? address.port : 0;
}

function title(text: string): void {
  print(`\n${paint.cyan("▶")} ${paint.bold(text)}`);
}

function say(text: string): void {
  print(`  ${text}`);
}
