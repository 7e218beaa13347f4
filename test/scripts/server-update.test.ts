import { readdir, readFile, readlink, rename, stat, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createPublicKey } from "node:crypto";
import { keyOfSecret, parsePublicKey, writeKey, writeSeed } from "../../lib/fleet/keys.ts";
import { letterHeader, open, openOrder } from "../../lib/fleet/letter.ts";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { type RunOptions, type Running, runScript, startScript } from "../helpers/run.ts";
import { type FakeSlave, fakeSlave, knowSite, silentSlave, tellingSlave, workingSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const shaA = "a".repeat(40);
const shaB = "b".repeat(40);

const slaves: FakeSlave[] = [];
const servers: Running[] = [];
test.after.each(async () => {
  await Promise.all(slaves.splice(0).map((slave) => slave.close()));
  await Promise.all(servers.splice(0).map((server) => server.stop("SIGKILL")));
});

async function start(making: Promise<FakeSlave>): Promise<FakeSlave> {
  const slave = await making;
  slaves.push(slave);
  return slave;
}

/** Runs server-update over some slaves, with a state folder of its own; the commit is `shaA` unless `args` say otherwise. */
async function update(
  lines: readonly string[],
  args: string[] = [],
  { folder = tempDir(), ...options }: RunOptions & { folder?: string } = {},
) {
  const free = ["--status", "--sha", "--converge", "--base"].some((flag) => args.includes(flag));
  const list = join(folder, "list.txt");
  await writeFile(list, `${lines.join("\n")}\n`);
  const env = { XDG_STATE_HOME: folder, ...options.env };
  const pinned = free ? [] : ["--sha", shaA];
  if (!free) await knowSite(folder);
  const all = ["site", "--list", list, ...pinned, ...args];
  const result = await runScript("server-update", all, { ...options, env });
  const objects = args.includes("--json")
    ? result.stdout
        .trim()
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line))
    : [];
  return { ...result, objects, list, failed: join(folder, "server-update/site.failed.txt") };
}

test("every slave is asked, and the table tells what each said", async () => {
  const one = await start(fakeSlave(() => ({})));
  const two = await start(fakeSlave(() => ({ status: 500, body: { error: "the disk is full" } })));
  const old = await start(fakeSlave(() => ({ status: 200, body: "Success!" })));
  const { code, stdout, failed } = await update([one.name, two.name, old.name]);
  assert.is(code, 1);
  assert.match(stdout, new RegExp(`${one.name} +accepted`));
  assert.match(stdout, new RegExp(`${two.name} +FAILED: it answers 500: the disk is full`));
  assert.match(stdout, /3 slaves: 2 ok, 1 failed/);
  assert.equal(one.requests, ["/get/?repo=site"]);
  assert.is(one.letters[0]?.["sha"], shaA);
  assert.match(await readFile(failed, "utf8"), `\n${two.name}\n`);
});

test("the list of failed ones is a list for the next run, and is gone when all is well", async () => {
  let broken = true;
  const slave = await start(fakeSlave(() => (broken ? { status: 500, body: {} } : {})));
  const good = await start(fakeSlave(() => ({})));
  const first = await update(["[eu]", slave.name, good.name]);
  assert.is(first.code, 1);
  broken = false;
  const folder = dirname(dirname(first.failed));
  const again = await runScript("server-update", ["site", "--list", first.failed, "--group", "eu", "--sha", shaA], {
    env: { XDG_STATE_HOME: folder },
  });
  assert.is(again.code, 0, again.stderr);
  assert.is(good.requests.length, 1);
  await stat(first.failed).then(
    () => assert.unreachable("it is still there"),
    () => {},
  );
});

test("slaves that refuse, say nothing, cut the line or talk nonsense end in time and are named", async () => {
  const silent = await start(silentSlave());
  const cut = await start(fakeSlave(() => "cut"));
  const never = await start(fakeSlave(() => "never"));
  const nonsense = await start(fakeSlave(() => ({ status: 404, body: "<h1>\u001b[31mnot here" })));
  const endless = await start(fakeSlave(() => ({ status: 200, body: "x".repeat(5_000_000) })));
  const dead = `127.0.0.1:${await freePort()}`;
  const args = ["--timeout", `${Math.ceil(400 * slowness())}ms`, "--retries", "0", "--json"];
  const names = [silent.name, cut.name, never.name, nonsense.name, endless.name, dead];
  const { code, objects, stderr } = await update(names, args);
  assert.is(code, 1, stderr);
  const errors = names.map((name) => objects.find(({ target }) => target === name).error);
  const expected = [
    /no answer within [\d.]+ s/,
    /reset|hang up/,
    /no answer within [\d.]+ s/,
    /it answers 404: <h1>/,
    /too long/,
    /connection refused/,
  ];
  expected.forEach((reason, index) => assert.match(errors[index], reason));
  assert.not.match(JSON.stringify(objects), "\\u001b");
  for (const { ok, seconds } of objects) assert.equal([ok, typeof seconds], [false, "number"]);
});

test("a slave that is away for a moment is asked again", async () => {
  const slave = await start(
    fakeSlave((_, count) => (count === 1 ? "cut" : count === 2 ? { status: 429, body: {} } : {})),
  );
  const { code } = await update([slave.name], ["--retries", "2"]);
  assert.is(code, 0);
  assert.is(slave.requests.length, 3);
});

test("the newest commit of the base is asked for once, and all get it with its branch", async () => {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const sha = await repo.git("rev-parse", "HEAD");
  const side = await repo.push({ "index.html": "side" }, { branch: "side" });
  const both = await Promise.all([1, 2].map(() => start(workingSlave(shaB))));
  const names = both.map(({ name }) => name);
  const base = ["--base", `file://${dirname(repo.bare)}`];
  const { code, objects, list } = await update(names, ["--wait", "--json", ...base]);
  assert.is(code, 0);
  assert.equal(
    objects.map((object) => object.sha),
    [sha, sha],
  );
  for (const { requests, letters } of both) {
    assert.equal(requests.slice(0, 2), ["/get/?repo=site", "/status"]);
    assert.equal([letters[0]?.["sha"], letters[0]?.["branch"]], [sha, "main"]);
  }
  await update(names, [...base, "--branch", "side"]);
  const last = both[0]?.letters.at(-1);
  assert.equal([last?.["sha"], last?.["branch"]], [side, "side"]);
  const nobody = await runScript("server-update", ["site", "--list", list], { env: { XDG_STATE_HOME: tempDir() } });
  assert.is(nobody.code, 2);
  assert.match(nobody.stderr, /where repos come from is not known; give --base URL/);
  const gone = await update(names, ["--base", "file:///nowhere"]);
  assert.is(gone.code, 1);
  assert.match(gone.stderr, /the commit of site is not known.*--base.*--sha/);
});

test("as a then: command of hook-server it takes the commit of the push, of this repo only", async () => {
  const slave = await start(workingSlave(shaA));
  const env = { HOOK_REPO: "me/site", HOOK_SHA: shaB, HOOK_REF: "refs/heads/next" };
  const away = ["--base", "file:///nowhere"];
  assert.is((await update([slave.name], away, { env })).code, 0);
  assert.equal([slave.letters[0]?.["sha"], slave.letters[0]?.["branch"]], [shaB, "next"]);
  const other = await update([slave.name], away, { env: { ...env, HOOK_REPO: "me/tools" } });
  assert.is(other.code, 1);
  assert.is(slave.requests.length, 1);
});

test("--wait: what each slave said at its end is told", async () => {
  const broken = await start(tellingSlave(() => ({ state: "failed", before: shaB, error: "the disk is full" })));
  const good = await start(workingSlave(shaA));
  const stubborn = await start(tellingSlave(() => ({ state: "done", sha: shaB })));
  const old = await start(fakeSlave(() => ({ status: 200, body: "Success!" })));
  const names = [broken, good, stubborn, old].map(({ name }) => name);
  const { code, objects } = await update(names, ["--wait", "--json"]);
  assert.is(code, 1);
  const told = Object.fromEntries(objects.map((object) => [object.target, object]));
  assert.is(told[broken.name].error, "the disk is full");
  assert.is(told[broken.name].before, shaB);
  assert.is(told[good.name].sha, shaA);
  assert.match(told[stubborn.name].error, `it serves ${shaB}, not ${shaA}`);
  assert.match(told[old.name].error, "its answer is no letter: it comes from another program");
});

test("--wait ends when a slave works for too long", async () => {
  const slow = await start(tellingSlave(() => ({ state: "running" })));
  const { code, stdout } = await update([slow.name], ["--wait", "--wait-limit", "1s"]);
  assert.is(code, 1);
  assert.match(stdout, /still running after 1 s/);
});

test("--batch stops when more failed than may, and says who was not asked", async () => {
  const good = await start(workingSlave(shaA));
  const bad = await start(fakeSlave(() => ({ status: 500, body: { error: "no" } })));
  const rest = await Promise.all([1, 2, 3].map(() => start(workingSlave(shaA))));
  const names = [good.name, bad.name, ...rest.map(({ name }) => name)];
  const args = ["--batch", "1,2,100%", "--pause", "10ms"];
  const stopped = await update(names, args);
  assert.is(stopped.code, 1);
  assert.match(stopped.stdout, /5 slaves: 1 ok, 1 failed, 3 not asked/);
  assert.ok(rest.every(({ requests }) => requests.length === 0));
  const list = await readFile(stopped.failed, "utf8");
  for (const name of [bad.name, ...rest.map((slave) => slave.name)]) assert.match(list, name);
  const through = await update(names, [...args, "--max-failures", "20%"]);
  assert.match(through.stdout, /5 slaves: 4 ok, 1 failed/);
});

test("--status shows who differs", async () => {
  const same = await Promise.all([1, 2].map(() => start(workingSlave(shaA))));
  const other = await start(workingSlave(shaB));
  const nothing = await start(fakeSlave(() => ({ status: 200 })));
  const names = [...same, other, nothing].map(({ name }) => name);
  const { code, stdout } = await update(names, ["--status"]);
  assert.is(code, 1);
  assert.match(stdout, new RegExp(`${other.name} +bbbbbbbbbbbb +main +2026-11-20T10:00:00Z +DIFFERS`));
  assert.match(stdout, /DIFFERS: nothing is served/);
  assert.match(stdout, new RegExp(`2 of 4 serve ${shaA}, 2 do not`));
  const agreeing = await update(names.slice(0, 2), ["--status"]);
  assert.is(agreeing.code, 0);
  assert.ok(same.every(({ requests }) => requests.every((line) => line.startsWith("/status"))));
});

test("letters are signed with the secret in a file, name their slave, and are good for minutes", async () => {
  const secret = join(tempDir(), "secret");
  const text = "0123456789abcdef0123456789abcdef";
  await writeFile(secret, `${text}\n`, { mode: 0o600 });
  const key = keyOfSecret(text, "");
  const slave = await start(workingSlave(shaA, undefined, key));
  const line = `${slave.name} name=web-17`;
  const { code, stdout } = await update([line], ["--wait", "--secret-file", secret]);
  assert.is(code, 0, stdout);
  const kinds = slave.headers.map((each, index) => {
    const kind = index === 0 ? "order" : "question";
    const opened = open(String(each[letterHeader]), kind, { keys: [createPublicKey(key)] });
    assert.is(opened.letter.to, "web-17");
    assert.is(opened.letter.until - opened.letter.at, 300_000);
    return kind;
  });
  assert.equal(kinds, ["order", "question"]);
  await writeFile(secret, "0123456789abcdef0123456789abcde\n", { mode: 0o600 });
  const short = await update([line], ["--secret-file", secret]);
  assert.is(short.code, 2);
  assert.match(short.stderr, `${secret}: a secret is shorter than 32 characters; make one with: openssl rand -hex 32`);
});

test("with a key every slave gets an order of its own, the same at each try", async () => {
  const dir = tempDir();
  const { publicKey } = await writeKey(join(dir, "key"));
  let broken = true;
  const one = await start(
    fakeSlave(() => {
      const reply = broken ? { status: 503, body: {} } : {};
      broken = false;
      return reply;
    }),
  );
  const two = await start(fakeSlave(() => ({})));
  const lines = [`${one.name} name=web-1`, two.name];
  const { code, stdout } = await update(lines, ["--key-file", join(dir, "key")]);
  assert.is(code, 0, stdout);
  assert.is(one.headers.length, 2);
  assert.is(one.headers[0]?.[letterHeader], one.headers[1]?.[letterHeader]);
  const orders = [one, two].map(({ headers }) =>
    openOrder(String(headers[0]?.[letterHeader]), { keys: [parsePublicKey(publicKey)] }),
  );
  assert.equal(
    orders.map((opened) => [opened.letter.to, opened.order.sha]),
    [
      ["web-1", shaA],
      ["127.0.0.1", shaA],
    ],
  );
});

test("a bad line or flag is named, and nothing is sent", async () => {
  const slave = await start(fakeSlave(() => ({})));
  const bad = await update([slave.name, "not a host", "x:0"]);
  assert.is(bad.code, 2);
  assert.match(bad.stderr, /list\.txt:2: .*\n.*list\.txt:3: /);
  for (const args of [
    ["--sha", "HEAD"],
    ["--batch", "x"],
    ["--jobs", "0"],
    ["--group", "x"],
    ["--max-failures", "-1"],
    ["--list", "/nowhere"],
  ]) {
    const { code } = await update([slave.name], args);
    assert.is(code, 2, args.join(" "));
  }
  assert.is((await runScript("server-update", ["../x"])).code, 4);
  const folder = tempDir();
  // Node tries to make a folder in /proc without end
  for (const failed of ["/proc/x/failed", join(bad.list, "failed"), folder]) {
    const { code, stderr } = await update([slave.name], ["--failed", failed], { folder });
    assert.is(code, 2, failed);
    assert.match(stderr, `--failed ${failed}: `);
  }
  const state = await update([slave.name], [], { env: { XDG_STATE_HOME: "/proc/x" } });
  assert.is(state.code, 1);
  assert.match(state.stderr, "/proc/x/server-update/site.lock cannot be written: ENOENT");
  assert.is(slave.requests.length, 0);
});

test("a repo that the remote does not have leaves nothing behind", async () => {
  const { bare } = await makeRepo({ files: { "index.html": "one" } });
  const folder = tempDir();
  const none = await update(["x"], ["--base", `file://${dirname(bare)}/nothing`], { folder });
  assert.is(none.code, 1);
  assert.match(none.stderr, "the commit of site is not known");
  assert.equal(await readdir(join(folder, "server-update")), []);
});

test("without a key for orders nothing is set for slaves on a bus", async () => {
  const folder = tempDir();
  const slave = await start(fakeSlave(() => ({})));
  await writeSeed(join(folder, "bus.seed"));
  const via = join(folder, "bus.yml");
  await writeFile(via, "url: nats://127.0.0.1:4222\nseed_file: bus.seed\n");
  const lines = ["bus://web-1", slave.name];
  for (const args of [
    ["--sha", shaA],
    ["--status", "--verify"],
  ]) {
    const { code, stderr } = await update(lines, ["--via", via, ...args], { folder });
    assert.is(code, 2);
    assert.match(stderr, "bus://web-1 takes only what is signed with a key; make one: server-update");
  }
  assert.equal(await readdir(join(folder, "server-update")).catch(() => []), []);
  assert.equal(slave.requests, []);
});

test("a repo that nobody knows is refused with --sha, too: no slave is told, and nothing is set", async () => {
  const { bare } = await makeRepo({ files: { "index.html": "one" } });
  const right = `file://${dirname(bare)}`;
  const knowing = await start(workingSlave(shaB));
  const other = await start(fakeSlave(() => ({})));
  const folder = tempDir();
  const wrong = ["--sha", shaA, "--base", `${right}/nothing`];
  const { code, stderr, list } = await update([other.name], wrong, { folder });
  assert.is(code, 1);
  assert.match(stderr, /site is not known: .*nothing\/site\.git.*no slave serves it.*--base/);
  assert.equal(await readdir(join(folder, "server-update")), []);
  assert.equal(
    other.requests.filter((line) => line.startsWith("/get/")),
    [],
  );
  // a base that nobody has named is not answered with the advice to give --sha
  const baseless = await runScript("server-update", ["site", "--list", list, "--sha", shaA], {
    env: { XDG_STATE_HOME: tempDir() },
  });
  assert.is(baseless.code, 1);
  assert.match(
    baseless.stderr,
    /site is not known: no base is known.*no slave serves it; .*say where it is: --base URL/,
  );
  assert.not.match(baseless.stderr, "--sha");
  // a master may be without the right to read it
  await update([other.name, knowing.name], wrong, { expect: 0 });
  await update([other.name], ["--sha", shaA, "--base", right], { folder, expect: 0 });
  // what was set once is known, also while the remote is away
  await update([other.name], wrong, { folder, expect: 0 });
});

test("a duplicate is told and asked once, and --dry-run asks nobody", async () => {
  const slave = await start(fakeSlave(() => ({})));
  const twice = await update([slave.name, `http://${slave.name}/get/`]);
  assert.is(twice.code, 0);
  assert.match(twice.stderr, /list\.txt:2: .* is there already \(line 1\)/);
  assert.is(slave.requests.length, 1);
  const dry = await update(["web[01-03]:9001", slave.name], ["--dry-run", "--batch", "1"]);
  assert.is(dry.code, 0);
  assert.match(dry.stdout, "http://web02:9001/get/");
  assert.match(dry.stdout, "step 2: 3 of 4");
  assert.is(slave.requests.length, 1);
});

test("a push reaches two real slaves with a secret, and both serve that commit", async () => {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const folder = tempDir();
  const secret = join(folder, "secret");
  await writeFile(secret, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  await writeFile(
    join(folder, "slave.yml"),
    `name: 127.0.0.1\nsecret_file: secret\nbase: file://${dirname(repo.bare)}\n`,
  );
  const names: string[] = [];
  for (const which of ["one", "two"]) {
    const server = startScript("slave-server", [
      ...["--config", join(folder, "slave.yml"), "--repos", join(folder, which)],
      ...["--listen", "127.0.0.1:0"],
    ]);
    servers.push(server);
    const [, port] = await server.until(/listens on 127\.0\.0\.1:(\d+)/);
    names.push(`127.0.0.1:${port}`);
  }
  const sha = await repo.push({ "index.html": "two" });
  const args = ["--wait", "--secret-file", secret, "--base", `file://${dirname(repo.bare)}`];
  const { code, objects, stderr } = await update(names, [...args, "--json"]);
  assert.is(code, 0, stderr);
  assert.equal(
    objects.map((object) => object.sha),
    [sha, sha],
  );
  for (const which of ["one", "two"]) {
    assert.is(await readFile(join(folder, which, "site/index.html"), "utf8"), "two");
  }
  await rename(repo.bare, `${repo.bare}.away`);
  const down = await update(names, ["--wait", "--secret-file", secret]);
  assert.is(down.code, 1);
  for (const name of names) {
    assert.match(down.stdout, new RegExp(`${name} +FAILED: .*site\\.git.*${sha.slice(0, 12)} stays`));
  }
  const wrong = await update(names, ["--status"]);
  assert.match(wrong.stdout, /it answers 401: the question is not signed/);
});

test("dead hosts at the head of the list cost their time once, not one after the other", async () => {
  const dead = await Promise.all([1, 2, 3, 4].map(() => start(silentSlave())));
  const good = await start(workingSlave(shaA));
  const names = [...dead, good].map(({ name }) => name);
  // long enough for the good one, on a slow machine too
  const limit = Math.ceil(2000 * slowness());
  const args = ["--wait", "--json", "--timeout", `${limit}ms`, "--retries", "0"];
  const begin = performance.now();
  const { code, objects } = await update(names, args);
  assert.is(code, 1);
  assert.is(objects.find(({ target }) => target === good.name).sha, shaA);
  const took = performance.now() - begin;
  assert.ok(took < 2 * limit, `${took} ms, of which one limit is ${limit} ms`);
});

test("time in which the master itself stands still is not taken from its slaves", async () => {
  const folder = tempDir();
  // long enough for the slave here to be asked, on a slow machine too
  const limit = Math.ceil(1000 * slowness());
  const slave = await start(
    fakeSlave(() => {
      // the answer is there when it goes on
      servers.at(-1)?.kill("SIGSTOP");
      return {};
    }),
  );
  await writeFile(join(folder, "list"), `${slave.name}\n`);
  await knowSite(folder);
  const limits = ["--timeout", `${limit}ms`, "--retries", "0"];
  const args = ["site", "--sha", shaA, "--list", join(folder, "list"), ...limits];
  const master = startScript("server-update", args, { env: { XDG_STATE_HOME: folder } });
  servers.push(master);
  await waitFor(() => slave.requests.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 1.5 * limit));
  master.kill("SIGCONT");
  const { code, stdout } = await master.exited;
  assert.is(code, 0, stdout);
});

test("no slave decides on the commit: a stale or lying first one changes nothing", async () => {
  const liar = await start(tellingSlave(() => ({ state: "done", sha: shaB })));
  const good = await start(workingSlave(shaA));
  const { code, objects } = await update([liar.name, good.name], ["--wait", "--json"]);
  assert.is(code, 1);
  const told = Object.fromEntries(objects.map((object) => [object.target, object]));
  assert.match(told[liar.name].error, `it serves ${shaB}, not ${shaA}`);
  assert.equal([told[good.name].ok, told[good.name].sha], [true, shaA]);
});

test("a slave that restarts while it is followed is asked on, and its finished job is no failure", async () => {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const folder = tempDir();
  const gate = join(folder, "gate");
  await writeFile(
    join(folder, "slave.yml"),
    `base: file://${dirname(repo.bare)}\nafter: 'until test -e ${gate}; do sleep 0.02; done'\n`,
  );
  const address = `127.0.0.1:${await freePort()}`;
  const serve = () => {
    const flags = ["--config", join(folder, "slave.yml"), "--repos", join(folder, "repos")];
    const server = startScript("slave-server", [...flags, "--insecure", "--listen", address]);
    servers.push(server);
    return server;
  };
  const first = serve();
  await first.until(/listens on/);
  const sha = await repo.git("rev-parse", "HEAD");
  const base = ["--base", `file://${dirname(repo.bare)}`];
  const args = ["--wait", "--json", "--retries", "1", "--sha", sha, ...base];
  const running = update([address], args, { timeout: 60_000 });
  await waitFor(() => readlink(join(folder, "repos/site")));
  first.kill("SIGKILL");
  await first.exited;
  // for longer than all tries of one request together nobody answers
  let tries = 0;
  const nobody = createTcpServer((socket) => {
    tries += 1;
    socket.destroy();
  });
  const [host, port] = address.split(":");
  await new Promise<void>((resolve) => nobody.listen(Number(port), host, resolve));
  await waitFor(() => tries >= 4);
  await new Promise((resolve) => nobody.close(resolve));
  await serve().until(/listens on/);
  await writeFile(gate, "");
  const { code, objects, stderr } = await running;
  assert.is(code, 0, `${stderr} ${JSON.stringify(objects)}`);
  assert.is(objects[0].sha, sha);
});

test("a proxy in front of a slave that restarts is asked on, too", async () => {
  const proxy = await start(
    tellingSlave((asked) => {
      if (asked <= 3) return { status: [502, 503, 504][asked - 1] ?? 0, body: "Bad Gateway" };
      return { state: "done", sha: shaA };
    }),
  );
  const { code, stdout } = await update([proxy.name], ["--wait", "--retries", "0"]);
  assert.is(code, 0, stdout);
  const gone = await start(tellingSlave(() => ({ status: 502, body: "Bad Gateway" })));
  const over = await update([gone.name], ["--wait", "--retries", "0", "--wait-limit", "1s"]);
  assert.is(over.code, 1);
  assert.match(over.stdout, "FAILED: it answers 502: Bad Gateway");
});

test("a run that is interrupted tells what became of each slave, and lists the others", async () => {
  const folder = tempDir();
  await knowSite(folder);
  const good = await start(workingSlave(shaA));
  const busy = await start(tellingSlave(() => ({ state: "running" })));
  const third = await start(workingSlave(shaA));
  const list = join(folder, "list.txt");
  await writeFile(list, [good.name, busy.name, third.name].join("\n"));
  const args = ["site", "--list", list, "--sha", shaA, "--wait", "--jobs", "1"];
  const running = startScript("server-update", args, { env: { XDG_STATE_HOME: folder } });
  servers.push(running);
  await waitFor(() => busy.requests.length > 1);
  const { code, stdout } = await running.stop("SIGINT");
  assert.is(code, 130);
  assert.match(stdout, new RegExp(`${good.name} +done`));
  assert.match(stdout, new RegExp(`${busy.name} +FAILED: interrupted`));
  assert.match(stdout, /3 slaves: 1 ok, 1 failed, 1 not asked/);
  const failed = await readFile(join(folder, "server-update/site.failed.txt"), "utf8");
  for (const { name } of [busy, third]) assert.match(failed, `\n${name}\n`);
  const want = await readFile(join(folder, "server-update/desired-state/site.json"), "utf8");
  assert.not.match(want, "stopped", "--converge brings the others along");
});

test("a lying slave cannot turn the text of the terminal round", async () => {
  const liar = await start(
    fakeSlave(() => ({ status: 500, body: { error: "fine \u202egnorw\u2066 \u200f\u009b31m" } })),
  );
  const other = await start(fakeSlave(() => ({ status: 500, body: "\u202etxet" })));
  const { stdout } = await update([liar.name, other.name]);
  assert.match(stdout, /FAILED: it answers 500: fine/);
  assert.not.match(stdout, /[\u0080-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/);
});

test("what does not speak HTTP is said in words", async () => {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket.on("error", () => {}));
    socket.end("SSH-2.0-x\r\n");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const { stdout } = await update([`127.0.0.1:${port}`], ["--retries", "0"]);
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  assert.match(stdout, /FAILED: it does not speak HTTP/);
  assert.not.match(stdout, "HPE_");
});

test.run();
