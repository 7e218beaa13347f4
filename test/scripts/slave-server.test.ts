import { mkdir, readdir, readFile, readlink, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { requestHeader, signRequest } from "../../lib/fleet/signature.ts";
import { lastDigitChanged } from "../helpers/hooks.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runCommand, type Running, runScript, startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const secret = "0123456789abcdef0123456789abcdef";

/** For slaves that fetch nothing. */
const nowhere = ["--base", "file:///nowhere"];

const servers: Running[] = [];
test.after(async () => {
  await Promise.all(servers.map((server) => server.stop("SIGKILL")));
});

async function startSlave(args: string[] = [], { repos = join(tempDir("slave-"), "repos"), config = "{}\n" } = {}) {
  const file = join(tempDir(), "slave.yml");
  await writeFile(file, config);
  const base = args.includes("--base") ? [] : nowhere;
  const flags = ["--config", file, "--repos", repos, "--listen", "127.0.0.1:0"];
  const open = config.includes("secret_file:") ? [] : ["--insecure"];
  const server = startScript("slave-server", [...flags, ...base, ...open, ...args]);
  servers.push(server);
  const [, port = ""] = await server.until(/listens on [^ ]*:(\d+),/);
  return { server, repos, port: Number(port) };
}

type Reply = { status: number; json: any; text: string };

/** One request, with any header and any address, also malformed ones. */
function ask(
  port: number,
  path: string,
  { method = "GET", headers = {} }: { method?: string; headers?: Record<string, string> } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => {
        const json = text.startsWith("{") ? JSON.parse(text) : undefined;
        resolve({ status: response.statusCode ?? 0, json, text });
      });
    });
    sent.on("error", reject);
    sent.end();
  });
}

const signed = (path: string, key = secret, now = Date.now(), target = "web-1") => ({
  headers: { [requestHeader]: signRequest({ secret: key }, { method: "GET", path, target }, now) },
});

async function ended(port: number, job: string): Promise<any> {
  return await waitFor(async () => {
    const { json } = await ask(port, `/jobs/${job}?wait=5s`);
    return json.state === "done" || json.state === "failed" ? json : undefined;
  });
}

async function repoWithBase() {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  return { repo, base: ["--base", `file://${dirname(repo.bare)}`] };
}

test("a request is answered at once, and the job tells the result", async () => {
  const { repo, base } = await repoWithBase();
  const { server, repos, port } = await startSlave(base);
  const first = await ask(port, "/get/?repo=site");
  assert.is(first.status, 202);
  assert.is(first.json.repo, "site");
  const done = await ended(port, first.json.job);
  const sha = await repo.git("rev-parse", "HEAD");
  assert.is(done.state, "done");
  assert.is(done.sha, sha);
  assert.type(done.seconds, "number");
  assert.is(await readFile(join(repos, "site/index.html"), "utf8"), "one");
  const second = await repo.push({ "index.html": "two" });
  const { json } = await ask(port, "/?repo=site", { method: "POST" });
  const again = await ended(port, json.job);
  assert.equal([again.before, again.sha], [sha, second]);
  const status = await ask(port, "/status?repo=site");
  assert.is(status.json.sha, second);
  assert.is(status.json.branch, "main");
  const pinned = await ask(port, `/get/?repo=site&sha=${sha}`);
  assert.is((await ended(port, pinned.json.job)).sha, sha);
  assert.is((await server.stop()).code, 0);
});

test("a connection that is used again and again costs nothing more each time", async () => {
  const { base } = await repoWithBase();
  const { server, port } = await startSlave(base);
  const { json } = await ask(port, "/get/?repo=site");
  await ended(port, json.job);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (let count = 0; count < 20; count++)
    await new Promise<void>((resolve, reject) => {
      const path = `/jobs/${json.job}?wait=1s`;
      const sent = request({ host: "127.0.0.1", port, path, agent }, (response) => {
        ports.add(response.socket.localPort);
        response.resume().once("end", resolve);
      });
      sent.once("error", reject).end();
    });
  agent.destroy();
  await server.stop();
  assert.is(ports.size, 1);
  assert.not.match(server.output(), "MaxListenersExceeded");
});

test("fifty requests at once are one run and one further run, and all are told its result", async () => {
  const { repo, base } = await repoWithBase();
  const gate = join(tempDir(), "gate");
  // the first run goes on until all have asked
  const config = `after: 'until test -e ${gate}; do sleep 0.02; done'\n`;
  const { port } = await startSlave(base, { config });
  const replies = await Promise.all(Array.from({ length: 50 }, () => ask(port, "/get/?repo=site")));
  await writeFile(gate, "");
  const jobs = new Set(replies.map(({ json }) => json.job));
  assert.ok(jobs.size <= 2, `${jobs.size} jobs`);
  const sha = await repo.git("rev-parse", "HEAD");
  const results = await Promise.all(replies.map(({ json }) => ended(port, json.job)));
  for (const { state, sha: got } of results) assert.equal([state, got], ["done", sha]);
});

test("a failed job says why", async () => {
  const { base } = await repoWithBase();
  const { port } = await startSlave(base);
  const { json } = await ask(port, "/get/?repo=nothere");
  const job = await ended(port, json.job);
  assert.is(job.state, "failed");
  assert.match(job.error, /nothere\.git/);
  assert.is((await ask(port, "/status?repo=nothere")).status, 404);
});

test("only GET and POST ask for an update; HEAD and the rest never do", async () => {
  const { repos, port } = await startSlave();
  for (const method of ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
    assert.is((await ask(port, "/get/?repo=site", { method })).status, 405, method);
  }
  assert.equal(await readdir(join(repos, ".boatyard/.server/jobs")), []);
});

test("without key and secret it starts for this machine alone, and only if one insists", async () => {
  const flags = ["--repos", tempDir(), ...nowhere];
  const { stderr } = await runScript("slave-server", [...flags, "--listen", "127.0.0.1:0"], { expect: 2 });
  assert.match(stderr, /neither master_key nor secret_file in slave\.yml; setup slave makes one.*--insecure/);
  for (const address of ["0.0.0.0:0", ":0", "[::]:0"]) {
    const wide = await runScript("slave-server", [...flags, "--insecure", "--listen", address], { expect: 2 });
    assert.match(wide.stderr, "--insecure is for 127.0.0.1 only", address);
  }
  const { server } = await startSlave();
  assert.match(server.output(), "INSECURE: whatever runs here");
});

test("with a secret, only fresh signed requests are taken, each one once, also after a restart", async () => {
  const { base } = await repoWithBase();
  const folder = tempDir();
  for (const name of ["old", "new"]) await writeFile(join(folder, name), `${name}-${secret}\n`, { mode: 0o600 });
  const config = `name: [web-1, web-1.example.com]\nsecret_file: [${folder}/new, ${folder}/old]\n`;
  const first = await startSlave(base, { config });
  const path = "/get/?repo=site";
  assert.is((await ask(first.port, path)).status, 401);
  assert.is((await ask(first.port, path, signed(path, "wrong"))).status, 401);
  assert.is((await ask(first.port, path, signed("/get/?repo=other", `new-${secret}`))).status, 401);
  const { headers } = signed(path, `new-${secret}`);
  const forged = { [requestHeader]: lastDigitChanged(headers[requestHeader] ?? "") };
  assert.is((await ask(first.port, path, { headers: forged })).status, 401);
  const late = await ask(first.port, path, signed(path, `new-${secret}`, Date.now() - 10 * 60_000));
  assert.is(late.status, 401);
  assert.match(late.json.error, /clock is 10 minutes behind/);
  const elsewhere = await ask(first.port, path, signed(path, `new-${secret}`, Date.now(), "web-2"));
  assert.is(elsewhere.status, 401);
  assert.match(elsewhere.json.error, "for another slave");
  await first.server.until(/for "web-2" came here, and this slave is called web-1/);
  const good = signed(path, `old-${secret}`);
  assert.is((await ask(first.port, path, good)).status, 202);
  assert.is((await ask(first.port, path, good)).status, 401);
  assert.is((await ask(first.port, path, signed(path, `new-${secret}`))).status, 202);
  assert.is((await ask(first.port, "/status?repo=site")).status, 401);
  const status = signed("/status", `new-${secret}`);
  assert.is((await ask(first.port, "/status", status)).status, 200);
  assert.is((await ask(first.port, "/status", status)).status, 200, "a read may be repeated");
  assert.is((await ask(first.port, "/healthz")).status, 200);
  first.server.kill("SIGKILL");
  await first.server.exited;
  const second = await startSlave(base, { config, repos: first.repos });
  const again = await ask(second.port, path, good);
  assert.is(again.status, 401);
  assert.match(again.json.error, /was sent before/);
});

test("an accepted update survives kill -9 of the server", async () => {
  const { repo, base } = await repoWithBase();
  const gate = join(tempDir(), "gate");
  const config = `after: 'until test -e ${gate}; do sleep 0.02; done'\n`;
  const first = await startSlave(base, { config });
  const one = await ask(first.port, "/get/?repo=site");
  await waitFor(() => readlink(join(first.repos, "site")));
  const sha = await repo.push({ "index.html": "two" });
  const two = await ask(first.port, "/get/?repo=site");
  first.server.kill("SIGKILL");
  await first.server.exited;
  await writeFile(gate, "");
  const second = await startSlave(base, { config, repos: first.repos });
  assert.is((await ended(second.port, one.json.job)).state, "done");
  assert.is((await ended(second.port, two.json.job)).sha, sha);
  await second.server.stop();
  const third = await startSlave(base, { config, repos: first.repos });
  assert.is((await ended(third.port, two.json.job)).sha, sha);
});

test("past the limit of the queue it says 429, and one that is waiting is still joined", async () => {
  const gate = join(tempDir(), "gate");
  const { base } = await repoWithBase();
  const config = `queue: 1\njobs: 1\nafter: 'until test -e ${gate}; do sleep 0.02; done'\n`;
  const { repos, port } = await startSlave(base, { config });
  await ask(port, "/get/?repo=site");
  await waitFor(() => readlink(join(repos, "site")));
  assert.is((await ask(port, "/get/?repo=other")).status, 202);
  const full = await ask(port, "/get/?repo=third");
  assert.is(full.status, 429);
  assert.is((await ask(port, "/get/?repo=other")).status, 202);
  await writeFile(gate, "");
});

test("a request that joins a waiting one, and cannot be written down, is refused and changes nothing", async () => {
  const { repo, base } = await repoWithBase();
  const first = await repo.git("rev-parse", "HEAD");
  const second = await repo.push({ "index.html": "two" });
  const state = tempDir();
  const go = join(state, "go");
  const config = `state: ${state}\ncheck: while [ ! -e ${go} ]; do sleep 0.05; done\n`;
  const { port } = await startSlave(base, { config });
  await ask(port, "/get/?repo=site");
  const waiting = await ask(port, `/get/?repo=site&sha=${first}`);
  await rename(join(state, "jobs"), join(state, "away"));
  const joined = await ask(port, `/get/?repo=site&sha=${second}`);
  assert.is(joined.status, 503);
  assert.match(joined.json.error, "could not be recorded");
  await rename(join(state, "away"), join(state, "jobs"));
  await writeFile(go, "");
  assert.is((await ended(port, waiting.json.job)).sha, first);
});

test("an update that takes too long is ended with all that it started", async () => {
  const { base } = await repoWithBase();
  const config = "timeout: 1s\nafter: 'sleep 300'\n";
  const { port } = await startSlave(base, { config });
  const { json } = await ask(port, "/get/?repo=site");
  const job = await ended(port, json.job);
  assert.is(job.state, "failed");
  assert.match(job.error, /took longer than/);
});

test("only allowed repos, and nothing but names", async () => {
  const { port } = await startSlave(["--allow", "site,app-*"]);
  assert.is((await ask(port, "/get/?repo=other")).status, 403);
  assert.is((await ask(port, "/get/?repo=app-x")).status, 202);
  assert.is((await ask(port, "/get/?repo=")).status, 400);
  assert.is((await ask(port, "/get/?repo=site&repo=app-x")).status, 400);
  assert.is((await ask(port, "/get/?repo=site&sha=HEAD")).status, 400);
});

test("hostile names and addresses make no file, no process and no crash", async () => {
  const outside = tempDir();
  const { server, repos, port } = await startSlave(["--allow", "nothing"], {
    repos: join(outside, "repos"),
  });
  const before = (await readdir(outside)).sort();
  const seeds = [
    "../../x",
    "/etc/passwd",
    "--upload-pack=touch x",
    "ext::sh",
    "a\0b",
    "%2e%2e%2f",
    "x.git",
    "$(id)",
    "`id`",
    ";id",
    "__proto__",
    "constructor",
    "con%0d%0aX: y",
    "é",
    "x".repeat(101),
    ".",
    "..",
    "~root",
    "*",
    "{a,b}",
  ];
  const paths = seeds.flatMap((seed) => [
    `/get/?repo=${encodeURIComponent(seed)}`,
    `/?repo=site&sha=${encodeURIComponent(seed)}`,
    `/jobs/${encodeURIComponent(seed)}`,
    `/status?repo=${encodeURIComponent(seed)}`,
    `/${encodeURIComponent(seed)}?repo=site`,
    `/get/${encodeURIComponent(seed)}`,
  ]);
  for (const path of paths) {
    const { status, json } = await ask(port, path);
    assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
    assert.type(json.error, "string");
  }
  for (const line of [
    "GET http://evil/get/?repo=site HTTP/1.1",
    "GET * HTTP/1.1",
    "GET //x HTTP/1.1",
    "\0\0",
    "GET /\\..\\..\\etc HTTP/1.1",
  ]) {
    assert.not.match(await raw(port, `${line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n`), " 202 ");
  }
  assert.is((await ask(port, "/healthz")).status, 200);
  assert.equal((await readdir(outside)).sort(), before);
  assert.equal((await readdir(repos)).sort(), [".boatyard"]);
  assert.equal(await readdir(join(repos, ".boatyard")), [".server"]);
  assert.not.match(server.stderr(), /at .*\.(?:ts|mjs):\d+/);
});

/** Bytes as they are; what comes back. */
function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.end(text));
    let answer = "";
    socket.on("data", (chunk) => {
      answer += String(chunk);
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(answer));
  });
}

test("the file it is given is served at /, and without one it says what it is", async () => {
  const file = join(tempDir(), "hello.html");
  await writeFile(file, "<h1>hello</h1>");
  const { port } = await startSlave([file]);
  assert.is((await ask(port, "/")).text, "<h1>hello</h1>");
  await rm(file);
  assert.is((await ask(port, "/")).text, "<h1>hello</h1>", "it was read once");
  const { code } = await runScript("slave-server", [file, "--repos", tempDir()]);
  assert.is(code, 2);
});

test("where it cannot listen, nothing that waits is begun", async () => {
  const { base } = await repoWithBase();
  const { port } = await startSlave();
  const repos = join(tempDir("slave-"), "repos");
  const jobs = join(repos, ".boatyard/.server/jobs");
  await mkdir(jobs, { recursive: true });
  const job = "20261120T101500Z-3f2a9c";
  const text = JSON.stringify({ job, repo: "site", state: "queued", at: "" });
  await writeFile(join(jobs, `${job}.json`), text);
  const flags = ["--repos", repos, "--insecure", "--listen", `127.0.0.1:${port}`, ...base];
  const { stderr } = await runScript("slave-server", flags, { expect: 2 });
  assert.match(stderr, "cannot listen on");
  assert.is(await readFile(join(jobs, `${job}.json`), "utf8"), text);
});

test("a second server on the same folder is told that it is busy", async () => {
  const { repos } = await startSlave();
  const { code, stderr } = await runScript("slave-server", [
    "--repos",
    repos,
    "--insecure",
    "--listen",
    "127.0.0.1:0",
    ...nowhere,
  ]);
  assert.is(code, 3);
  assert.match(stderr, /locked by process/);
});

test("what is no plain small file is refused at the start, and nothing waits for it", async () => {
  const folder = tempDir();
  const outside = join(tempDir(), "secret");
  await writeFile(outside, "x");
  await symlink(outside, join(folder, "link"));
  await runCommand(["mkfifo", join(folder, "fifo")], { expect: 0 });
  await writeFile(join(folder, "big"), "");
  await truncate(join(folder, "big"), 64 * 1024 * 1024);
  for (const name of ["link", "fifo", "big", "."]) {
    const args = [join(folder, name), "--repos", tempDir(), "--listen", "127.0.0.1:0"];
    const server = startScript("slave-server", args);
    const { code, stderr } = await Promise.race([
      server.exited,
      server.until(/listens on/).then(async () => await server.stop("SIGKILL")),
    ]);
    assert.is(code, 2, `${name}: ${stderr}`);
    assert.match(stderr, `slave-server: ${join(folder, name)} `);
  }
});

test("an old plain folder is known to the status", async () => {
  const { repo, base } = await repoWithBase();
  const { repos, port } = await startSlave(base);
  await repo.checkout(join(repos, "site"));
  const { status, json } = await ask(port, "/status?repo=site");
  assert.is(status, 200);
  assert.is(json.plain, true);
});

test("Prometheus is let in with its own token, and with nothing else", async () => {
  const { base } = await repoWithBase();
  const folder = tempDir();
  await writeFile(join(folder, "secret"), `${secret}\n`, { mode: 0o600 });
  await writeFile(join(folder, "token"), "token-of-prometheus\n", { mode: 0o600 });
  const config = `name: web-1\nsecret_file: ${folder}/secret\nmetrics_token_file: ${folder}/token\n`;
  const { port } = await startSlave(base, { config });
  const path = "/get/?repo=site";
  const { json } = await ask(port, path, signed(path));
  const job = `/jobs/${json.job}?wait=20s`;
  await ask(port, job, signed(job));
  for (const authorization of ["", "Bearer wrong", `Bearer ${secret}`])
    assert.is((await ask(port, "/metrics", { headers: { authorization } })).status, 401);
  const token = { headers: { authorization: "Bearer token-of-prometheus" } };
  assert.is((await ask(port, "/status", token)).status, 401, "it is for this alone");
  const { status, text } = await ask(port, "/metrics", token);
  assert.is(status, 200);
  assert.match(text, /^boatyard_slave_jobs_finished_total\{result="done"\} 1$/m);
  assert.match(text, /^boatyard_slave_repo_info\{repo="site",sha="[0-9a-f]{40}",branch="main"\} 1$/m);
  assert.match(text, /^boatyard_slave_free_bytes \d{6,}$/m);
});

test.run();
