// Looking for missed pushes: as whom, how often, and not at all.
import { readFileSync } from "node:fs";
import { chmod, chown, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { makeYard, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { withUser } from "../helpers/users.ts";
import { waitFor } from "../helpers/wait.ts";

test("a commit that fails is tried again at growing intervals, a new one at once; poll: false never looks", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard({
    repos: { "me/site": "poll: 500ms", "me/silent": "poll: false" },
    job: "exit 7",
  });
  await rm(join(dir, "co"), { recursive: true });
  const first = await git(await repo.checkout(join(dir, "co")), "rev-parse", "HEAD");
  const server = await startHooks(dir);
  const failed = (commit: string) =>
    server.runs().then((runs) => runs.filter(({ sha, state }) => sha === commit && state === "failed"));
  await waitFor(async () => (await failed(first)).length === 3, { timeout: 30_000 });
  const [third = 0, before = 0, begun = 0] = (await failed(first)).map(({ accepted }) => Date.parse(accepted));
  assert.ok(before - begun >= 1000, `${before - begun} ms after the first try`);
  assert.ok(third - before >= 2000, `${third - before} ms after the second`);
  const second = await repo.push({ "a.txt": "2" });
  await waitFor(async () => (await failed(second)).length > 0);
  const runs = await server.runs();
  assert.ok(runs.every((run) => run.repo === "me/site"));
  await server.stop();
});

test("of a remote with many branches no more runs wait than max_waiting; the others follow", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard({
    repos: { "me/site": "poll: 300ms\nrefs: ['*']" },
    top: "max_waiting: 3",
    job: "until test -e go; do sleep 0.02; done; echo $HOOK_REF",
  });
  await rm(join(dir, "co"), { recursive: true });
  const checkout = await repo.checkout(join(dir, "co"));
  for (let n = 0; n < 9; n++) await git(repo.bare, "branch", `b${n}`, "main");
  const looks = join(dir, "looks");
  await writeFile(looks, "");
  const helper = join(dir, "upload-pack");
  await writeFile(helper, `#!/bin/sh\necho . >>'${looks}'\nexec git-upload-pack "$@"\n`);
  await chmod(helper, 0o755);
  await git(checkout, "config", "remote.origin.uploadpack", helper);
  const server = await startHooks(dir);
  await waitFor(() => readFileSync(looks, "utf8").split("\n").length > 3);
  assert.ok((await server.runs()).filter(({ state }) => state === "waiting").length <= 3);
  await writeFile(join(checkout, "go"), "");
  await waitFor(async () => {
    const built = (await server.runs()).filter(({ state }) => state === "succeeded");
    return new Set(built.map(({ ref }) => ref)).size === 10;
  });
  await server.stop();
});

testUnless(test, needsRoot)("the remote is asked as the repo's user", async () => {
  await withUser(async (user) => {
    const repo = await makeRepo({ files: { "a.txt": "1" } });
    const dir = await makeYard({
      dir: tempDir("hook-"),
      repos: { "me/site": `user: ${user.name}\npoll: 200ms` },
      job: "id -un",
    });
    await rm(join(dir, "co"), { recursive: true });
    const checkout = await repo.checkout(join(dir, "co"));
    // what git starts to speak to the remote
    const helper = join(user.home, "upload-pack");
    await writeFile(helper, `#!/bin/sh\nid -un >>'${user.home}/who'\nexec git-upload-pack "$@"\n`);
    await chmod(helper, 0o755);
    await git(checkout, "config", "remote.origin.uploadpack", helper);
    for (const folder of [checkout, repo.bare])
      await runCommand(["chown", "-R", `${user.uid}:${user.gid}`, folder], { expect: 0 });
    await chown(user.home, user.uid, user.gid);
    process.umask(0o022);
    const server = await startHooks(dir);
    await waitFor(async () => (await server.runs())[0]?.state === "succeeded", {
      what: () => server.running.output(),
    });
    const who = new Set(readFileSync(join(user.home, "who"), "utf8").trim().split("\n"));
    assert.equal([...who], [user.name]);
    await server.stop();
  });
});

test.run();
