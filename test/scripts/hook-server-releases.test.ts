// A release published at each forge, sent as that forge sends it, becomes one run of `release` with its facts.
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { http, logOf, makeYard, secret, sign, startHooks, storedRuns } from "../helpers/hooks.ts";
import { git, makeRepo } from "../helpers/repos.ts";

type Sent = { body: string; headers: Record<string, string> };
const json = { "content-type": "application/json" };

/** GitLab: no signature but the token; the tag and its commit stand at the top. */
function gitlab(action: string, tag: string, commit: string): Sent {
  const address = "https://gitlab.example/me/site";
  const body = JSON.stringify({
    id: 1,
    object_kind: "release",
    action,
    name: `Release ${tag}`,
    tag,
    url: `${address}/-/releases/${tag}`,
    project: { id: 2, name: "site", path_with_namespace: "me/site", default_branch: "main" },
    commit: { id: commit, title: "Change", url: `${address}/-/commit/${commit}` },
  });
  const headers = {
    ...json,
    "x-gitlab-event": "Release Hook",
    "x-gitlab-token": secret,
    "x-gitlab-event-uuid": `lab-${action}-${tag}`,
    "idempotency-key": `key-${action}-${tag}`,
  };
  return { body, headers };
}

/** Gitea's family and GitHub write the same body. */
function published(action: string, tag: string, more: object): string {
  return JSON.stringify({
    action,
    release: {
      id: 7,
      tag_name: tag,
      target_commitish: "main",
      name: `Release ${tag}`,
      draft: false,
      prerelease: false,
      html_url: `https://forge.example/me/site/releases/tag/${tag}`,
      ...more,
    },
    repository: { full_name: "me/site", default_branch: "main" },
    sender: { login: "ada" },
  });
}

/** Gitea and Forgejo send their relatives' headers too, as deliveries of both do. */
function gitea(flavour: "gitea" | "forgejo", action: string, tag: string, more = {}): Sent {
  const body = published(action, tag, more);
  const id = `${flavour}-${action}-${tag}`;
  const headers: Record<string, string> = {
    ...json,
    "x-hub-signature-256": `sha256=${sign(body)}`,
  };
  for (const name of ["gogs", "gitea", ...(flavour === "forgejo" ? ["forgejo"] : [])]) {
    headers[`x-${name}-event`] = "release";
    headers[`x-${name}-delivery`] = id;
    headers[`x-${name}-signature`] = sign(body);
  }
  return { body, headers: { ...headers, "x-github-event": "release", "x-github-delivery": id } };
}

function github(action: string, tag: string, more = {}): Sent {
  const body = published(action, tag, more);
  const headers = {
    ...json,
    "x-github-event": "release",
    "x-github-delivery": `hub-${action}-${tag}`,
    "x-hub-signature-256": `sha256=${sign(body)}`,
  };
  return { body, headers };
}

const facts = ["NAME", "SHA", "URL", "PRERELEASE"].map((name) => `$RELEASE_${name}`).join("|");
const hook = ["EVENT", "REPO", "REF", "DELIVERY"].map((name) => `$HOOK_${name}`).join("|");

test("a release at GitLab, Gitea, Forgejo and GitHub runs release.sh once, with the tag's files and the forge's facts", async () => {
  const dir = await makeYard({ repos: { "me/site": "on: { release: release }" } });
  const out = join(dir, "released");
  const repo = await makeRepo({
    files: {
      "build.yml": "stages: [none]\ncommands: { none: 'true' }\n",
      "release.sh": `#!/bin/sh\necho "$RELEASE_TAG|${facts}|${hook}|$(cat page)" >>'${out}'\n`,
    },
  });
  const commits: Record<string, string> = {};
  for (const tag of ["v1", "v2", "v3", "v4"]) {
    commits[tag] = await repo.push({ page: `page of ${tag}` });
    await repo.tag(tag);
  }
  await rm(join(dir, "co"), { recursive: true });
  const checkout = await repo.checkout(join(dir, "co"));
  const head = await git(checkout, "rev-parse", "HEAD");
  const server = await startHooks(dir);
  const pre = { prerelease: true, name: "" };
  const deliveries: [Sent, number][] = [
    [gitlab("create", "v1", commits["v1"] ?? ""), 202],
    [gitlab("update", "v1", commits["v1"] ?? ""), 200],
    [gitlab("delete", "v1", commits["v1"] ?? ""), 200],
    [gitea("gitea", "published", "v2", pre), 202],
    [gitea("gitea", "updated", "v2", pre), 200],
    [gitea("forgejo", "published", "v3"), 202],
    [gitea("forgejo", "deleted", "v3"), 200],
    // one click at GitHub
    [github("created", "v4"), 200],
    [github("published", "v4"), 202],
    [github("released", "v4"), 200],
    // and sent again by hand
    [github("published", "v4"), 200],
  ];
  const ids: string[] = [];
  for (const [{ body, headers }, status] of deliveries) {
    const answer = await http({ port: server.port }, "/hook", { body, headers });
    assert.is(answer.status, status, answer.text);
    if (status === 202) ids.push(answer.body.run);
  }
  for (const [sent, wrong] of [
    [gitlab("create", "v9", ""), { "x-gitlab-token": `${secret}-not` }],
    [gitea("gitea", "published", "v9"), { "x-gitea-signature": sign("another body") }],
  ] as const) {
    const headers = { ...sent.headers, ...wrong };
    assert.is((await http({ port: server.port }, "/hook", { body: sent.body, headers })).status, 401);
  }
  const runs = (await server.idle(60_000)).reverse();
  assert.equal(
    runs.map(({ id, ref, state }) => [id, ref, state]),
    ids.map((id, index) => [id, `refs/tags/v${index + 1}`, "succeeded"]),
    ids.map((id) => logOf(server, id)).join("\n"),
  );
  const [v1 = "", v2 = "", v3 = "", v4 = ""] = ["v1", "v2", "v3", "v4"].map((tag) => commits[tag]);
  const lab = "https://gitlab.example/me/site/-/releases";
  const forge = "https://forge.example/me/site/releases/tag";
  assert.equal(readFileSync(out, "utf8").trim().split("\n"), [
    `v1|Release v1|${v1}|${lab}/v1|false|release|me/site|refs/tags/v1|key-create-v1|page of v1`,
    `v2|v2|${v2}|${forge}/v2|true|release|me/site|refs/tags/v2|gitea-published-v2|page of v2`,
    `v3|Release v3|${v3}|${forge}/v3|false|release|me/site|refs/tags/v3|forgejo-published-v3|page of v3`,
    `v4|Release v4|${v4}|${forge}/v4|false|release|me/site|refs/tags/v4|hub-published-v4|page of v4`,
  ]);
  assert.is(await git(checkout, "rev-parse", "HEAD"), head, "the checkout was moved");
  const records = storedRuns(server);
  assert.equal(
    records.map(({ forge: from, kind, event, delivery, exit }) => [from, kind, event, delivery, exit].join(" ")),
    [
      "gitlab release release key-create-v1 0",
      "gitea release release gitea-published-v2 0",
      "forgejo release release forgejo-published-v3 0",
      "github release release hub-published-v4 0",
    ],
  );
  assert.is(records[0]?.sha, v1);
  assert.equal(records[1]?.["release"], {
    tag: "v2",
    name: "v2",
    url: `${forge}/v2`,
    prerelease: true,
  });
  await server.stop();
});

test.run();
