// hook-server with the real scripts: a signed push becomes a build, a published release runs release.sh.
import { existsSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { logOf, makeYard, pushPayload, startHooks } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { waitFor } from "../helpers/wait.ts";

test("a signed push brings the checkout to its commit, a release runs release.sh for its tag", async () => {
  const repo = await makeRepo({
    files: {
      "a.txt": "one",
      "build.yml":
        "stages: [pull, note]\ncommands: { note: 'echo \"$HOOK_REPO $HOOK_SHA\" >noted' }\n",
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
  const done = await waitFor(
    async () => (await server.idle(60_000)).find((run) => run.id === release.body.run),
    { timeout: 60_000 },
  );
  const log = logOf(server, release.body.run);
  assert.is(done.state, "succeeded", log);
  assert.match(log, "released v1.0");
  await server.stop();
});

test.run();
