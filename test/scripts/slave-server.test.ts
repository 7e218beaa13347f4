import { mkdir, readdir, readFile, readlink, rename, rm, writeFile } from "node:fs/promises";
import { Agent, request } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { keyOfSecret } from "../../lib/fleet/keys.ts";
import { contentOf, letterHeader, seal } from "../../lib/fleet/letter.ts";
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

/** The header of an order, or of a question. */
function letter(
  content: { kind?: "order" | "question"; repo?: string; sha?: string; at?: number; to?: string },
  by = secret,
): Record<string, string> {
  const { kind = "question", at = Date.now(), to = "web-1", ...more } = content;
  const order = kind === "order" ? { run: "20261120T100000Z-3f2a9c" } : {};
  return { [letterHeader]: seal({ ...more, ...order, kind, to, at, until: at + 300_000 }, keyOfSecret(by, "")) };
}

/** What a slave that nobody has to sign for says of a repo. */
async function statusOf(port: number, repo: string): Promise<any> {
  return (await ask(port, `/status?repo=${repo}&wait=5s`)).json.repos[0];
}

/** What became of the last order for a repo. */
async function ended(port: number, repo = "site"): Promise<any> {
  return await waitFor(async () => {
    const { order } = await statusOf(port, repo);
    return order.state === "done" || order.state === "failed" ? order : undefined;
  });
}

async function repoWithBase() {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  return { repo, base: ["--base", `file://${dirname(repo.bare)}`] };
}

test("a request is answered at once, and the status tells the result", async () => {
  const { repo, base } = await repoWithBase();
  const { server, repos, port } = await startSlave(base);
  const first = await ask(port, "/get/?repo=site");
  assert.is(first.status, 202);
  assert.is(first.json.repo, "site");
  const done = await ended(port);
  const sha = await repo.git("rev-parse", "HEAD");
  assert.is(done.state, "done");
  assert.is(done.sha, sha);
  assert.type(done.seconds, "number");
  assert.is(await readFile(join(repos, "site/index.html"), "utf8"), "one");
  const second = await repo.push({ "index.html": "two" });
  await ask(port, "/?repo=site", { method: "POST" });
  const again = await ended(port);
  assert.equal([again.before, again.sha], [sha, second]);
  const status = await statusOf(port, "site");
  assert.is(status.sha, second);
  assert.is(status.branch, "main");
  await ask(port, `/get/?repo=site&sha=${sha}`);
  assert.is((await ended(port)).sha, sha);
  assert.is((await server.stop()).code, 0);
});

test("a connection that is used again and again costs nothing more each time", async () => {
  const { base } = await repoWithBase();
  const { server, port } = await startSlave(base);
  await ask(port, "/get/?repo=site");
  await ended(port);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number | undefined>();
  for (let count = 0; count < 20; count++)
    await new Promise<void>((resolve, reject) => {
      const path = "/status?repo=site&wait=1s";
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

test("fifty requests at once are one run and one further run, and the last one counts", async () => {
  const { repo, base } = await repoWithBase();
  const gate = join(tempDir(), "gate");
  const first = await repo.git("rev-parse", "HEAD");
  await repo.push({ "index.html": "two" });
  // the first run goes on until all have asked
  const config = `after: 'echo run >> ${gate}.runs; until test -e ${gate}; do sleep 0.02; done'\n`;
  const { port } = await startSlave(base, { config });
  await ask(port, "/get/?repo=site");
  await waitFor(() => readFile(`${gate}.runs`));
  await Promise.all(Array.from({ length: 50 }, () => ask(port, "/get/?repo=site")));
  await ask(port, `/get/?repo=site&sha=${first}`);
  await writeFile(gate, "");
  assert.is((await ended(port)).sha, first);
  assert.is(await readFile(`${gate}.runs`, "utf8"), "run\nrun\n");
});

test("an update that failed says why", async () => {
  const { base } = await repoWithBase();
  const { port } = await startSlave(base);
  await ask(port, "/get/?repo=nothere");
  const { state, error } = await ended(port, "nothere");
  assert.is(state, "failed");
  assert.match(error, /nothere\.git/);
  assert.match((await statusOf(port, "nothere")).error, /nothere\.git/);
});

test("only GET and POST ask for an update; HEAD and the rest never do", async () => {
  const { repos, port } = await startSlave();
  for (const method of ["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]) {
    assert.is((await ask(port, "/get/?repo=site", { method })).status, 405, method);
  }
  assert.equal(await readdir(join(repos, ".boatyard/.server/desired-state")), []);
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

test("with a secret, only fresh signed letters are taken, an order once, also after a restart", async () => {
  const { repo, base } = await repoWithBase();
  const sha = await repo.git("rev-parse", "HEAD");
  const next = await repo.push({ "index.html": "two" });
  const folder = tempDir();
  for (const name of ["old", "new"]) await writeFile(join(folder, name), `${name}-${secret}\n`, { mode: 0o600 });
  const config = `name: [web-1, web-1.example.com]\nsecret_file: [${folder}/new, ${folder}/old]\n`;
  const first = await startSlave(base, { config });
  const path = "/get/?repo=site";
  const order = (more: object = {}, by = `new-${secret}`) => letter({ kind: "order", repo: "site", sha, ...more }, by);
  const send = (headers: Record<string, string>, port = first.port) => ask(port, path, { headers });
  assert.is((await send({})).status, 401);
  assert.is((await send(order({}, `wrong-${secret}`))).status, 401);
  assert.is((await send(order({ repo: "other" }))).status, 400);
  const forged = (order()[letterHeader] ?? "").replace(
    /\.(.)(?=[^.]+$)/,
    (_, first) => `.${first === "A" ? "B" : "A"}`,
  );
  assert.is((await send({ [letterHeader]: forged })).status, 401);
  const late = await send(order({ at: Date.now() - 10 * 60_000 }));
  assert.is(late.status, 401);
  assert.match(late.json.error, /the order was good until .*, and the clock here says/);
  const early = await send(order({ at: Date.now() + 10 * 60_000 }));
  assert.match(early.json.error, /the order was written at .*, and the clock here says .*set both clocks/);
  const elsewhere = await send(order({ to: "web-2" }));
  assert.is(elsewhere.status, 401);
  assert.match(
    elsewhere.json.error,
    "for another slave, web-2; this one is called web-1, web-1.example.com: see name:",
  );
  const good = order({ at: Date.now() - 2000 }, `old-${secret}`);
  assert.is((await send(good)).status, 202);
  assert.is((await send(good)).status, 202, "the same again is the same");
  const newer = order({ sha: next });
  assert.is((await send(newer)).status, 202);
  assert.is((await send(good)).status, 401);
  const question = letter({}, `new-${secret}`);
  assert.is((await ask(first.port, "/status?repo=site")).status, 401);
  assert.is((await ask(first.port, "/status", { headers: order() })).status, 401, "an order is no question");
  assert.is((await send(question)).status, 401, "nor the other way round");
  for (const again of ["once", "a read may be repeated"]) {
    const { status, json } = await ask(first.port, "/status", { headers: question });
    assert.is(status, 200, again);
    assert.is(contentOf(json.letter)["name"], "web-1");
  }
  assert.is((await ask(first.port, "/healthz")).status, 200);
  first.server.kill("SIGKILL");
  await first.server.exited;
  const second = await startSlave(base, { config, repos: first.repos });
  const again = await send(good, second.port);
  assert.is(again.status, 401);
  assert.match(again.json.error, /not newer than the last one taken/);
  assert.is((await send(newer, second.port)).status, 202);
});

test("a secret that could be guessed is refused at the start", async () => {
  const folder = tempDir();
  await writeFile(join(folder, "secret"), "0123456789abcdef0123456789abcde\n", { mode: 0o600 });
  await writeFile(join(folder, "slave.yml"), "secret_file: secret\n");
  const flags = ["--config", join(folder, "slave.yml"), "--repos", folder, ...nowhere];
  const { stderr } = await runScript("slave-server", flags, { expect: 2 });
  assert.match(stderr, /slave\.yml:1:.*: a secret is shorter than 32 characters; make one with: openssl rand -hex 32/);
});

test("an accepted update survives kill -9 of the server, and the last one counts", async () => {
  const { repo, base } = await repoWithBase();
  const gate = join(tempDir(), "gate");
  const config = `after: 'until test -e ${gate}; do sleep 0.02; done'\n`;
  const first = await startSlave(base, { config });
  await ask(first.port, "/get/?repo=site");
  await waitFor(() => readlink(join(first.repos, "site")));
  const sha = await repo.push({ "index.html": "two" });
  await ask(first.port, `/get/?repo=site&sha=${sha}`);
  first.server.kill("SIGKILL");
  await first.server.exited;
  await writeFile(gate, "");
  const second = await startSlave(base, { config, repos: first.repos });
  assert.is((await ended(second.port)).sha, sha);
  await second.server.stop();
  const third = await startSlave(base, { config, repos: first.repos });
  assert.is((await ended(third.port)).sha, sha);
});

test("an order that cannot be written down is refused and changes nothing", async () => {
  const { repo, base } = await repoWithBase();
  const first = await repo.git("rev-parse", "HEAD");
  const second = await repo.push({ "index.html": "two" });
  const state = tempDir();
  const go = join(state, "go");
  const config = `state: ${state}\ncheck: while [ ! -e ${go} ]; do sleep 0.05; done\n`;
  const { port } = await startSlave(base, { config });
  await ask(port, "/get/?repo=site");
  await ask(port, `/get/?repo=site&sha=${first}`);
  await rename(join(state, "desired-state"), join(state, "away"));
  const refused = await Promise.all([1, 2, 3].map(() => ask(port, `/get/?repo=site&sha=${second}`)));
  for (const { status, json } of refused) {
    assert.is(status, 503);
    assert.match(json.error, "could not be recorded");
  }
  await rename(join(state, "away"), join(state, "desired-state"));
  await writeFile(go, "");
  assert.is((await ended(port)).sha, first);
});

test("a damaged file of the desired state is no empty one: old orders would be new again", async () => {
  const state = tempDir();
  await mkdir(join(state, "desired-state"));
  await writeFile(join(state, "desired-state/site.json"), "{");
  const file = join(tempDir(), "slave.yml");
  await writeFile(file, `state: ${state}\n`);
  const flags = ["--config", file, "--repos", tempDir(), "--insecure", "--listen", "127.0.0.1:0", ...nowhere];
  const { stderr } = await runScript("slave-server", flags, { expect: 1 });
  assert.match(stderr, /site\.json is damaged .*; it says which orders are old/);
});

test("an update that takes too long is ended with all that it started", async () => {
  const { base } = await repoWithBase();
  const config = "timeout: 1s\nafter: 'sleep 300'\n";
  const { port } = await startSlave(base, { config });
  await ask(port, "/get/?repo=site");
  const { state, error } = await ended(port);
  assert.is(state, "failed");
  assert.match(error, /took longer than/);
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
    `/${encodeURIComponent(seed)}`,
    `/status?repo=${encodeURIComponent(seed)}`,
    `/${encodeURIComponent(seed)}?repo=site`,
    `/get/${encodeURIComponent(seed)}`,
  ]);
  for (const path of paths) {
    const { status, json } = await ask(port, path);
    // a name that is one is asked for in vain
    if (status === 200 && json.repos?.length === 0) continue;
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
  const folder = join(repos, ".boatyard/.server/desired-state");
  await mkdir(folder, { recursive: true });
  const order = { repo: "site", digest: "d", at: 1, until: 2, run: "r" };
  const text = JSON.stringify({ order, state: "queued" });
  await writeFile(join(folder, "site.json"), text);
  const flags = ["--repos", repos, "--insecure", "--listen", `127.0.0.1:${port}`, ...base];
  const { stderr } = await runScript("slave-server", flags, { expect: 2 });
  assert.match(stderr, "cannot listen on");
  assert.is(await readFile(join(folder, "site.json"), "utf8"), text);
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

test("what is no plain file is refused at the start, and nothing waits for it", async () => {
  const folder = tempDir();
  await runCommand(["mkfifo", join(folder, "fifo")], { expect: 0 });
  for (const name of ["fifo", "."]) {
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
  assert.is((await statusOf(port, "site")).plain, true);
});

test("Prometheus is let in with its own token, and with nothing else", async () => {
  const { repo, base } = await repoWithBase();
  const folder = tempDir();
  await writeFile(join(folder, "secret"), `${secret}\n`, { mode: 0o600 });
  await writeFile(join(folder, "token"), "token-of-prometheus\n", { mode: 0o600 });
  const config = `name: web-1\nsecret_file: ${folder}/secret\nmetrics_token_file: ${folder}/token\n`;
  const { repos, port } = await startSlave(base, { config });
  const sha = await repo.git("rev-parse", "HEAD");
  await ask(port, "/get/?repo=site", { headers: letter({ kind: "order", repo: "site", sha }) });
  await waitFor(() => readlink(join(repos, "site")));
  await waitFor(async () => (await ask(port, "/healthz")).json.running === 0);
  for (const authorization of ["", "Bearer wrong", `Bearer ${secret}`])
    assert.is((await ask(port, "/metrics", { headers: { authorization } })).status, 401);
  const token = { headers: { authorization: "Bearer token-of-prometheus" } };
  assert.is((await ask(port, "/status", token)).status, 401, "it is for this alone");
  const { status, text } = await ask(port, "/metrics", token);
  assert.is(status, 200);
  assert.match(text, /^boatyard_slave_updates_finished_total\{result="done"\} 1$/m);
  assert.match(text, /^boatyard_slave_repo_info\{repo="site",sha="[0-9a-f]{40}",branch="main"\} 1$/m);
  assert.match(text, /^boatyard_slave_free_bytes \d{6,}$/m);
});

test.run();
