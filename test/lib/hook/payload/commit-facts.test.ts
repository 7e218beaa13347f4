import { createRequire } from "node:module";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { commitFacts, pushFacts } from "../../../../lib/hook/payload/commit-facts.ts";
import { readPayload } from "../../../../lib/hook/payload/payload.ts";
import { pushPayload, sha } from "../../../helpers/hooks.ts";

test("each forge's push names the commit's first line, its author, its pusher and its page", () => {
  const commit = {
    id: sha(1),
    message: "Fix the header\n\nand more",
    url: "https://forge.example/me/site/commit/1",
    author: { name: "Ada", email: "ada@example.com" },
  };
  const wanted = {
    title: "Fix the header",
    author: "Ada",
    pusher: "grace",
    url: "https://forge.example/me/site/commit/1",
  };
  assert.equal(pushFacts({ head_commit: commit, pusher: { name: "grace" } }), wanted, "GitHub");
  assert.equal(pushFacts({ head_commit: commit, pusher: { login: "grace" } }), wanted, "Gitea");
  const gitlab = { after: sha(1), commits: [{ id: sha(0) }, commit], user_name: "grace" };
  assert.equal(pushFacts(gitlab), wanted, "GitLab");
  const cloud = {
    repository: { full_name: "me/site" },
    actor: { display_name: "grace" },
    push: {
      changes: [
        {
          new: {
            type: "branch",
            name: "main",
            target: {
              hash: sha(1),
              message: "Fix the header\n",
              author: { user: { display_name: "Ada" } },
              links: { html: { href: "https://forge.example/me/site/commit/1" } },
            },
          },
        },
      ],
    },
  };
  const facts = readPayload({ forge: "bitbucket", event: "push", id: "1", proof: undefined }, cloud);
  assert.equal(facts.changes[0]?.commit, wanted, "Bitbucket");
});

test("what is kept of a push does not keep the rest of its texts in memory", () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  const used = () => {
    gc(); // what nobody needs any more does not count
    return process.memoryUsage().heapUsed / 1e6;
  };
  const before = used();
  const message = `Fix one of a long list of things ${"x".repeat(1e6)}`;
  const commit = { id: sha(1), message, author: { name: message } };
  const push = { ...pushPayload("me/site", sha(1)), ref: `refs/${message}`, head_commit: commit };
  const body = JSON.stringify(push);
  const envelope = { forge: "github", event: "fork", id: "1", proof: undefined } as const;
  const kept = Array.from({ length: 100 }, () => {
    const payload: unknown = JSON.parse(body);
    return [pushFacts(payload), readPayload(envelope, payload).ref];
  });
  const grown = used() - before;
  assert.is(kept.length, 100);
  assert.ok(grown < 70, `100 pushes take ${grown} MB`);
});

test("of what is not text, a web address or one line, nothing is taken", () => {
  assert.is(pushFacts({ head_commit: "x", pusher: 3 }), undefined);
  for (const url of [
    "javascript:alert(1)",
    "data:text/html,x",
    "/relative",
    "https://me:secret@forge.example/",
    "",
    3,
    `https://forge.example/${"x".repeat(600)}`,
  ])
    assert.is(commitFacts({ url }), undefined, String(url));
  assert.equal(commitFacts({ title: "\n  one\u0000two\u001b[31m \r\nthree" }), {
    title: "one two [31m",
  });
  assert.is(commitFacts({ title: "x".repeat(10_000) })?.title?.length, 200);
});

test("the forges' own examples of a push name their pusher", () => {
  const examples = createRequire(import.meta.url)("@octokit/webhooks-examples") as {
    name: string;
    examples: { ref?: string; deleted?: boolean; head_commit?: unknown }[];
  }[];
  const pushes = examples.find(({ name }) => name === "push")?.examples ?? [];
  const named = pushes.filter((each) => each.head_commit).map((each) => pushFacts(each));
  assert.ok(named.length > 0);
  for (const facts of named) {
    assert.ok(facts?.pusher, JSON.stringify(facts));
    assert.match(facts?.url ?? "", /^https:/);
  }
  assert.is(pushFacts(pushPayload("me/site", sha(1)))?.pusher, "ada");
});

test.run();
