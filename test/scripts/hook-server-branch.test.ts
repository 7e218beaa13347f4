// A repo without refs: the checkout says which branch is built, also when it comes after the push.
import { existsSync, readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { type HookServer, makeYard, sha, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { waitFor } from "../helpers/wait.ts";

/** A repo that follows its checkout, in a yard without one. */
async function withoutClone(poll = "false") {
  const dir = await makeYard({
    repos: { "me/site": `refs: # the checkout's\npoll: ${poll}` },
    job: 'echo "$HOOK_REF" >>../built',
  });
  // makeYard asks for refs: none here
  const yaml = join(dir, "hooks.yml");
  await writeFile(yaml, readFileSync(yaml, "utf8").replace(/^ *refs:.*\n/m, ""));
  await rm(join(dir, "co"), { recursive: true });
  return { dir, repo: await makeRepo({ files: { "a.txt": "1" } }) };
}

const stateOf = async (server: HookServer, id: string) => (await server.idle()).find((run) => run.id === id);

test("a push before there is a clone is taken, and fails with the reason; the forge's default branch is not built", async () => {
  const { dir, repo } = await withoutClone();
  const server = await startHooks(dir);
  const { status, body } = await server.push("me/site", sha(1));
  assert.is(status, 202);
  const run = await stateOf(server, body.run);
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /co has no branch checked out; clone the repository there, or set refs/);
  await repo.checkout(join(dir, "co"));
  await git(join(dir, "co"), "checkout", "--quiet", "-b", "deploy");
  // that there was none is not remembered
  const ignored = await server.push("me/site", sha(2));
  assert.equal([ignored.status, ignored.body.reason], [200, "no repo is configured for this ref"]);
  assert.is((await server.push("me/site", sha(3), { ref: "refs/heads/deploy" })).status, 202);
  await server.idle();
  assert.is(readFileSync(join(dir, "built"), "utf8"), "refs/heads/deploy\n");
  // run again, it is decided again
  const again = await server.local(`/runs/${body.run}/rerun`, "POST");
  const second = await stateOf(server, again.body.run);
  assert.is(second?.state, "cancelled");
  assert.match(second?.reason ?? "", /co is on deploy, not on refs\/heads\/main/);
  await server.stop();
});

test("a push that waits while the checkout gets its branch is decided by it when its turn comes", async () => {
  const { dir, repo } = await withoutClone();
  const yaml = join(dir, "hooks.yml");
  const job = `    on: { push: ${dir}/job, release: ${dir}/job }\n`;
  await writeFile(
    yaml,
    `${readFileSync(yaml, "utf8").replace("listen:", "concurrency: 1\nlisten:")}  me/first:\n    dir: .\n    secret_file: secret\n    refs: [main]\n    poll: false\n${job}`,
  );
  await writeFile(
    join(dir, "job"),
    '#!/bin/sh\nif test "$HOOK_REPO" = me/first; then : >begun; until test -e go; do sleep 0.05; done; else echo "$HOOK_REF" >>../built; fi\n',
  );
  const server = await startHooks(dir);
  await server.push("me/first", sha(1));
  await waitFor(() => existsSync(join(dir, "begun")));
  const main = (await server.push("me/site", sha(2))).body.run;
  const deploy = (await server.push("me/site", sha(3), { ref: "refs/heads/deploy" })).body.run;
  await repo.checkout(join(dir, "co"));
  await git(join(dir, "co"), "checkout", "--quiet", "-b", "deploy");
  await writeFile(join(dir, "go"), "");
  const runs = await server.idle();
  assert.is(runs.find(({ id }) => id === main)?.state, "cancelled");
  assert.is(runs.find(({ id }) => id === deploy)?.state, "succeeded");
  assert.is(readFileSync(join(dir, "built"), "utf8"), "refs/heads/deploy\n");
  await server.stop();
});

test("polling sees a clone that came later", async () => {
  const { dir, repo } = await withoutClone("200ms");
  const server = await startHooks(dir);
  await new Promise((done) => setTimeout(done, 500));
  assert.equal(await server.runs(), []);
  const commit = await git(await repo.checkout(join(dir, "co")), "rev-parse", "HEAD");
  await waitFor(async () => (await server.runs()).some((run) => run.sha === commit && run.state === "succeeded"));
  await server.stop();
});

test.run();
