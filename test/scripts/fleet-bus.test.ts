// The fleet over a bus: slaves that connect out, and what a bus or a slave that is not honest can do.
import { writeFile } from "node:fs/promises";
import type { KeyObject } from "node:crypto";
import { join } from "node:path";
import { connect, headers } from "@nats-io/transport-node";
import type { NatsConnection } from "@nats-io/transport-node";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Bucket, connectBus } from "../../lib/bus/bus.ts";
import { nkeyOf, signNonce } from "../../lib/bus/nkey.ts";
import { writeKey } from "../../lib/fleet/keys.ts";
import { type Letter, questionKey, seal } from "../../lib/fleet/letter.ts";
import { endAll, ends, setUp } from "../helpers/bus-fleet.ts";
import { needsNats, type TestBus } from "../helpers/nats.ts";
import { testUnless } from "../helpers/skip.ts";
import { startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const test = suite("bus");
const testBus = testUnless(test, needsNats);
test.after.each(endAll);

testBus(
  "a slave that the bus does not know yet, or that finds none, goes on trying, and ends when it is told",
  async () => {
    const { bus, slave, served, update } = await setUp();
    const made = await bus.newKey("web-1");
    const one = await slave("web-1", "", made);
    await one.until(/the bus knows this slave as web-1, with the key U[A-Z2-7]{55}/);
    await bus.admit("web-1", made.key);
    await one.until(/connected to the bus as web-1/);
    await update(["bus://web-1"], ["site", "--wait"], 0);
    assert.is(await served("web-1"), "one");
    await bus.kill();
    assert.is((await one.stop()).code, 0);
    const again = await slave("web-1");
    assert.is((await again.stop()).code, 0);
  },
);

testBus("slaves connect out, take orders, and report; the status shows them", async () => {
  const { repo, slave, served, update } = await setUp();
  const one = await slave("web-1.example.com");
  await slave("web-2", "check: test ! -e broken\n");
  const lines = ["[web]", "bus://web-1.example.com", "bus://web-2"];
  const first = await update(lines, ["site", "--wait"], 0);
  const sha = await repo.git("rev-parse", "HEAD");
  assert.match(first.stdout, `2 slaves: 2 ok, 0 failed; at ${sha}`);
  assert.equal([await served("web-1.example.com"), await served("web-2")], ["one", "one"]);
  assert.not.match(one.output(), ":9999");
  const status = await update(lines, ["--status", "--group", "web"], 0);
  assert.match(status.stdout, new RegExp(`web-2 +site +${sha.slice(0, 12)} +main`));
  await repo.push({ broken: "" });
  const failed = await update(lines, ["site", "--batch", "1,100%", "--pause", "1ms"], 1);
  assert.match(failed.stdout, "web-1.example.com  done");
  assert.match(failed.stdout, /web-2 +FAILED: check: .*was not put in place/);
  await repo.push({ broken: null, "index.html": "two" });
  const converged = await update(lines, ["site", "--converge"], 1);
  assert.match(converged.stdout, /web-1.example.com +up to date/);
});

testBus("one that was off takes the newest order when it is back", async () => {
  const { repo, slave, served, update } = await setUp();
  await slave("web-1");
  const two = await slave("web-2");
  await two.until(/connected to the bus as web-2/);
  const lines = ["bus://web-1", "bus://web-2", "bus://web-3"];
  await update(lines, ["site", "--wait", "--timeout", "1s"], 1);
  await two.stop();
  await repo.push({ "index.html": "two" });
  await update(lines, ["site"], 0);
  await repo.push({ "index.html": "three" });
  const { stdout } = await update(lines, ["site", "--wait", "--timeout", "2s"], 1);
  assert.match(stdout, /web-2 +FAILED: no sign of it for \d+ s \(last seen 20.*takes the order when/);
  assert.match(stdout, /web-3 +FAILED: no sign of it for \d+ s \(never seen on the bus\)/);
  await slave("web-2");
  await waitFor(async () => (await served("web-2")) === "three");
  await update(lines.slice(0, 2), ["site", "--wait"], 0);
  assert.is((await update(lines.slice(0, 2), ["--status", "site"])).code, 0);
});

testBus("a bus that is killed in the middle, and comes back, delays and loses nothing", async () => {
  const { bus, repo, slave, served, update } = await setUp();
  const gate = join(tempDir(), "gate");
  const one = await slave("web-1", `check: while [ ! -e ${gate} ]; do sleep 0.05; done\n`);
  // longer than a slow machine takes to start the bus again
  const done = update(["bus://web-1"], ["site", "--wait", "--timeout", "60s"], 0);
  await one.until(/requested by run/);
  await bus.kill();
  await writeFile(gate, "");
  await waitFor(async () => (await served("web-1")) === "one");
  await bus.start();
  await done;
  await bus.kill();
  await repo.push({ "index.html": "two" });
  const next = update(["bus://web-1"], ["site", "--wait", "--connect-timeout", "9s"]);
  await bus.start();
  await next;
  await update(["bus://web-1"], ["site", "--wait"], 0);
  assert.is(await served("web-1"), "two");
});

testBus("time in which the master itself stands still is not taken from its slaves", async () => {
  const { bus, dir, base, list, slave, served } = await setUp();
  const one = await slave("web-1");
  await one.until(/connected to the bus as web-1/);
  one.kill("SIGSTOP");
  await writeFile(list, "bus://web-1\n");
  const where = ["--list", list, "--via", join(dir, "bus.yml"), "--base", base];
  // long enough for us to stop the master in, on a slow machine too
  const limit = Math.ceil(3000 * slowness());
  const limits = ["--wait", "--timeout", `${limit}ms`];
  const args = ["site", ...limits, "--key-file", join(dir, "order.key")];
  const env = { XDG_STATE_HOME: dir };
  const known = { servers: [bus.url], key: bus.master, name: "master", timeout: 5000 };
  const looker = await connectBus(known);
  ends.push(() => looker.close());
  await looker.makeBucket("orders");
  const master = startScript("server-update", [...args, ...where], { env });
  ends.push(() => master.stop("SIGKILL"));
  const orders = looker.bucket("orders");
  await waitFor(async () => (await orders.get("web-1")) !== undefined);
  master.kill("SIGSTOP");
  one.kill("SIGCONT");
  await waitFor(async () => (await served("web-1")) === "one");
  await new Promise((resolve) => setTimeout(resolve, limit + 500));
  master.kill("SIGCONT");
  const { code, stdout } = await master.exited;
  assert.is(code, 0, stdout);
});

testBus("a bus that drops, doubles, reorders and replays turns no slave back, and forges nothing", async () => {
  const { bus, repo, slave, served, update, orderKey } = await setUp();
  const one = await slave("web-1");
  const first = await repo.git("rev-parse", "HEAD");
  await update(["bus://web-1"], ["site", "--wait"], 0);
  const lying = await connectBus({
    ...{ servers: [bus.url], key: bus.master, name: "master", timeout: 5000 },
  });
  ends.push(() => lying.close());
  const orders = lying.bucket("orders");
  const old = (await orders.get("web-1"))?.text ?? "";
  const second = await repo.push({ "index.html": "two" });
  await update(["bus://web-1"], ["site", "--wait"], 0);
  const newest = (await orders.get("web-1"))?.text ?? "";
  const { privateKey: stranger } = await keyPair();
  const order = (more: Partial<Letter>, key = orderKey) => orderLetter({ sha: first, ...more }, key);
  const lies: [what: string, value: string, logged: RegExp][] = [
    ["an old one", old, /not newer than the last one taken/],
    ["a stranger's", put(order({}, stranger)), /not signed with a key that is known here; compare master_key/],
    ["another slave's", put(order({ to: "web-2" })), /is for another slave, web-2;/],
    ["everybody's", put(order({ to: "web" })), /is for another slave, web;/],
    ["another repo's", put(order({ repo: "other" })), /the order is for other/],
    [
      "of tomorrow",
      put(order({ at: Date.now() + 86_400_000 })),
      /the order was written at .*, and the clock here says/,
    ],
    ["not an order", put("v2.x.y"), /the order is malformed/],
    ["not JSON", "{", /the orders at web-1 cannot be read/],
    ["not a map", "[1, null]", /^/],
  ];
  for (const [what, value, logged] of lies) {
    await orders.put("web-1", value);
    await orders.put("web-1", value);
    await one.until(logged).catch((error: unknown) => assert.unreachable(`${what}: ${error}`));
  }
  await orders.put("web-1", newest);
  await one.stop();
  await slave("web-1");
  assert.is(await served("web-1"), "two");
  await update(["bus://web-1"], ["site", "--wait"], 0);
  const status = await update(["bus://web-1"], ["--status", "site"], 0);
  assert.match(status.stdout, second.slice(0, 12));

  function put(text: string): string {
    return JSON.stringify({ site: text });
  }
});

testBus(
  "an order that is too old is refused by a new slave, which says so on both sides; a fresh one heals it",
  async () => {
    const { bus, repo, slave, served, update, orderKey } = await setUp();
    const lying = await connectBus({ servers: [bus.url], key: bus.master, name: "master", timeout: 5000 });
    ends.push(() => lying.close());
    await lying.makeBucket("orders");
    const [sha, day] = [await repo.git("rev-parse", "HEAD"), 86_400_000];
    const times = { at: Date.now() - 8 * day, until: Date.now() - day };
    const order = orderLetter({ sha, ...times }, orderKey);
    await lying.bucket("orders").put("web-1", JSON.stringify({ site: order }));
    const one = await slave("web-1");
    await one.until(/for site: the order was good until .*, and the clock here says .*set both clocks/);
    assert.is(await served("web-1"), "");
    await waitFor(async () => {
      const { stdout } = await update(["bus://web-1"], ["--status"], 1);
      return stdout.includes("the order was good until");
    });
    await update(["bus://web-1"], ["site", "--wait"], 0);
    await update(["bus://web-1"], ["--status", "site"], 0);
  },
);

testBus(
  "a slave that was taken over reaches with its own key no bucket, no order and no report of others",
  async () => {
    const { bus, repo, slave, served, update } = await setUp();
    const lines = ["bus://web-1", "bus://web-2"];
    for (const name of ["web-1", "web-2"]) await (await slave(name)).until(/connected to the bus/);
    await update(lines, ["site", "--wait", "--batch", "1,100%", "--pause", "1ms"], 0);
    const master = { servers: [bus.url], key: bus.master, name: "master", timeout: 5000 };
    const looker = await connectBus(master);
    ends.push(() => looker.close());
    const [orders, reports] = [looker.bucket("orders"), looker.bucket("reports")];
    const seen = async () => [
      await valuesIn(orders),
      await reports.get("web-2"),
      (await orders.get("web-2"))?.revision,
    ];
    const before = await seen();
    // what it may ask, and where the answer shall go: nothing at all, its order (JSON), the receipt of its report (JSON)
    const { key } = await bus.addSlave("web-1");
    const nats = await connectAs(bus, key);
    const read = (place: string) => `$JS.API.DIRECT.GET.KV_orders.$KV.orders.${place}`;
    const attacks = [
      [read("web-1"), "$JS.API.STREAM.DELETE.KV_orders"],
      [read("web-1"), "$JS.API.STREAM.PURGE.KV_orders"],
      [read("web-1"), "$KV.orders.web-2"],
      [read("web-1"), "$KV.reports.web-2"],
      ["$KV.reports.web-1", "$JS.API.STREAM.DELETE.KV_reports"],
      ["$KV.reports.web-1", "$KV.orders.web-2"],
    ] as const;
    for (let round = 0; round < 5; round++)
      for (const [subject, reply] of attacks) nats.publish(subject, "", { reply });
    // a report that shall take the place of all others
    const rollup = headers();
    rollup.set("Nats-Rollup", "all");
    nats.publish("$KV.reports.web-1", "", { headers: rollup });
    await nats.flush();
    // its last report is there, so all before it was worked off
    await nats.request("$KV.reports.web-1", "the end");
    assert.equal(await seen(), before);
    await repo.push({ "index.html": "two" });
    await update(["bus://web-2"], ["site", "--wait"], 0);
    assert.is(await served("web-2"), "two");
  },
);

testBus("what another slave sends to the places where this one listens is a hint, and turns nothing", async () => {
  const { bus, repo, slave, served, update } = await setUp();
  const lines = ["bus://web-1", "bus://web-2"];
  for (const name of ["web-1", "web-2"]) await (await slave(name)).until(/connected to the bus/);
  await waitFor(async () => (await update(lines, ["--status"])).stdout.match(/never seen/) === null);
  await update(lines, ["site", "--wait"], 0);
  const { key } = await bus.addSlave("web-1");
  const nats = await connectAs(bus, key);
  // what it reads itself comes to all slaves of the account that listen there: nothing at all, and its own order
  const read = (place: string) => `$JS.API.DIRECT.GET.KV_orders.$KV.orders.${place}`;
  for (let round = 0; round < 5; round++)
    for (const reply of ["$KV.orders.web-1", "$KV.orders.web-2"]) nats.publish(read("web-1"), "", { reply });
  await nats.flush();
  await repo.push({ "index.html": "two" });
  await update(lines, ["site", "--wait"], 0);
  assert.equal([await served("web-1"), await served("web-2")], ["two", "two"]);
  await update(lines, ["--status", "site"], 0);
});

testBus("a repo that a slave does not take is no drift of it", async () => {
  const { slave, update } = await setUp();
  await slave("web-1");
  await slave("web-2", "allow: other\n");
  const lines = ["bus://web-1", "bus://web-2"];
  await waitFor(async () => (await update(lines, ["--status"])).stdout.match(/never seen/) === null);
  const { stdout } = await update(lines, ["site", "--wait"], 1);
  assert.match(stdout, /web-2 +FAILED: repo "site" is not allowed here/);
  for (const status of [["--status"], ["--status", "site"]]) await update(lines, status, 0);
});

testBus("a slave whose key is in the list is believed only what that has signed", async () => {
  const { bus, dir, slave, update } = await setUp();
  const { publicKey } = await writeKey(join(dir, "identity.key"));
  await slave("web-1", `identity_file: ${join(dir, "identity.key")}\n`);
  const line = [`bus://web-1 key=${publicKey}`];
  await update(line, ["site", "--wait"], 0);
  const master = { servers: [bus.url], key: bus.master, name: "master", timeout: 5000 };
  const { key } = await bus.addSlave("web-1");
  const taken = await connectBus({ ...master, key, name: "web-1" });
  ends.push(() => taken.close());
  const at = Date.now() + 1000;
  const forged = seal({ kind: "answer", to: "*", at, until: at, name: "web-1", repos: [] }, undefined);
  await taken.bucket("reports").put("web-1", forged);
  const { stdout } = await update(line, ["--status"], 1);
  assert.match(stdout, "its answer is not signed with the key that the list has for it");
});

testBus("a slave may read what is for it and write its own report, and nothing else", async () => {
  const { bus } = await setUp();
  const { key } = await bus.addSlave("web-1");
  await bus.addSlave("web-2");
  const master = { servers: [bus.url], key: bus.master, name: "master", timeout: 5000 };
  const made = await connectBus(master);
  ends.push(() => made.close());
  for (const bucket of ["orders", "reports"]) await made.makeBucket(bucket);
  const nats = await connectAs(bus, key);
  const api = "$JS.API";
  const publish = [
    ...["web-1", "web-2", ">"].map((each) => `$KV.orders.${each}`),
    ...["web-2", "web-1.site", "*"].map((each) => `$KV.reports.${each}`),
    ...[`${api}.INFO`, `${api}.STREAM.INFO.KV_orders`, `${api}.STREAM.LIST`, `${api}.STREAM.NAMES`],
    ...[`${api}.STREAM.PURGE.KV_reports`, `${api}.STREAM.DELETE.KV_orders`, `${api}.STREAM.CREATE.x`],
    ...[`${api}.STREAM.MSG.GET.KV_orders`, `${api}.DIRECT.GET.KV_orders`],
    ...["web-2", ">"].map((each) => `${api}.DIRECT.GET.KV_orders.$KV.orders.${each}`),
    `${api}.DIRECT.GET.KV_reports.$KV.reports.web-2`,
    ...[`${api}.CONSUMER.CREATE.KV_orders`, `${api}.CONSUMER.CREATE.KV_orders.x.$KV.orders.>`],
    ...["_INBOX.web-2.x", "_INBOX.master.x", "$SYS.REQ.SERVER.PING", "anything"],
  ];
  const subscribe = ["$KV.orders.web-2", "$KV.orders.*"];
  subscribe.push("$KV.orders.>", "$KV.reports.*", "$KV.>", ">", "$JS.API.>", "$SYS.>");
  subscribe.push("_INBOX.>", "_INBOX.web-2.>", "_INBOX.master.>");
  const refused = new Set<string>();
  void (async () => {
    for await (const status of nats.status()) if (status.type === "error") refused.add(String(status.error.message));
  })();
  for (const subject of publish) nats.publish(subject, "x");
  for (const subject of subscribe) nats.subscribe(subject, { callback: () => {} });
  await waitFor(async () => (await nats.flush(), refused.size >= publish.length + subscribe.length));
  const all = [...refused].join("\n");
  for (const subject of publish) assert.match(all, `Publish to "${subject}"`);
  for (const subject of subscribe) assert.match(all, `Subscription to "${subject}"`);
  // what it may
  await nats.request("$KV.reports.web-1", "x");
  refused.clear();
  nats.subscribe("$KV.orders.web-1", { callback: () => {} });
  await nats.request(`${api}.DIRECT.GET.KV_orders.$KV.orders.web-1`, "");
  assert.equal([...refused], []);
});

testBus("--status --verify names a slave into whose files somebody wrote", async () => {
  const { bus, dir, slave, update } = await setUp();
  const one = await slave("web-1");
  await slave("web-2");
  const lines = ["bus://web-1", "bus://web-2"];
  await update(lines, ["site", "--wait"], 0);
  await update(lines, ["--status", "--verify", "site"], 0);
  await writeFile(join(dir, "web-2", "site/index.html"), "changed");
  const { stdout } = await update(lines, ["--status", "--verify"], 1);
  assert.match(stdout, /web-2 .*WRITTEN INTO/);
  assert.match(stdout, "1 of 2 are as they should be");
  // who asks with another key has no answer: the slave's log says why
  const { privateKey: key } = await keyPair();
  const text = orderLetter({ kind: "question" }, key);
  const master = { servers: [bus.url], key: bus.master, name: "master", timeout: 5000 };
  const looker = await connectBus(master);
  ends.push(() => looker.close());
  await looker.bucket("orders").put("web-1", JSON.stringify({ [questionKey]: text }));
  await one.until(/from the bus: the question is not signed with a key that is known here; compare master_key/);
});

/** All values of a bucket. */
async function valuesIn(bucket: Bucket): Promise<Map<string, string>> {
  const values = new Map<string, string>();
  await bucket.follow((key, text) => {
    if (text !== undefined) values.set(key, text);
  });
  return new Map(values);
}

function orderLetter(more: Partial<Letter>, key: KeyObject): string {
  const at = Date.now();
  const order = { repo: "site", sha: "0".repeat(40), branch: "main", run: "20261120T100000Z-3f2a9c" };
  return seal({ ...order, kind: "order", to: "web-1", at, until: at + 60_000, ...more }, key);
}

async function keyPair() {
  const { generateKeyPairSync } = await import("node:crypto");
  return generateKeyPairSync("ed25519");
}

async function connectAs(bus: TestBus, key: Parameters<typeof nkeyOf>[0]): Promise<NatsConnection> {
  const nats = await connect({
    servers: bus.url.replace(/^nats:\/\//, ""),
    inboxPrefix: "_INBOX.web-1",
    authenticator: (nonce = "") => ({ nkey: nkeyOf(key), sig: signNonce(nonce, key) }),
  });
  ends.push(() => nats.close());
  return nats;
}

test.run();
