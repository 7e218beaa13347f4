// Who can have a slave do what: orders and requests that were taken down on their way, and answers that somebody else gives.
import { Buffer } from "node:buffer";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { keyOfSecret, readPrivateKey, writeKey } from "../../lib/fleet/keys.ts";
import { contentOf, type Letter, letterHeader, seal } from "../../lib/fleet/letter.ts";
import { makeRepo } from "../helpers/repos.ts";
import { type Running, runScript, startScript } from "../helpers/run.ts";
import { fakeSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const secret = "0123456789abcdef0123456789abcdef";
const servers: Running[] = [];
test.after.each(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop("SIGKILL")));
});

/** A master with a key and a secret, and a repo. */
async function setUp() {
  const dir = tempDir("orders-");
  const { publicKey } = await writeKey(join(dir, "key"));
  await writeFile(join(dir, "secret"), `${secret}\n`, { mode: 0o600 });
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const sha = await repo.git("rev-parse", "HEAD");
  const key = await readPrivateKey(join(dir, "key"));
  const base = `file://${dirname(repo.bare)}`;
  const slave = async (name: string, more = "", folder = name) => {
    const config = join(dir, `${folder}.yml`);
    const text = `name: ${name}\nbase: ${base}\n${more || `master_key: ${publicKey}`}\n`;
    await writeFile(config, text);
    const repos = join(dir, folder);
    const flags = ["--config", config, "--repos", repos, "--listen", "127.0.0.1:0"];
    const server = startScript("slave-server", flags);
    servers.push(server);
    const [, port = ""] = await server.until(/listens on 127\.0\.0\.1:(\d+)/);
    return { server, repos, port: Number(port) };
  };
  const update = async (lines: string[], args: string[]) => {
    await writeFile(join(dir, "list"), `${lines.join("\n")}\n`);
    const all = ["site", "--list", join(dir, "list"), "--base", base, "--json", ...args];
    const done = await runScript("server-update", all, { env: { XDG_STATE_HOME: dir } });
    const lineOf = (text: string) => JSON.parse(text) as Record<string, string>;
    return { ...done, objects: done.stdout.trim().split("\n").map(lineOf) };
  };
  const byKey = ["--key-file", join(dir, "key")];
  const bySecret = ["--secret-file", join(dir, "secret")];
  const orderOf = (more: Partial<Letter> = {}, by = key) => {
    const at = more.at ?? Date.now();
    const order = { repo: "site", sha, branch: "main", run: "20261120T100000Z-3f2a9c" };
    return seal({ ...order, kind: "order", to: "web-1", at, until: at + 60_000, ...more }, by);
  };
  return { dir, repo, sha, key, publicKey, slave, update, byKey, bySecret, orderOf };
}

const path = "/get/?repo=site";

type Reply = { status: number; json: Record<string, any> };

function ask(port: number, path: string, letter?: string): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const own = letter === undefined ? {} : { [letterHeader]: letter };
    const sent = request({ host: "127.0.0.1", port, path, headers: own, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, json: JSON.parse(text) }));
    });
    sent.on("error", reject).end();
  });
}

/** The repos of which something was taken. */
const takenOf = async (repos: string) => await readdir(join(repos, ".boatyard/.server/desired-state"));

test("what was taken down on its way to one slave works on no other, with a key and with a secret", async () => {
  const { slave, update, byKey, bySecret, publicKey, dir } = await setUp();
  const more = `master_key: ${publicKey}\nsecret_file: ${dir}/secret`;
  const other = await slave("web-2", more);
  for (const how of [byKey, bySecret, [...byKey, ...bySecret]]) {
    const canary = await fakeSlave(() => ({}), keyOfSecret(secret, ""));
    await update([`${canary.name} name=web-1`], how);
    await update([`${canary.name} name=web-1`], ["--status", ...how]);
    await canary.close();
    for (const [index, asked] of canary.requests.entries()) {
      const { status, json } = await ask(other.port, asked, String(canary.headers[index]?.[letterHeader]));
      assert.is(status, 401, `${asked} ${how.join(" ")}`);
      assert.match(json["error"], /for another slave, web-1; this one is called web-2/);
    }
  }
  assert.equal(await takenOf(other.repos), []);
});

test("an order is taken once: again it changes nothing, an older one is refused, also after kill -9", async () => {
  const { slave, orderOf, repo, sha } = await setUp();
  const first = await slave("web-1");
  const order = orderOf();
  assert.is((await ask(first.port, path, order)).status, 202);
  assert.is((await ask(first.port, path, order)).status, 202);
  await first.server.until(/site .* requested by run .*, again/);
  const second = await repo.push({ "index.html": "two" });
  const newer = orderOf({ sha: second, at: Date.now() + 5000 });
  assert.is((await ask(first.port, path, newer)).status, 202);
  const stale = await ask(first.port, path, order);
  assert.is(stale.status, 401);
  assert.match(stale.json["error"], "is not newer than the last one taken");
  await waitFor(async () => (await readFile(join(first.repos, "site/index.html"), "utf8")) === "two");
  first.server.kill("SIGKILL");
  await first.server.exited;
  const again = await slave("web-1");
  assert.is((await ask(again.port, path, order)).status, 401);
  assert.is((await ask(again.port, path, newer)).status, 202);
  assert.equal(await takenOf(again.repos), ["site.json"]);
  assert.is(await readFile(join(again.repos, "site/index.html"), "utf8"), "two");
  assert.is.not(sha, second);
});

test("while keys change, an order of the old one that is older than one of the new is refused", async () => {
  const { dir, slave, orderOf, publicKey, repo } = await setUp();
  const second = await repo.push({ "index.html": "two" });
  const other = await writeKey(join(dir, "new"));
  const { port } = await slave("web-1", `master_key: [${other.publicKey}, ${publicKey}]`);
  const byNew = orderOf({ sha: second, at: Date.now() }, await readPrivateKey(join(dir, "new")));
  const byOld = orderOf({ at: Date.now() - 30_000 });
  assert.is((await ask(port, path, byNew)).status, 202);
  const { status, json } = await ask(port, path, byOld);
  assert.is(status, 401);
  assert.match(json["error"], "not newer than the last one taken");
});

test("a slave that the list has under two names is updated under both", async () => {
  const { slave, update, byKey, sha, repo } = await setUp();
  const { port } = await slave("[web-1, web-2, web-3]", "", "web-1");
  const lines = [1, 2, 3].map((at) => `http://127.0.0.1:${port}/get/?n=${at} name=web-${at}`);
  for (const commit of [sha, await repo.push({ "index.html": "two" })]) {
    const { code, objects, stdout } = await update(lines, ["--wait", "--sha", commit, ...byKey]);
    assert.is(code, 0, stdout);
    for (const each of objects) assert.is(each["sha"], commit);
  }
});

test("an order that never came is not good for ever, nor is one from the future", async () => {
  const { slave, orderOf } = await setUp();
  const { port, repos } = await slave("web-1");
  for (const [minutes, words] of [
    [-10, "the order was good until"],
    [10, "the order was written at"],
  ] as const) {
    const order = orderOf({ at: Date.now() + minutes * 60_000 });
    const { status, json } = await ask(port, path, order);
    assert.is(status, 401);
    assert.match(json["error"], words);
    assert.match(json["error"], "set both clocks (NTP)");
  }
  assert.equal(await takenOf(repos), []);
});

test("an order goes with the request that it stands in, and a question is no order", async () => {
  const { slave, orderOf } = await setUp();
  const { port, repos } = await slave("web-1");
  const order = orderOf();
  assert.is((await ask(port, "/get/?repo=other", order)).status, 400);
  const question = orderOf({ kind: "question" });
  assert.is((await ask(port, path, question)).status, 401);
  assert.is((await ask(port, path)).status, 401);
  assert.is((await ask(port, "/status")).status, 401);
  assert.is((await ask(port, "/status", order)).status, 401);
  assert.is((await ask(port, "/status", question)).status, 200);
  assert.equal(await takenOf(repos), []);
});

test("a slave whose slave.yml names a branch takes no order for another", async () => {
  const { slave, orderOf, publicKey } = await setUp();
  const { port } = await slave("web-1", `master_key: ${publicKey}\nbranch: stable`);
  const { status, json } = await ask(port, path, orderOf());
  assert.is(status, 409);
  assert.match(json["error"], "this slave serves stable of site");
});

/** Passes requests on to a slave, and changes what comes back. */
async function between(port: number, change: (path: string, text: string) => string): Promise<Server> {
  const server = createServer((incoming, outgoing) => {
    const { url = "", headers } = incoming;
    request({ host: "127.0.0.1", port, path: url, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () => {
        const { "content-length": _, ...own } = response.headers;
        outgoing.writeHead(response.statusCode ?? 0, own).end(change(url, text));
      });
    }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

test("an answer that was changed on its way, or is another's, is a failure", async () => {
  const { slave, update, byKey, bySecret, dir } = await setUp();
  const { publicKey: own } = await writeKey(join(dir, "identity"));
  const bound = await slave("web-1", `secret_file: ${dir}/secret\nidentity_file: ${dir}/identity`);
  // says that it has what was asked for, with the signature as it was
  const lie = (text: string) => {
    const [version, , mark] = (JSON.parse(text) as { letter: string }).letter.split(".");
    const content = contentOf((JSON.parse(text) as { letter: string }).letter);
    const payload = Buffer.from(JSON.stringify({ ...content, uptime: 0 })).toString("base64url");
    return JSON.stringify({ letter: `${version}.${payload}.${mark}` });
  };
  const honest = await between(bound.port, (_, text) => text);
  const liar = await between(bound.port, (path, text) => (path.startsWith("/status") ? lie(text) : text));
  const at = (server: Server) => `127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    const good = await update([`${at(honest)} name=web-1 key=${own}`], ["--wait", ...bySecret]);
    assert.is(good.code, 0, good.stdout);
    const bad = await update([`${at(liar)} name=web-1`], ["--wait", ...bySecret]);
    assert.match(bad.objects[0]?.["error"] ?? "", "its answer is not signed with the shared secret");
    const keyed = await update([`${at(liar)} name=web-1 key=${own}`], ["--wait", ...bySecret]);
    assert.match(keyed.objects[0]?.["error"] ?? "", "not signed with the key that the list has");
    const { publicKey: other } = await writeKey(join(dir, "other"));
    const wrong = await update([`${at(honest)} name=web-1 key=${other}`], ["--wait", ...bySecret]);
    assert.match(wrong.objects[0]?.["error"] ?? "", "not signed with the key that the list has");
    const stranger = createServer((_, response) => response.writeHead(202).end('{"job":"J"}\n'));
    await new Promise<void>((resolve) => stranger.listen(0, "127.0.0.1", resolve));
    const unbound = await update([`${at(stranger)} name=web-1`], byKey);
    await new Promise((resolve) => stranger.close(resolve));
    assert.match(unbound.objects[0]?.["error"] ?? "", "its answer is no letter: it comes from another program");
  } finally {
    await Promise.all([honest, liar].map((each) => new Promise((done) => each.close(done))));
  }
});

test("a master with a key updates its slaves to the end, and sees what they serve", async () => {
  const { slave, update, byKey, sha, repo } = await setUp();
  const both = [await slave("web-1"), await slave("web-2")];
  const lines = both.map(({ port }, at) => `127.0.0.1:${port} name=web-${at + 1}`);
  const done = await update(lines, ["--wait", ...byKey]);
  assert.is(done.code, 0, done.stdout + done.stderr);
  assert.equal(
    done.objects.map((each) => each["sha"]),
    [sha, sha],
  );
  const next = await repo.push({ "index.html": "two" });
  assert.is((await update(lines, ["--wait", ...byKey])).code, 0);
  const status = await update(lines, ["--status", ...byKey]);
  assert.is(status.code, 0, status.stdout);
  assert.equal(
    status.objects.map((each) => [each["sha"], each["branch"]]),
    [
      [next, "main"],
      [next, "main"],
    ],
  );
});

test.run();
