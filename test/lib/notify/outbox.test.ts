// Notices are kept until they are told: grouped, tried again, given up after a day; and whoever tells never waits.
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseConfig } from "../../../lib/config/yaml.ts";
import { createMask } from "../../../lib/core/mask.ts";
import { type Notice, Outbox, notifySchema, readTargets, type Target, tellOnce } from "../../../lib/notify/notify.ts";
import { sendSamples } from "../../../lib/notify/once.ts";
import { acquireLock } from "../../../lib/files/lock.ts";
import { closeReceivers, type Received, startReceiver } from "../../helpers/receiver.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { slowness, waitFor } from "../../helpers/wait.ts";

const mask = createMask(["planted-5ecret"]);
const closing: Outbox[] = [];
test.after(async () => {
  for (const each of closing) await each.close();
  closeReceivers();
});

/** Targets as a configuration names them, which waits for no others of the same cause unless said. */
async function targetsOf(yaml: string, dir = tempDir()): Promise<Target[]> {
  const config = await parseConfig(yaml, "notify.yml", notifySchema);
  const path = (text: string) => join(dir, text);
  return await readTargets(config.value, { where: (keys) => config.where(keys), path });
}

let count = 0;
const notice = (more: Partial<Notice> = {}): Notice => ({
  id: `run-${++count}`,
  by: "hook-server",
  subject: "me/site main",
  outcome: "failed",
  what: "push failed",
  at: new Date().toISOString(),
  stage: "install",
  ...more,
});

async function open(folder: string, targets: Target[], more = {}) {
  const said: string[] = [];
  const log = (text: string) => void said.push(text);
  const outbox = await Outbox.open({ folder, targets, mask, log, backoff: 5, ...more });
  closing.push(outbox);
  return { outbox, said };
}

const messages = (received: Received[]) => received.map(({ body }) => body.message as string);

test("by default the first failure, the recovery and news are told; failure and always say more", async () => {
  const servers = await Promise.all([startReceiver(), startReceiver(), startReceiver()]);
  const whens = ["change", "failure", "always"];
  const yaml = servers.map(({ url }, at) => `- { webhook: { url: ${url} }, when: ${whens[at]}, group: 0s }`);
  const { outbox } = await open(tempDir(), await targetsOf(yaml.join("\n")));
  for (const outcome of ["ok", "failed", "failed", "ok", "ok", "news"] as const) {
    await outbox.tell(notice({ outcome }));
    await outbox.flush(10_000);
  }
  const heads = servers.map(({ received }) => messages(received).map((text) => text.split(":")[0] ?? ""));
  assert.equal(heads, [
    ["FAILED", "OK again", "NEWS"],
    ["FAILED", "STILL FAILING"],
    ["OK", "FAILED", "STILL FAILING", "OK again", "OK", "NEWS"],
  ]);
});

test("a burst of failures of one cause is one message with its count, another cause another message", async () => {
  const server = await startReceiver();
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: ${Math.ceil(slowness())}s }]`);
  const { outbox } = await open(tempDir(), targets);
  outbox.start();
  for (let at = 0; at < 12; at++) await outbox.tell(notice({ subject: `me/site${at} main` }));
  await outbox.tell(notice({ subject: "me/other main", stage: "uploads" }));
  await waitFor(() => server.received.length === 2 && outbox.waiting === 0);
  assert.equal(
    server.received.map(({ body }) => body.count),
    [12, 1],
  );
});

test("a target that does not answer holds nobody up, and gets the message after a restart", async () => {
  const folder = tempDir();
  let isDown = true;
  const server = await startReceiver(() => (isDown ? undefined : { status: 200 }));
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 0s }]`);
  const { outbox } = await open(folder, targets);
  outbox.start();
  const began = performance.now();
  await outbox.tell(notice({ lines: ["token planted-5ecret"] }));
  await waitFor(() => server.received.length === 1);
  await outbox.close();
  assert.ok(performance.now() - began < 10_000 * slowness(), "neither telling nor closing waits for it");
  const [file = ""] = await readdir(join(folder, "outbox"));
  assert.match(await readFile(join(folder, "outbox", file), "utf8"), /"key": "run-\d+"/);
  isDown = false;
  const next = await open(folder, targets);
  next.outbox.start();
  await waitFor(() => server.received.length === 2 && next.outbox.waiting === 0);
  const [first, second] = server.received;
  assert.is(second?.headers["idempotency-key"], first?.headers["idempotency-key"]);
  assert.not.match(second?.text ?? "", /planted/);
  await waitFor(async () => (await readdir(join(folder, "outbox"))).length === 0);
});

test("what fails for a while is tried again, Retry-After is respected, and the failure is said once", async () => {
  const times: number[] = [];
  const replies = [{ status: 503 }, { status: 503 }, { status: 429, headers: { "retry-after": "1" } }];
  const server = await startReceiver(() => {
    times.push(performance.now());
    return replies[times.length - 1] ?? { status: 200 };
  });
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 0s }]`);
  const { outbox, said } = await open(tempDir(), targets);
  outbox.start();
  await outbox.tell(notice());
  await waitFor(() => times.length === 4 && outbox.waiting === 0);
  assert.ok((times[3] ?? 0) - (times[2] ?? 0) >= 990);
  assert.is(said.filter((line) => line.includes("answered 503")).length, 1, said.join("\n"));
  assert.match(said.at(-1) ?? "", /takes messages again/);
});

test("a lasting refusal and a redirect are not repeated; what nobody took in a day is given up", async () => {
  const other = await startReceiver();
  const refusing = await startReceiver(() => ({ status: 410, text: "gone\u001b[2J" }));
  const moved = await startReceiver(() => ({ status: 307, headers: { location: other.url } }));
  const yaml = [refusing, moved].map(({ url }) => `- { webhook: { url: ${url} }, group: 0s }`);
  const { outbox, said } = await open(tempDir(), await targetsOf(yaml.join("\n")));
  await outbox.tell(notice());
  await outbox.flush(10_000);
  assert.is(outbox.waiting, 0);
  assert.is(other.received.length, 0, "redirects are not followed");
  assert.match(said.join("\n"), /me\/site main, and not tried again: it answered 410: gone/);
  assert.not.match(said.join("\n"), /\u001b/);

  const down = await startReceiver(() => ({ status: 500 }));
  const late = await open(tempDir(), await targetsOf(`[{ webhook: { url: ${down.url} }, group: 0s }]`), {
    patience: 200,
  });
  late.outbox.start();
  await late.outbox.tell(notice());
  await waitFor(() => late.outbox.waiting === 0);
  assert.match(late.said.at(-1) ?? "", /given up: it answered 500/);
});

for (const [clock, days] of [
  ["ahead", 30],
  ["behind", -20],
] as const)
  test(`a clock that was ${clock} when a message came delays it not, and drops it not`, async () => {
    const folder = tempDir();
    const server = await startReceiver();
    const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 50ms }]`);
    const before = await open(folder, targets);
    await before.outbox.tell(notice());
    await before.outbox.close();
    const [file = ""] = await readdir(join(folder, "outbox"));
    const path = join(folder, "outbox", file);
    const queued = new Date(Date.now() + days * 86_400_000).toISOString();
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, "utf8")), queued }));
    const { outbox, said } = await open(folder, targets);
    await outbox.tell(notice({ outcome: "ok" }));
    outbox.start();
    await waitFor(() => server.received.length === 2 && outbox.waiting === 0, { what: () => said.join("\n") });
    assert.equal(
      messages(server.received).map((text) => text.split(":")[0]),
      ["FAILED", "OK again"],
    );
    assert.equal(said, []);
  });

test("a flood of one repo drops its own messages, and forgets none of another repo's failures", async () => {
  const folder = tempDir();
  const known = (subject: string, repo: string) => ({ subject, repo, id: subject, failing: true, failures: 1 });
  const evil = Array.from({ length: 998 }, (_, at) => known(`x/evil b${at}`, "x/evil"));
  await writeFile(join(folder, "subjects.json"), JSON.stringify([known("x/victim main", "x/victim"), ...evil]));
  let isDown = true;
  const server = await startReceiver(() => ({ status: isDown ? 503 : 200 }));
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, when: failure, group: 0s }]`);
  const { outbox, said } = await open(folder, targets, { maxWaiting: 5 });
  await outbox.tell(notice({ subject: "x/victim main", repo: "x/victim" }));
  for (let at = 0; at < 12; at++) await outbox.tell(notice({ subject: `x/evil new${at}`, repo: "x/evil" }));
  isDown = false;
  await outbox.flush(10_000);
  assert.match(messages(server.received)[0] ?? "", /^STILL FAILING: x\/victim main/);
  assert.match(said.join("\n"), /5 messages wait for it; the oldest about x\/evil are dropped$/m);
  const healed = await outbox.tell(notice({ subject: "x/victim main", repo: "x/victim", outcome: "ok" }));
  assert.is(healed.change, "fixed");
});

test("the same notice told twice is told once; a failure and its recovery arrive in that order", async () => {
  const server = await startReceiver();
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 0s }]`);
  const { outbox } = await open(tempDir(), targets);
  const failed = notice();
  const first = await outbox.tell(failed);
  assert.equal(await outbox.tell(failed), first);
  await outbox.tell(notice({ outcome: "ok" }));
  await outbox.flush(10_000);
  assert.equal(await outbox.tell(failed).then(({ change }) => change), "broken");
  assert.equal(
    messages(server.received).map((text) => text.split(":")[0]),
    ["FAILED", "OK again"],
  );
});

test("what was told of branches that are long gone is forgotten, first of those that are well again", async () => {
  const folder = tempDir();
  const entry = (_: unknown, n: number) => ({
    ...{ subject: `me/site b-${n}`, repo: "me/site", id: `run-of-${n}` },
    failing: n !== 1,
    failures: 1,
    since: "2026-01-01T00:00:00Z",
  });
  const known = Array.from({ length: 1000 }, entry);
  await writeFile(join(folder, "subjects.json"), JSON.stringify(known));
  const { outbox } = await open(folder, []);
  const subjects = async () =>
    JSON.parse(await readFile(join(folder, "subjects.json"), "utf8")).map((each: Notice) => each.subject);
  assert.is((await outbox.tell(notice({ subject: "me/site new" }))).change, "broken");
  assert.equal([(await subjects()).length, (await subjects()).includes("me/site b-1")], [1000, false]);
  await outbox.tell(notice({ subject: "me/site b-0" }));
  await outbox.tell(notice({ subject: "me/site newer" }));
  const left = await subjects();
  assert.equal([left.length, left.includes("me/site b-0"), left.includes("me/site b-2")], [1000, true, false]);
});

test("a command gets the text on stdin and all else in its environment, in /, never in its own words", async () => {
  const dir = tempDir();
  const text = `cat >${dir}/stdin; pwd >${dir}/pwd; env >${dir}/env`;
  const [target] = await targetsOf(JSON.stringify([{ command: text, when: "always" }]));
  const subject = "me/site $(touch /tmp/never) `id`";
  const { outbox } = await open(tempDir(), [target as Target]);
  await outbox.tell(notice({ subject, sha: "a".repeat(40) }));
  await outbox.flush(20_000);
  const { readFile } = await import("node:fs/promises");
  assert.is(await readFile(join(dir, "pwd"), "utf8"), "/\n");
  assert.match(await readFile(join(dir, "stdin"), "utf8"), /^what: +push failed/);
  const env = await readFile(join(dir, "env"), "utf8");
  assert.ok(env.includes(`NOTIFY_SUBJECT=${subject}\n`), env);
  assert.match(env, /^NOTIFY_CHANGE=broken$/m);
});

test("a script that ends tells what it can, and the next one sends the rest", async () => {
  const folder = tempDir();
  let isDown = true;
  const server = await startReceiver(() => (isDown ? undefined : { status: 200 }));
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} } }]`);
  const said: string[] = [];
  const options = { folder, targets, mask, log: (text: string) => void said.push(text) };
  const began = performance.now();
  await tellOnce(notice({ by: "build" }), { ...options, limit: 300 });
  assert.ok(performance.now() - began < 8_000 * slowness());
  isDown = false;
  await tellOnce(notice({ by: "build", outcome: "ok" }), options);
  assert.equal(
    messages(server.received.slice(1)).map((text) => text.split(":")[0]),
    ["FAILED", "OK again"],
  );
});

test("a script that cannot hand its message over, as another one holds the folder, says so", async () => {
  const folder = tempDir();
  const lock = await acquireLock(join(folder, "lock"), {
    what: "another",
    wait: 0,
    secluded: true,
  });
  const said: string[] = [];
  const log = (text: string) => void said.push(text);
  const targets = await targetsOf("[{ command: 'true' }]");
  await tellOnce(notice({ by: "build" }), { folder, targets, mask, log, limit: 200 });
  lock.release();
  assert.is(said.length, 1);
  assert.match(said[0] ?? "", /^notify: nobody was told of me\/site main: /);
});

test("of the messages that wait for a target the newest are kept, and that older ones go is said once", async () => {
  let isDown = true;
  const server = await startReceiver(() => ({ status: isDown ? 503 : 200 }));
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 0s }]`);
  const folder = tempDir();
  const { outbox, said } = await open(folder, targets, { maxWaiting: 3 });
  for (let at = 1; at <= 6; at++) await outbox.tell(notice({ subject: `me/site${at} main` }));
  assert.is((await readdir(join(folder, "outbox"))).length, 3);
  isDown = false;
  await outbox.flush(10_000);
  assert.equal(
    server.received.flatMap(({ body }) => body.notices.map((each: Notice) => each.subject)),
    ["me/site4 main", "me/site5 main", "me/site6 main"],
  );
  const dropped = said.filter((text) => text.includes("dropped"));
  assert.equal(dropped, [
    ...[1, 2, 3].map(
      (at) =>
        `notify: webhook at ${new URL(server.url).host}: 3 messages wait for it; ` +
        `the oldest about me/site${at} main are dropped`,
    ),
  ]);
});

test("targets that take a message at the same moment leave nothing of it behind", async () => {
  const folder = tempDir();
  const target = (id: string): Target => ({
    ...{ id, name: id, when: "always", group: 0, secrets: [] },
    send: async () => {},
  });
  const { outbox } = await open(folder, ["one", "two", "three"].map(target));
  for (let at = 0; at < 20; at++) {
    await outbox.tell(notice());
    await outbox.flush(10_000);
  }
  assert.equal(await readdir(join(folder, "outbox")), []);
});

test("a file in the outbox that is no notice is left aside, and holds nothing up", async () => {
  const folder = tempDir();
  const server = await startReceiver();
  const targets = await targetsOf(`[{ webhook: { url: ${server.url} }, group: 0s }]`);
  await mkdir(join(folder, "outbox"));
  const ids = targets.map(({ id }) => id);
  const queued = new Date().toISOString();
  const message = notice({ id: "odd" });
  const files = {
    "1.json": { message, target: ids[0] },
    "b.json": { message, queued, target: ids[0], key: "odd", about: "a", repo: "b" },
    "3.json": null,
  };
  for (const [name, content] of Object.entries(files))
    await writeFile(join(folder, "outbox", name), JSON.stringify(content));
  const { outbox, said } = await open(folder, targets);
  await outbox.tell(notice());
  await outbox.flush(10_000);
  assert.is(server.received.length, 1);
  assert.is(said.length, 3, said.slice(0, 5).join("\n"));
  for (const line of said) assert.match(line, /\/[1b3]\.json: is not a message; left aside$/);
});

test("Slack and ntfy get their own shapes, with the token; a sample goes to each, and says which did not take it", async () => {
  const dir = tempDir();
  const server = await startReceiver(({ path }) => ({ status: path === "/broken" ? 500 : 200 }));
  await writeFile(join(dir, "hook"), `${server.url}/services/T0/B0/planted-hook-secret\n`, {
    mode: 0o600,
  });
  await writeFile(join(dir, "token"), "tk_planted_token\n", { mode: 0o600 });
  const targets = await targetsOf(
    `- webhook: { url_file: hook, shape: slack }
- ntfy: { server: ${server.url}, topic: ops, token_file: token }
- webhook: { url: ${server.url}/broken }`,
    dir,
  );
  const results = await sendSamples(targets, { by: "hook-server", mask });
  assert.equal(
    results.map(({ ok }) => ok),
    [true, true, false],
  );
  const at = (path: string) => server.received.find((each) => each.path === path);
  assert.match(at("/services/T0/B0/planted-hook-secret")?.body.text, /^\*NEWS\*/);
  assert.is(at("/")?.body.topic, "ops");
  assert.is(at("/")?.headers.authorization, "Bearer tk_planted_token");
  assert.ok(targets[0]?.secrets.includes("services/T0/B0/planted-hook-secret"));
});

for (const [what, yaml, message] of [
  ["of two kinds", "[{ command: x, ntfy: { topic: a } }]", /one of email, webhook, ntfy, command/],
  ["that stands there twice", "[{ command: x }, { command: x, when: always }]", /twice/],
  ["of none", "[{ when: always }]", /notify\.yml:1:2: a target is one of .* and this has none/],
  ["with an unknown key", "[{ webhok: {} }]", /did you mean "webhook"/],
  ["mail without a server", "[{ email: { to: a@b.c } }]", /either server or sendmail/],
  ["two addresses in one", "[{ email: { to: 'a@b.c, d@e.f', sendmail: /x } }]", /one mail address/],
  ["an address like an option", "[{ email: { to: -oQ@b.c, sendmail: /x } }]", /one mail address/],
  ["a login without its password", "[{ email: { to: a@b.c, server: 'smtp://h', user: u } }]", /password_file/],
  ["a secret that is not there", "[{ webhook: { url_file: none } }]", /does not exist/],
] as const)
  test(`a target ${what} is a config error`, async () => {
    await targetsOf(yaml).then(
      () => assert.unreachable("it was taken"),
      (error: Error) => assert.match(error.message, message),
    );
  });

test.run();
