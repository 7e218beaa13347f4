// What single forges do in their own way, and how it works with none that can reach the server.
import { createHmac } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { http, logOf, makeYard, secret, sha, sign, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { waitFor } from "../helpers/wait.ts";

const show = 'env | grep "^HOOK_" | sort; cat "$HOOK_PAYLOAD"';

test("Bitbucket Data Center: its test is answered, a signed push of several refs is built, a deleted one is not", async () => {
  const server = await startHooks(await makeYard({ repos: { "TOOLS/site": "refs: [main, next]" }, job: show }));
  const send = async (event: string, value: object, key?: string) => {
    const body = JSON.stringify(value);
    const headers = {
      "content-type": "application/json; charset=utf-8",
      "x-event-key": event,
      "x-request-id": "5f4f3f1e-0000-4000-8000-1234567890ab",
      "x-hub-signature": `sha256=${sign(body, key)}`,
    };
    return await http({ port: server.port }, "/hook", { body, headers });
  };
  const change = (name: string, type: string, from: string, to: string) => ({
    ref: { id: `refs/heads/${name}`, displayId: name, type: "BRANCH" },
    refId: `refs/heads/${name}`,
    fromHash: from,
    toHash: to,
    type,
  });
  const none = "0".repeat(40);
  const push = {
    eventKey: "repo:refs_changed",
    date: "2026-11-20T10:15:00+0000",
    actor: { name: "ada", slug: "ada", type: "NORMAL" },
    repository: { slug: "site", id: 84, name: "site", project: { key: "TOOLS", id: 21 } },
    changes: [
      change("main", "UPDATE", sha(1), sha(2)),
      change("next", "ADD", none, sha(3)),
      change("gone", "DELETE", sha(4), none),
      change("other", "UPDATE", sha(5), sha(6)),
    ],
  };
  const ping = await send("diagnostics:ping", { test: true });
  assert.is(ping.status, 200, ping.text);
  assert.is((await send("repo:refs_changed", push, "another secret")).status, 401);
  const answer = await send("repo:refs_changed", push);
  assert.is(answer.status, 202, answer.text);
  assert.is(answer.body.runs.length, 2);
  const runs = await server.idle();
  assert.equal(runs.map(({ ref, sha: commit, state }) => `${ref} ${commit} ${state}`).sort(), [
    `refs/heads/main ${sha(2)} succeeded`,
    `refs/heads/next ${sha(3)} succeeded`,
  ]);
  const log = logOf(server, answer.body.run);
  assert.match(log, /^HOOK_DELIVERY=5f4f3f1e-0000-4000-8000-1234567890ab$/m);
  assert.match(log, /^HOOK_EVENT=push$/m);
  assert.match(log, /^HOOK_REF=refs\/heads\/main$/m);
  assert.match(log, /^HOOK_REPO=TOOLS\/site$/m);
  assert.match(log, new RegExp(`^HOOK_SHA=${sha(2)}$`, "m"));
  assert.match(log, /"eventKey":"repo:refs_changed"/);
  assert.is((await send("repo:refs_changed", push)).status, 200, "the same delivery once more");
  await server.stop();
});

test("GitLab's signing token: what it signs runs once, and nothing else runs", async () => {
  const token = `whsec_${Buffer.alloc(32, 5).toString("base64")}`;
  const dir = await makeYard({
    repos: { "me/signed": "secret_file: token", "me/plain": "" },
    job: `echo ${token} ${token.slice(6)}`,
  });
  await writeFile(join(dir, "token"), `${token}\n`, { mode: 0o600 });
  const server = await startHooks(dir);
  type Options = { id?: string; at?: number; key?: string; headers?: Record<string, string> };
  const push = async (repo: string, { id = "id-1", at = Date.now(), key, headers }: Options) => {
    const body = JSON.stringify({
      ref: "refs/heads/main",
      after: sha(1),
      project: { path_with_namespace: repo },
    });
    const time = Math.floor(at / 1000);
    const bytes = Buffer.from((key ?? token).slice(6), "base64");
    const mac = createHmac("sha256", bytes).update(`${id}.${time}.${body}`).digest("base64");
    return await http({ port: server.port }, "/hook", {
      body,
      headers: {
        "content-type": "application/json",
        "x-gitlab-event": "Push Hook",
        "webhook-id": id,
        "webhook-timestamp": String(time),
        ...(key === "" ? {} : { "webhook-signature": `v1,AAAA v1,${mac}` }),
        ...headers,
      },
    });
  };
  const first = await push("me/signed", {});
  assert.is(first.status, 202, first.text);
  const replayed = await push("me/signed", { headers: { "idempotency-key": "another" } });
  assert.equal([replayed.status, replayed.body.run], [200, first.body.run]);
  const old = await push("me/signed", { id: "id-2", at: Date.now() - 330_000 });
  assert.is(old.status, 401);
  assert.match(old.body.error, /5 minutes/);
  const refused = await Promise.all([
    push("me/signed", { id: "id-3", key: "" }),
    push("me/signed", { id: "id-4", key: "", headers: { "x-gitlab-token": token } }),
    push("me/signed", { id: "id-5", key: "", headers: { "x-gitlab-token": secret } }),
    push("me/signed", { id: "id-6", key: `whsec_${Buffer.alloc(32).toString("base64")}` }),
    push("me/plain", { id: "id-7" }),
  ]);
  assert.equal(
    refused.map(({ status }) => status),
    [401, 401, 401, 401, 401],
  );
  // GitLab 19 sends the id and the time with a plain token, too
  const plain = { headers: { "x-gitlab-token": secret } };
  assert.is((await push("me/plain", { ...plain, key: "" })).status, 202);
  assert.is((await push("me/plain", { ...plain, id: "id-8" })).status, 202, "both are set there");
  await server.idle();
  assert.match((await server.local(`/runs/${first.body.run}/log`)).text, /^\*\*\* \*\*\*$/m);
  await server.stop();
});

test("repos whose names begin with a dot or a tilde are built, and what is kept of them stays in its folders", async () => {
  const dir = await makeYard({ repos: { "me/.github": "", "~ada/site": "" } });
  const server = await startHooks(dir);
  assert.is((await server.push("me/.github", sha(1))).status, 202);
  assert.is((await server.push("~ada/site", sha(2))).status, 202);
  assert.is((await server.push("me/..", sha(3))).status, 400);
  const runs = await server.idle();
  assert.ok(runs.length === 2 && runs.every(({ state }) => state === "succeeded"));
  assert.equal(readdirSync(server.state).sort(), ["lock", "notify", "runs", "runs.jsonl", "socket"]);
  await server.stop();
});

test("polling alone, without a webhook or a secret, builds each push once, over restarts too", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard({
    repos: { "me/site": "insecure: true\npoll: 200ms" },
    job: 'cat a.txt >>../built; echo " $HOOK_EVENT $HOOK_REF [$HOOK_DELIVERY] $HOOK_SHA" >>../built',
  });
  assert.not.ok(readFileSync(join(dir, "hooks.yml"), "utf8").includes("secret"));
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const built = () =>
    existsSync(join(dir, "built")) ? readFileSync(join(dir, "built"), "utf8").trim().split("\n") : [];
  const first = await git(join(dir, "co"), "rev-parse", "HEAD");
  let server = await startHooks(dir);
  await waitFor(() => built().length === 1);
  await server.idle();
  await server.stop();
  // what is pushed while no server is there
  const second = await repo.push({ "a.txt": "2" });
  server = await startHooks(dir);
  await waitFor(() => built().length === 2);
  await server.idle();
  await server.kill();
  server = await startHooks(dir);
  const third = await repo.push({ "a.txt": "3" });
  await waitFor(() => built().length >= 3);
  await server.idle();
  const facts = (commit: string) => `1 push refs/heads/main [] ${commit}`;
  assert.equal(built(), [first, second, third].map(facts));
  await server.stop();
});

test.run();
