// Whose turn it is among accepted deliveries, and what follows a run.
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { logOf, makeYard, pushPayload, sha, startHooks } from "../helpers/hooks.ts";
import { waitFor } from "../helpers/wait.ts";

const lines = (path: string) => readFileSync(path, "utf8").trim().split("\n");

test("as many runs as concurrency allows are under way, never two of one repo", async () => {
  const names = ["me/a", "me/b", "me/c", "me/d"];
  const dir = await makeYard({
    top: "concurrency: 3",
    repos: Object.fromEntries(names.map((name) => [name, "refs: ['refs/tags/*']"])),
    // the first ones wait for each other
    job: 'echo "begin $HOOK_REPO" >>order; until test "$(grep -c begin order)" -ge 3; do sleep 0.02; done; sleep 0.05; echo "end $HOOK_REPO" >>order',
  });
  const server = await startHooks(dir);
  for (let n = 0; n < 8; n++) await server.push(names[n % 4] ?? "", sha(n), { ref: `refs/tags/v${n}` });
  await server.idle();
  const underWay: string[] = [];
  let most = 0;
  for (const line of lines(join(dir, "co/order"))) {
    const [what, repo = ""] = line.split(" ");
    if (what === "end") underWay.splice(underWay.indexOf(repo), 1);
    else underWay.push(repo);
    assert.is(new Set(underWay).size, underWay.length, `two of one repo: ${underWay.join()}`);
    most = Math.max(most, underWay.length);
  }
  assert.is(most, 3);
  await server.stop();
});

test("a repo with many runs does not keep the others waiting", async () => {
  const dir = await makeYard({
    top: "concurrency: 1",
    repos: { "me/busy": "refs: ['refs/tags/*']", "me/quiet": "" },
    job: 'echo "$HOOK_REPO $HOOK_REF" >>order; until test -e go; do sleep 0.02; done',
  });
  const server = await startHooks(dir);
  for (let n = 1; n <= 4; n++) await server.push("me/busy", sha(n), { ref: `refs/tags/v${n}` });
  await server.push("me/quiet", sha(5));
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  assert.equal(lines(join(dir, "co/order")), [
    "me/busy refs/tags/v1",
    "me/quiet refs/heads/main",
    "me/busy refs/tags/v2",
    "me/busy refs/tags/v3",
    "me/busy refs/tags/v4",
  ]);
  await server.stop();
});

test("releases that wait among pushes are all run, in order; then: is for good pushes only", async () => {
  const dir = await makeYard({
    repos: { "me/site": "then: 'echo then $HOOK_EVENT $HOOK_SHA >>order'" },
    job: `echo "$HOOK_EVENT $HOOK_SHA$RELEASE_TAG" >>order; until test -e go; do sleep 0.02; done; test "$HOOK_SHA" != ${sha(4)}`,
  });
  const server = await startHooks(dir);
  const release = (tag: string) =>
    server.send({
      event: "release",
      payload: {
        action: "published",
        release: { tag_name: tag },
        repository: { full_name: "me/site" },
      },
    });
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/order")));
  const superseded = (await server.push("me/site", sha(2))).body.run;
  await release("v1");
  const push = (await server.push("me/site", sha(3))).body.run;
  await release("v1");
  await release("v2");
  await writeFile(join(dir, "co/go"), "");
  const runs = await server.idle();
  assert.is(runs.find(({ id }) => id === superseded)?.by, push);
  await server.push("me/site", sha(4));
  await server.idle();
  assert.equal(lines(join(dir, "co/order")), [
    `push ${sha(1)}`,
    `then push ${sha(1)}`,
    "release v1",
    `push ${sha(3)}`,
    `then push ${sha(3)}`,
    "release v1",
    "release v2",
    `push ${sha(4)}`,
  ]);
  await server.stop();
});

test("a delivery whose run was cancelled runs when it is sent again; one that was superseded does not", async () => {
  const dir = await makeYard({ job: "touch begun; until test -e go; do sleep 0.02; done" });
  const server = await startHooks(dir);
  const send = async (n: number) => (await server.push("me/site", sha(n), { id: `d${n}` })).body.run;
  const first = await send(1);
  await waitFor(() => existsSync(join(dir, "co/begun")));
  const [second, third] = [await send(2), await send(3)];
  assert.is((await server.local(`/runs/${first}/cancel`, "POST")).status, 202);
  await waitFor(async () => (await server.local(`/runs/${first}`)).body.state === "cancelled");
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  assert.is(await send(2), second, "superseded: known still");
  assert.is(await send(3), third, "succeeded: known still");
  const again = await send(1);
  assert.is.not(again, first);
  const runs = await server.idle();
  assert.is(runs.find(({ id }) => id === again)?.state, "succeeded");
  assert.is(runs.length, 4);
  await server.stop();
});

test("what a payload says reaches a run as a file, never as an argument or in its environment", async () => {
  const planted = "$(touch ../pwned) `touch ../pwned` planted-word";
  const dir = await makeYard({
    job: 'tr "\\0" "\\n" </proc/$$/cmdline; env; grep -c planted-word "$HOOK_PAYLOAD"',
  });
  const server = await startHooks(dir);
  const payload = {
    ...pushPayload("me/site", sha(1)),
    head_commit: { message: planted, author: { name: planted } },
  };
  const { run } = (await server.send({ payload })).body;
  await server.idle();
  const log = logOf(server, run);
  assert.match(log, /^HOOK_SHA=/m);
  assert.match(log, /^1$/m);
  assert.not.match(log, "planted-word");
  assert.not.ok(existsSync(join(dir, "pwned")));
  await server.stop();
});

test.run();
