// Commit statuses at servers that are as strict as the forges: each commit ends with the right one, whatever the way does.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";
import { parseConfig } from "../../../lib/config/yaml.ts";
import {
  type CommitStatus,
  forgeSchema,
  type ForgeKind,
  readForges,
  type StatusState,
  statusItem,
  statusTarget,
} from "../../../lib/statuses/statuses.ts";
import { judgeAnswer } from "../../../lib/statuses/forges.ts";
import { Outbox } from "../../../lib/notify/notify.ts";
import { type Fault, startForge } from "../../helpers/forges.ts";
import { closeReceivers, type Received, startReceiver } from "../../helpers/receiver.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

const closing: Outbox[] = [];
test.after(async () => {
  for (const each of closing) await each.close();
  closeReceivers();
});

const host = "git.example.com";
const shaOf = (number: number) => number.toString(16).padStart(40, "a");
const statusOf = (number: number, state: StatusState, more = {}): CommitStatus => ({
  ...{ repo: "me/site", sha: shaOf(number), ref: "refs/heads/main", context: "boatyard/push" },
  ...{ state, description: state, url: "https://ci.example.com/runs/1" },
  ...more,
});

async function open(kind: ForgeKind, fault?: (request: Received) => Fault, options: object = {}) {
  const forge = await startForge(kind, fault);
  const said: string[] = [];
  const log = (text: string) => void said.push(text);
  const targets = [statusTarget({ host, kind, api: forge.api, token: forge.token })];
  const mask = createMask([forge.token]);
  const statuses = await Outbox.open({ folder: tempDir(), targets, mask, log, backoff: 5, ...options });
  statuses.start();
  closing.push(statuses);
  const set = async (number: number, state: StatusState, more = {}) =>
    await statuses.put(`status ${host}`, statusItem(statusOf(number, state, more)), { keep: false });
  const told = () => waitFor(() => statuses.waiting === 0, { what: () => said.join("\n") });
  return { forge, statuses, said, set, told };
}

const expected: Record<ForgeKind, Record<StatusState, string>> = {
  github: {
    ...{ waiting: "pending", running: "pending", ok: "success", failed: "failure" },
    ...{ cancelled: "error", superseded: "error" },
  },
  gitea: {
    ...{ waiting: "pending", running: "pending", ok: "success", failed: "failure" },
    ...{ cancelled: "error", superseded: "error" },
  },
  gitlab: {
    ...{ waiting: "pending", running: "running", ok: "success", failed: "failed" },
    ...{ cancelled: "canceled", superseded: "canceled" },
  },
  bitbucket: {
    ...{ waiting: "INPROGRESS", running: "INPROGRESS", ok: "SUCCESSFUL", failed: "FAILED" },
    ...{ cancelled: "STOPPED", superseded: "STOPPED" },
  },
  "bitbucket-dc": {
    ...{ waiting: "INPROGRESS", running: "INPROGRESS", ok: "SUCCESSFUL", failed: "FAILED" },
    ...{ cancelled: "CANCELLED", superseded: "CANCELLED" },
  },
};

for (const kind of Object.keys(expected) as ForgeKind[])
  test(`${kind}: every state is shown, in fields and lengths that it takes, and in order`, async () => {
    const { forge, set, told } = await open(kind);
    const states = Object.entries(expected[kind]) as [StatusState, string][];
    for (const [number, [state, shown]] of states.entries()) {
      const long = { description: "ü😀".repeat(300) };
      await set(number, state, long);
      await told();
      assert.is(forge.shown(shaOf(number), "boatyard/push"), shown);
    }
    for (const state of ["waiting", "running", "ok"] as const) {
      await set(99, state);
      await told();
    }
    assert.is(forge.history(shaOf(99), "boatyard/push").at(-1), expected[kind].ok);
    assert.equal(forge.refused, []);
    // the branch is named where a forge would take the first one that has the commit
    if (kind === "gitlab") assert.is(forge.received[0]?.body.ref, "main");
  });

test("what was not told when the server ended is told by the next one, the newest state alone", async () => {
  const folder = tempDir();
  const forge = await startForge("gitlab");
  const target = statusTarget({ host, kind: "gitlab", api: forge.api, token: forge.token });
  const options = { folder, targets: [target], mask: createMask([]), log: console.error };
  const openOne = async () => await Outbox.open(options);
  const first = await openOne();
  const put = async (state: StatusState, keep: boolean) =>
    await first.put(target.id, statusItem(statusOf(1, state)), { keep });
  await put("running", false);
  await put("failed", true);
  await put("ok", true);
  await first.close();
  const next = await openOne();
  closing.push(next);
  next.start();
  await waitFor(() => next.waiting === 0);
  assert.equal(forge.history(shaOf(1), "boatyard/push"), ["success"]);
});

test("GitLab's 400 to a repeat counts as taken: the answer before was lost", async () => {
  let isLost = true;
  const fault = (): Fault => {
    const first = isLost;
    isLost = false;
    return first ? "cut after" : undefined;
  };
  const { forge, set, told, said } = await open("gitlab", fault);
  await set(1, "running");
  await told();
  assert.match(forge.refused.join(), /Cannot transition status/);
  assert.not.match(said.join(), /refused/);
});

for (const [kind, count] of [
  ["github", 300],
  ["gitlab", 100],
] as const)
  test(`${kind}: ${count} commits through an API that fails half the time each end with the right status`, async () => {
    let random = 42;
    const next = () => (random = (random * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
    const faults: Fault[] = ["503 before", "cut before", "cut after"];
    const fault = () => (next() < 0.5 ? faults[Math.floor(next() * 3)] : undefined);
    const { forge, set, told } = await open(kind, fault, { backoff: 1 });
    const ends: StatusState[] = ["ok", "failed", "cancelled", "superseded"];
    const settled = Array.from({ length: count }, (_, number) => number);
    for (const number of settled) await set(number, "waiting");
    for (const number of settled) await set(number, "running");
    await waitFor(() => forge.received.length > 50);
    for (const number of settled) await set(number, ends[number % 4] as StatusState);
    await told();
    for (const number of settled) {
      const state = ends[number % 4] as StatusState;
      const history = forge.history(shaOf(number), "boatyard/push");
      assert.is(history.at(-1), expected[kind][state]);
      // nothing that is not final comes after what is
      const firstEnd = history.indexOf(expected[kind][state]);
      assert.equal([...new Set(history.slice(firstEnd))], [expected[kind][state]]);
    }
  });

test("a rate limit holds the whole forge back for as long as it asks", async () => {
  const times: number[] = [];
  let isLimited = true;
  const { set, told } = await open("github", () => {
    times.push(performance.now());
    if (!isLimited) return undefined;
    isLimited = false;
    const reset = Math.ceil(Date.now() / 1000) + 1;
    const headers = { "x-ratelimit-remaining": "0", "x-ratelimit-reset": `${reset}` };
    return { status: 403, text: '{"message":"API rate limit exceeded"}', headers };
  });
  await set(1, "ok");
  await waitFor(() => times.length === 1);
  await new Promise((done) => setTimeout(done, 50));
  await set(2, "ok");
  await told();
  assert.ok((times[1] ?? 0) - (times[0] ?? 0) > 900, "nobody asks before the time");
});

test("GitHub's secondary rate limit is waited for, also where the answer has no header that says so", () => {
  const text = `{"message":"You have exceeded a secondary rate limit. Please wait"}`;
  const limited = judgeAnswer("github", { status: 403, headers: {}, text }, Date.now());
  assert.equal([limited?.advice, limited?.message], [{ retryAfter: 60_000 }, `it answered 403: ${text}`]);
  const forbidden = { status: 403, headers: {}, text: "Resource not accessible" };
  assert.is(judgeAnswer("github", forbidden, Date.now())?.advice.final, true);
});

test("a lasting refusal is said once and not repeated, with no secret and no redirect followed", async () => {
  const other = await startReceiver();
  const { forge, set, told, said } = await open("github", ({ body }) =>
    body.description === "ok"
      ? { status: 307, headers: { location: `${other.url}/x` } }
      : { status: 401, text: "Bad credentials planted-forge-token" },
  );
  await set(1, "ok");
  await set(2, "failed");
  await told();
  assert.is(other.received.length, 0);
  assert.is(forge.received.length, 2);
  assert.match(said.join("\n"), /not told of me\/site \w+ \(ok\), and not tried again: it answered 307, a redirect/);
  assert.match(said.join("\n"), /401: Bad credentials \*\*\*/);
});

test("an API that is down for too long is given up with a line", async () => {
  const { said, set, told } = await open("gitea", () => "503 before", { patience: 150 });
  await set(1, "ok");
  await told();
  assert.match(said.at(-1) ?? "", /not told of me\/site .* \(ok\), given up: it answered 503/);
});

test("a forge that asks to wait for years is asked again after an hour, and given up in time", async () => {
  const limited = () => ({ status: 429, text: "", headers: { "retry-after": "99999999999" } });
  const { said, set } = await open("gitea", limited);
  await set(1, "ok");
  await waitFor(() => said.length > 0);
  assert.match(said.join("\n"), /not told of me\/site .* \(ok\), tried again in 1h( 00m)?: it answered 429/);
  const late = await open("gitea", limited, { patience: 300 });
  await late.set(1, "ok");
  await late.told();
  assert.match(late.said.at(-1) ?? "", /given up: it answered 429/);
});

test("a configuration that is read again while statuses are on their way holds none back", async () => {
  let answer = () => {};
  const gate = new Promise<void>((done) => (answer = done));
  const server = await startReceiver(() => gate.then(() => ({ status: 201 })));
  const forges = [{ host, kind: "github" as const, api: server.url, token: "t" }];
  const targets = forges.map(statusTarget);
  const statuses = await Outbox.open({ folder: tempDir(), targets, mask: createMask([]), log: console.error });
  closing.push(statuses);
  statuses.start();
  for (let number = 0; number < 6; number++)
    await statuses.put(`status ${host}`, statusItem(statusOf(number, "ok")), { keep: false });
  await waitFor(() => server.received.length === 4);
  await statuses.setTargets(targets);
  answer();
  await waitFor(() => statuses.waiting === 0 && server.received.length === 6, { timeout: 5000 });
});

test("a long context has a key of its own at Bitbucket, never one cut short", async () => {
  const { forge, set, told } = await open("bitbucket");
  const names = ["a", "b"].map((end) => `${"long-".repeat(10)}${end}`);
  for (const context of names) await set(1, "ok", { context });
  await told();
  const keys = forge.received.map(({ body }) => body.key as string);
  assert.is(new Set(keys).size, 2);
  for (const key of keys) assert.match(key, /^[0-9a-f]{40}$/);
});

test("the API's address is the configuration's; a repo's name is a part of the path only", async () => {
  const { forge, statuses, set, told } = await open("github");
  await statuses.put("status evil.example", statusItem(statusOf(1, "ok")));
  await set(2, "ok", { repo: "me/../../x?y#/site" });
  await told();
  assert.is(forge.received.length, 1);
  assert.match(forge.received[0]?.path ?? "", /^\/api\/v3\/repos\/me%2F\.\.%2F\.\.%2Fx%3Fy%23\/site\//);
});

async function read(yaml: string, url?: string) {
  const config = await parseConfig(yaml, "hooks.yml", forgeSchema);
  return await readForges(config.value, {
    where: (keys) => config.where(keys),
    path: (text) => text,
    url,
  });
}

for (const [what, yaml, message] of [
  ["Bitbucket without url:", "{ bitbucket.org: { kind: bitbucket, token_file: /t } }", /set url:/],
  ["an unknown kind", "{ a.b: { kind: gitlub, token_file: /t } }", /did you mean "git/],
  ["a URL for a host", "{ 'https://a.b': { kind: gitea, token_file: /t } }", /is not a host/],
  ["a token that is not there", "{ a.b: { kind: gitea, token_file: /none } }", /does not exist/],
  ["an api with a login", "{ a.b: { kind: gitea, api: 'https://u:p@c', token_file: /t } }", /URL/],
] as const)
  test(`${what} is a config error`, async () => {
    await read(yaml).then(
      () => assert.unreachable("it was taken"),
      (error: Error) => assert.match(error.message, message),
    );
  });

test.run();
