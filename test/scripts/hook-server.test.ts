// The front door of hook-server: what is let in, what is answered, what is logged.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { chmod, rename, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import {
  filesBelow,
  http,
  lastDigitChanged,
  logOf,
  makeYard,
  pushPayload,
  runScript,
  secret,
  sha,
  sign,
  startHooks,
} from "../helpers/hooks.ts";
import { waitFor } from "../helpers/wait.ts";

test("a signed push is answered with the run's id and built with its facts", async () => {
  const dir = await makeYard({
    job: 'echo "$@"; env | grep -E "^(HOOK|RELEASE|HOME|PATH|BOAT|SECRET)" ; cat "$HOOK_PAYLOAD"; echo to stderr >&2; umask',
  });
  const server = await startHooks(dir, { env: { SECRET_OF_THE_SERVER: "planted" } });
  const answer = await server.push("me/site", sha(1), { id: "delivery-1" });
  assert.is(answer.status, 202);
  assert.equal(Object.keys(answer.body), ["run"]);
  const [run] = await server.idle();
  assert.is(run?.id, answer.body.run);
  assert.is(run?.state, "succeeded");
  const log = logOf(server, answer.body.run);
  assert.match(log, `${dir}/co --ref refs/heads/main --sha ${sha(1)}\n`);
  for (const line of [
    "HOOK_EVENT=push",
    "HOOK_REPO=me/site",
    "HOOK_REF=refs/heads/main",
    `HOOK_SHA=${sha(1)}`,
    "HOOK_DELIVERY=delivery-1",
    `HOOK_RUN=${answer.body.run}`,
    `HOOK_PAYLOAD=${server.state}/runs/${answer.body.run}/hook-payload.json`,
    JSON.stringify(pushPayload("me/site", sha(1))),
    "to stderr",
    "0022",
  ]) {
    assert.match(log, line);
  }
  assert.not.match(log, "SECRET_OF_THE_SERVER");
  await server.stop();
});

test("a release runs once, when it is published, with its own variables", async () => {
  const dir = await makeYard({ job: 'echo "$@"; env | grep RELEASE_ | sort' });
  const server = await startHooks(dir);
  const payload = (action: string) => ({
    action,
    release: {
      tag_name: "v1.10",
      name: "One $(id)",
      html_url: "https://forge/v1.10",
      prerelease: true,
      draft: false,
    },
    repository: { full_name: "me/site" },
  });
  for (const action of ["created", "published", "released"]) {
    const { status } = await server.send({ event: "release", payload: payload(action) });
    assert.is(status, action === "published" ? 202 : 200);
  }
  const runs = await server.idle();
  assert.is(runs.length, 1);
  const log = logOf(server, runs[0]?.id ?? "");
  assert.match(log, `${dir}/co --tag v1.10\n`);
  for (const line of [
    "RELEASE_TAG=v1.10",
    "RELEASE_NAME=One $(id)",
    "RELEASE_URL=https://forge/v1.10",
    "RELEASE_PRERELEASE=true",
  ]) {
    assert.match(log, line);
  }
  await server.stop();
});

test("pings, other events, other and deleted refs are answered 200 and run nothing", async () => {
  const server = await startHooks(await makeYard());
  const expectations: [Promise<{ status: number; body: { reason: string } }>, RegExp][] = [
    [server.send({ event: "ping", payload: { zen: "x", repository: { full_name: "me/site" } } }), /pong/],
    [server.send({ event: "ping", payload: { zen: "of an organisation" } }), /pong/],
    [server.send({ event: "issues", payload: { repository: { full_name: "me/site" } } }), /this event/],
    [server.push("me/site", sha(1), { ref: "refs/heads/other" }), /this ref/],
    [server.push("me/site", sha(1), { ref: "refs/tags/v1" }), /this ref/],
    [server.send({ payload: { ...pushPayload("me/site", "0".repeat(40)), deleted: true } }), /deleted/],
  ];
  for (const [sent, reason] of expectations) {
    const { status, body } = await sent;
    assert.is(status, 200);
    assert.match(body.reason, reason);
  }
  assert.equal(await server.runs(), []);
  await server.stop();
});

test("form-encoded JSON and the address of node-github-hook work", async () => {
  const server = await startHooks(await makeYard({ job: 'cat "$HOOK_PAYLOAD"' }));
  // a number that JSON.parse would round
  const payload = `{"number":12345678901234567890,${JSON.stringify(pushPayload("me/site", sha(3))).slice(1)}`;
  const raw = new URLSearchParams({ payload }).toString();
  const form = { "content-type": "application/x-www-form-urlencoded" };
  const answer = await server.send({ raw, headers: form, path: "/github/callback" });
  assert.is(answer.status, 202);
  await server.idle();
  assert.match(logOf(server, answer.body.run), payload);
  await server.stop();
});

test("every forge's own delivery starts a run", async () => {
  const server = await startHooks(await makeYard({ repos: { "me/site": "refs: [main, 'refs/tags/v*']" } }));
  const push = JSON.stringify(pushPayload("me/site", sha(4)));
  const gitlab = JSON.stringify({
    ref: "refs/heads/main",
    after: sha(5),
    project: { path_with_namespace: "me/site" },
  });
  const cloud = JSON.stringify({
    repository: { full_name: "me/site" },
    push: {
      changes: [
        { new: { type: "branch", name: "main", target: { hash: sha(6) } } },
        { new: { type: "tag", name: "v1", target: { hash: sha(7) } } },
      ],
    },
  });
  const table: [string, Record<string, string>][] = [
    [push, { "x-gitea-event": "push", "x-gitea-delivery": "1", "x-gitea-signature": sign(push) }],
    [push, { "x-gogs-event": "push", "x-gogs-delivery": "2", "x-gogs-signature": sign(push) }],
    [push, { "x-forgejo-event": "push", "x-forgejo-delivery": "3", "x-forgejo-signature": sign(push) }],
    [gitlab, { "x-gitlab-event": "Push Hook", "x-gitlab-event-uuid": "4", "x-gitlab-token": secret }],
    [
      cloud,
      {
        "x-event-key": "repo:push",
        "x-request-uuid": "5",
        "x-hub-signature": `sha256=${sign(cloud)}`,
      },
    ],
  ];
  for (const [body, headers] of table) {
    const all = { "content-type": "application/json", ...headers };
    const answer = await http({ port: server.port }, "/hook", { body, headers: all });
    assert.is(answer.status, 202, answer.text);
    if (body === cloud) assert.is(answer.body.runs.length, 2);
  }
  const wrong = {
    "content-type": "application/json",
    "x-gitlab-event": "Push Hook",
    "x-gitlab-token": `${secret}x`,
  };
  assert.is((await http({ port: server.port }, "/hook", { body: gitlab, headers: wrong })).status, 401);
  await server.idle();
  await server.stop();
});

test("a stranger gets nothing, and the log has one line with the reason", async () => {
  const dir = await makeYard({ repos: { "me/site": "", "me/other": "secret_file: other" } });
  await writeFile(join(dir, "other"), "another-planted-secret", { mode: 0o600 });
  const server = await startHooks(dir);
  const json = { "content-type": "application/json" };
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const refusals: [string, Promise<{ status: number; text: string }>, number, RegExp][] = [
    ["r1", server.push("me/site", sha(1), { key: null, id: "r1" }), 401, /signature is missing/],
    ["r2", server.push("me/site", sha(1), { key: "wrong", id: "r2" }), 401, /signature is wrong/],
    ["r3", server.push("me/other", sha(1), { id: "r3" }), 401, /signature is wrong/],
    ["r4", server.push("no/where", sha(1), { id: "r4" }), 404, /not configured/],
    ["r5", server.push("no/where", sha(1), { id: "r5", key: "wrong" }), 401, /signature is wrong/],
    ["r6", server.send({ raw: "{not json", id: "r6" }), 400, /not JSON/],
    ["r7", server.send({ raw: "null", id: "r7" }), 400, /not a JSON object/],
    ["r8", server.push("me/site", "--upload-pack=id", { id: "r8" }), 400, /commit/],
    ["r9", server.push("me/site", sha(1), { id: "r9", ref: "refs/heads/a b;$(id)" }), 400, /ref/],
    ["ra", server.push("constructor", sha(1), { id: "ra" }), 400, /no repository/],
    ["rb", server.push("__proto__/x", sha(1), { id: "rb" }), 400, /no repository/],
    [
      "rc",
      server.push("me/site", sha(1), { id: "rc", headers: { "content-type": "text/plain" } }),
      415,
      /send application/,
    ],
    ["rd", server.send({ raw: body, id: "rd", headers: { "x-hub-signature-256": "sha1=0" } }), 401, /wrong/],
    [
      "re",
      server.send({
        raw: body,
        id: "re",
        headers: { "x-hub-signature-256": `sha256=${lastDigitChanged(sign(body))}` },
      }),
      401,
      /signature is wrong/,
    ],
  ];
  for (const [id, sent, expected, reason] of refusals) {
    const { status, text } = await sent;
    assert.is(status, expected, `${id}: ${text}`);
    assert.equal(Object.keys(JSON.parse(text)), ["error"]);
    await waitFor(() => server.running.output().includes(` ${id} `));
    const lines = server.running
      .output()
      .split("\n")
      .filter((line) => line.includes(` ${id} `));
    assert.is(lines.length, 1);
    assert.match(lines[0] ?? "", reason);
  }
  assert.is((await http({ port: server.port }, "/hook", { body, headers: json })).status, 400);
  assert.is((await http({ port: server.port }, "/hook")).status, 405);
  for (const path of ["/", "/hook/", "/../hook", "/runs", "/metrics"]) {
    assert.is((await http({ port: server.port }, path)).status, 404);
  }
  assert.equal(await server.runs(), []);
  for (const text of [
    server.running.output(),
    ...filesBelow(server.state).map((file) => readFileSync(file, "latin1")),
  ]) {
    for (const planted of [
      secret,
      "another-planted-secret",
      Buffer.from(secret).toString("base64").slice(0, 16),
      sign(body),
    ]) {
      assert.not(text.includes(planted));
    }
  }
  await server.stop();
});

test("a body over 25 MiB, or one that does not say its length, is refused before it is read", async () => {
  const server = await startHooks(await makeYard());
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", reject);
    socket.setEncoding("utf8").once("data", resolve);
    socket.write(
      `POST /hook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${sign("")}\r\ncontent-length: ${26 * 1024 * 1024}\r\n\r\n{`,
    );
  });
  assert.match(answer, /^HTTP\/1\.1 413 /);
  const chunked = await new Promise<string>((resolve) => {
    const socket = connect(server.port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8").on("data", (data) => {
      text += String(data);
      resolve(text);
    });
    socket.on("error", () => resolve(text));
    socket.write(
      `POST /hook HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: push\r\nx-hub-signature-256: sha256=${sign("")}\r\ntransfer-encoding: chunked\r\n\r\n`,
    );
    const piece = `100000\r\n${"x".repeat(0x100000)}\r\n`;
    for (let sent = 0; sent < 27; sent++) socket.write(piece);
  });
  assert.match(chunked, /^HTTP\/1\.1 411 /);
  await server.stop();
});

test("a delivery that comes again gives the same run, also after a restart; one that failed runs again", async () => {
  const dir = await makeYard({ job: "test -e good || exit 1" });
  let server = await startHooks(dir);
  const first = await server.push("me/site", sha(1), { id: "again" });
  assert.is(first.status, 202);
  assert.is((await server.idle())[0]?.state, "failed");
  await writeFile(join(dir, "co/good"), "");
  const second = await server.push("me/site", sha(1), { id: "again" });
  assert.is(second.status, 202);
  assert.is.not(second.body.run, first.body.run);
  await server.idle();
  for (let restart = 0; restart < 2; restart++) {
    const third = await server.push("me/site", sha(1), { id: "again" });
    assert.is(third.status, 200);
    assert.is(third.body.run, second.body.run);
    await server.kill();
    server = await startHooks(dir);
  }
  assert.is((await server.runs()).length, 2);
  const twins = await Promise.all([1, 2, 3].map(() => server.push("me/site", sha(2), { id: "twins" })));
  assert.is(twins.filter(({ status }) => status === 202).length, 1);
  assert.is(new Set(twins.map(({ body }) => body.run)).size, 1);
  await server.idle();
  await server.stop();
});

test("two secrets are taken while one is rotated, and a change of the file is taken over", async () => {
  const dir = await makeYard({ repos: { "me/site": "secret_file: [secret, new]" } });
  await writeFile(join(dir, "new"), "the-new-planted-one", { mode: 0o600 });
  const server = await startHooks(dir);
  assert.is((await server.push("me/site", sha(1))).status, 202);
  assert.is((await server.push("me/site", sha(2), { key: "the-new-planted-one" })).status, 202);
  // as editors do: a new file in the place of the old one
  const text = readFileSync(join(dir, "hooks.yml"), "utf8");
  await writeFile(join(dir, "hooks.tmp"), text.replace("[secret, new]", "new"));
  await rename(join(dir, "hooks.tmp"), join(dir, "hooks.yml"));
  await server.running.until(/was read again/);
  assert.is((await server.push("me/site", sha(3))).status, 401);
  assert.is((await server.push("me/site", sha(4), { key: "the-new-planted-one" })).status, 202);
  await server.idle();
  await writeFile(join(dir, "hooks.yml"), text.replace("refs:", "reffs:"));
  await server.running.until(/hooks\.yml:\d+:\d+: unknown key "reffs" \(did you mean "refs"\?\)/);
  assert.match(server.running.output(), "the former configuration stays");
  assert.is((await server.push("me/site", sha(5), { key: "the-new-planted-one" })).status, 202);
  await writeFile(join(dir, "hooks.yml"), text);
  server.running.kill("SIGHUP");
  await waitFor(async () => (await server.push("me/site", sha(6))).status === 202);
  await server.idle();
  await server.stop();
});

test("a wrong configuration is exit 2, with file, line and what to do", async () => {
  const dir = await makeYard();
  const file = join(dir, "hooks.yml");
  const good = readFileSync(file, "utf8");
  const wrong: [string, string, RegExp][] = [
    ["    secret_file: secret\n", "", /hooks\.yml:\d+:\d+: me\/site has no secret; add secret_file, or insecure: true/],
    ["secret_file: secret", "secret_file: none", /hooks\.yml:\d+:\d+: secret file .*none does not exist/],
    ["poll: false", "poll: soon", /hooks\.yml:\d+:\d+: .*duration/],
    ["  me/site:", "  site:", /hooks\.yml:\d+:\d+: "site" is not a repository name/],
    ["refs: [main]", "refs: ['a b']", /hooks\.yml:\d+:\d+: "a b" is not a branch/],
    ["poll: false", "user: no-such-user-here", /hooks\.yml:\d+:\d+: there is no Unix user/],
    [`push: ${dir}/job`, "push: no-such-script", /the script "no-such-script" is neither beside .* nor on PATH/],
    ["listen: 127.0.0.1:0", "listen: nowhere", /hooks\.yml:1:\d+: "nowhere" is not an address/],
  ];
  for (const [from, to, message] of wrong) {
    assert.ok(good.includes(from), from);
    await writeFile(file, good.replace(from, to));
    const { code, stderr } = await runScript("hook-server", ["--config", file]);
    assert.is(code, 2, stderr);
    assert.match(stderr, message);
  }
  await writeFile(file, good);
  await chmod(join(dir, "secret"), 0o644);
  const { code, stderr } = await runScript("hook-server", ["--config", file]);
  assert.is(code, 2);
  assert.match(stderr, /can be read by everybody; run: chmod 600/);
});

test("a second server for one state folder is refused", async () => {
  const dir = await makeYard();
  const server = await startHooks(dir);
  const { code, stderr } = await runScript("hook-server", ["--config", join(dir, "hooks.yml")]);
  assert.is(code, 3, stderr);
  assert.match(stderr, `process ${server.running.pid}`);
  await server.stop();
});

test("a repo with insecure: true takes unsigned deliveries, and others still do not", async () => {
  const server = await startHooks(await makeYard({ repos: { "me/open": "insecure: true", "me/site": "" } }));
  assert.is((await server.push("me/open", sha(1), { key: null })).status, 202);
  assert.is((await server.push("me/site", sha(1), { key: null })).status, 401);
  assert.is((await server.push("me/none", sha(1), { key: null })).status, 401);
  assert.is((await server.push("me/site", sha(1), { id: randomUUID() })).status, 202);
  await server.idle();
  await server.stop();
});

test.run();
