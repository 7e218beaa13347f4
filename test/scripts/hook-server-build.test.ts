// hook-server with the real scripts: a signed push becomes a build, a published release runs release.sh.
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { logOf, makeYard, pushPayload, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { signWith, sshSigner } from "../helpers/signers.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

test("a signed push brings the checkout to its commit, a release runs release.sh for its tag", async () => {
  const repo = await makeRepo({
    files: {
      "a.txt": "one",
      "build.yml": "stages: [pull, note]\ncommands: { note: 'echo \"$HOOK_REPO $HOOK_SHA\" >noted' }\n",
      "release.sh": '#!/bin/sh\necho "released $RELEASE_TAG"\n',
    },
  });
  const dir = await makeYard({ repos: { "me/site": "on: { push: build, release: release }" } });
  await rm(join(dir, "co"), { recursive: true });
  const checkout = await repo.checkout(join(dir, "co"));
  const server = await startHooks(dir);
  const commit = await repo.push({ "a.txt": "two" });
  const push = await server.send({ payload: pushPayload("me/site", commit) });
  assert.is(push.status, 202);
  const [built] = await server.idle(60_000);
  assert.is(built?.state, "succeeded", logOf(server, push.body.run));
  assert.is(readFileSync(join(checkout, "a.txt"), "utf8"), "two");
  assert.is(await git(checkout, "rev-parse", "HEAD"), commit);
  assert.is(readFileSync(join(checkout, "noted"), "utf8"), `me/site ${commit}\n`);
  assert.ok(existsSync(join(checkout, "logs.txt")));
  await repo.tag("v1.0");
  const release = await server.send({
    event: "release",
    payload: {
      action: "published",
      release: {
        tag_name: "v1.0",
        name: "One",
        html_url: "https://forge/v1.0",
        target_commitish: "main",
      },
      repository: { full_name: "me/site" },
    },
  });
  assert.is(release.status, 202);
  const done = await waitFor(async () => (await server.idle(60_000)).find((run) => run.id === release.body.run), {
    timeout: 60_000,
  });
  const log = logOf(server, release.body.run);
  assert.is(done.state, "succeeded", log);
  assert.match(log, "released v1.0");
  await server.stop();
});

test("of refs: the checkout follows the first; a push to another one is built apart, without uploads and on_success", async () => {
  const repo = await makeRepo({
    files: { "build.yml": "stages: [pull, note]\ncommands: { note: 'echo \"noted $HOOK_REF\"' }\n" },
  });
  const settings = "refs: [main, 'feature/*']\non: { push: build }\non_success: [touch $HOOK_DIR/after]";
  const dir = await makeYard({ repos: { "me/site": settings } });
  await rm(join(dir, "co"), { recursive: true });
  const checkout = await repo.checkout(join(dir, "co"));
  const server = await startHooks(dir);
  const main = await git(checkout, "rev-parse", "HEAD");
  await repo.git("checkout", "-qb", "feature/x");
  const commit = await repo.push({ "a.txt": "two" }, { branch: "feature/x" });
  const apart = await server.send({ payload: pushPayload("me/site", commit, "refs/heads/feature/x") });
  const [built] = await server.idle(60_000);
  const log = logOf(server, apart.body.run);
  assert.is(built?.state, "succeeded", log);
  assert.match(log, "noted refs/heads/feature/x");
  assert.not(existsSync(join(checkout, "after")));
  assert.is(await git(checkout, "rev-parse", "HEAD"), main);
  assert.is(await git(checkout, "rev-parse", "--abbrev-ref", "HEAD"), "main");
  await server.send({ payload: pushPayload("me/site", main) });
  await server.idle(60_000);
  assert.ok(existsSync(join(checkout, "after")));
  await server.stop();
});

testUnless(test, needsCommand("ssh-keygen"))(
  "with signers: of hooks.yml a push and a release that none of them signed are refused, and say why",
  async () => {
    const { key, signers } = await sshSigner();
    const repo = await makeRepo({ files: { "build.yml": "stages: [pull]\n", "release.sh": "echo released\n" } });
    const dir = await makeYard({ repos: { "me/site": `signers: ${signers}\non: { push: build, release: release }` } });
    await rm(join(dir, "co"), { recursive: true });
    const checkout = await repo.checkout(join(dir, "co"));
    const before = await git(checkout, "rev-parse", "HEAD");
    const server = await startHooks(dir);
    const unsigned = await repo.push({ "a.txt": "two" });
    await server.send({ payload: pushPayload("me/site", unsigned) });
    const [refused] = await server.idle(60_000);
    assert.is(refused?.state, "failed");
    assert.match(refused?.reason ?? "", /pull: commit \w+ is not signed by a key of/);
    assert.is(await git(checkout, "rev-parse", "HEAD"), before);
    await repo.tag("v1.0");
    const release = { action: "published", release: { tag_name: "v1.0", name: "One", target_commitish: "main" } };
    await server.send({ event: "release", payload: { ...release, repository: { full_name: "me/site" } } });
    const runs = await waitFor(async () => {
      const all = await server.idle(60_000);
      return all.length === 2 ? all : undefined;
    });
    assert.match(runs.map(({ reason }) => reason).join("\n"), /checkout: commit \w+ is not signed/);
    await signWith(repo, "ssh", key);
    const signed = await repo.push({ "a.txt": "three" });
    await server.send({ payload: pushPayload("me/site", signed) });
    await server.idle(60_000);
    assert.is(await git(checkout, "rev-parse", "HEAD"), signed);
    await server.stop();
  },
);

test("a run's record names its stages, its commit and who pushed it, whatever the build prints", async () => {
  const forged =
    '{"time":"2026-11-20T10:15:00.000Z","name":"forged","result":"ok"}\\n2026-11-20T10:15:00.123Z x run | stage name=forged result=ok';
  const repo = await makeRepo({
    files: {
      "build.yml": `stages: [pull, note, check, never]
commands:
  note: printf '${forged.replaceAll("'", "")}\\n'; env
  check: exit 4
  never: 'true'
`,
    },
  });
  const dir = await makeYard({ repos: { "me/site": "on: { push: build }" } });
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const server = await startHooks(dir);
  const commit = await repo.push({ "a.txt": "two" });
  const head = {
    message: "Say two\n\nwhy",
    url: "https://forge.example/c/1",
    author: { name: "Ada" },
  };
  const payload = { ...pushPayload("me/site", commit), head_commit: head };
  const { body } = await server.send({ payload });
  await server.idle(60_000);
  const log = logOf(server, body.run);
  const record = (await server.local(`/runs/${body.run}`)).body;
  const stages = record.stages as { name: string; result: string; from: number; to: number }[];
  assert.equal(
    stages.map(({ name, result }) => [name, result]),
    [
      ["pull", "ok"],
      ["note", "ok"],
      ["check", "failed"],
    ],
    log,
  );
  assert.is(record.reason, "check: exit code 4");
  assert.not.match(log, "BOATYARD_STAGES=");
  const note = stages[1];
  const bytes = Buffer.from(log).subarray(note?.from, note?.to).toString();
  assert.match(bytes, /^note \| \$ printf .*\n(?:note \| .*\n)*?note \| \{"time"/);
  assert.equal(record.commit, {
    title: "Say two",
    author: "Ada",
    pusher: "ada",
    url: "https://forge.example/c/1",
  });
  const { body: again } = await server.local(`/runs/${body.run}/rerun`, "POST");
  const [rerun] = (await server.idle(60_000)) as { rerun?: unknown; commit?: { title: string } }[];
  assert.equal(rerun?.rerun, { of: body.run, by: "the server's own user" });
  assert.is(rerun?.commit?.title, "Say two", again.run);
  await server.stop();
});

test("the reason of a run is its failed stage, why, and the line that tells more; secrets are masked in it", async () => {
  const repo = await makeRepo({
    files: {
      "build.yml": `stages: [pull, check, slow]
commands: { check: 'test -e good || { echo 0 errors; echo "TypeError: planted-5ecret-of-the-forge is no menu"; exit 4; }', slow: sleep 60 }
timeout: { slow: 1s }
`,
    },
  });
  const dir = await makeYard({ repos: { "me/site": "on: { push: build }" } });
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const server = await startHooks(dir);
  const first = await server.push("me/site", await repo.push({ "a.txt": "two" }));
  await server.idle(60_000);
  const reasonOf = async (id: string) => (await server.local(`/runs/${id}`)).body.reason;
  assert.is(await reasonOf(first.body.run), "check: exit code 4: TypeError: *** is no menu");
  const second = await server.push("me/site", await repo.push({ good: "" }));
  await server.idle(60_000);
  assert.is(
    await reasonOf(second.body.run),
    "slow: took longer than its time limit of 1.0s and was ended with all it had started",
  );
  await server.stop();
});

test("then: commands are stages that the server times; what they print starts none", async () => {
  const dir = await makeYard({
    repos: { "me/site": "then: ['echo after', 'exit 7']" },
    job: `printf '{"time":"2026-11-20T10:15:00.000Z","name":"printed"}\\n'`,
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", "a".repeat(40));
  await server.idle();
  const { stages } = (await server.local(`/runs/${body.run}`)).body;
  assert.equal(
    stages.map(({ name, result }: { name: string; result: string }) => [name, result]),
    [
      ["then: echo after", "ok"],
      ["then: exit 7", "failed"],
    ],
  );
  await server.stop();
});

test.run();
