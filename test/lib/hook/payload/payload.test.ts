import * as assert from "uvu/assert";
import { test } from "uvu";
import {
  contentTypeOf,
  jsonOf,
  matchesRef,
  readPayload,
  selectChanges,
  WrongPayload,
} from "../../../../lib/hook/payload/payload.ts";
import type { ForgeName } from "../../../../lib/hook/payload/forge.ts";
import { pushPayload, sha } from "../../../helpers/hooks.ts";

const envelope = (event: string, forge: ForgeName = "github") => ({
  forge,
  event,
  id: "1",
  proof: undefined,
});

test("a push names its repo, ref and commit", () => {
  const facts = readPayload(envelope("push"), pushPayload("me/site", sha(1)));
  assert.is(facts.repo, "me/site");
  assert.equal(facts.changes, [{ kind: "push", ref: "refs/heads/main", sha: sha(1), commit: { pusher: "ada" } }]);
});

test("a deleted ref is no change", () => {
  const zero = "0".repeat(40);
  for (const payload of [{ ...pushPayload("me/site", zero), deleted: true }, pushPayload("me/site", zero)]) {
    assert.equal(readPayload(envelope("push"), payload).changes, []);
  }
});

test("refs and commits that git would not take are refused", () => {
  for (const ref of ["", "main", "refs/heads/a..b", "refs/heads/-x y", "refs/heads/a\n", 3, null]) {
    assert.throws(
      () => readPayload(envelope("push"), { ...pushPayload("me/site", sha(1)), ref }),
      (error: unknown) => error instanceof WrongPayload,
    );
  }
  for (const after of ["", "HEAD", "--upload-pack=x", 1, undefined]) {
    assert.throws(() => readPayload(envelope("push"), { ...pushPayload("me/site", sha(1)), after }));
  }
});

test("names that are no repository's are no names", () => {
  for (const name of ["constructor", "__proto__", "../x", "a/../b", "-a/b", "a/b.git", "a/$(id)", 1]) {
    const payload = { ...pushPayload("x/y", sha(1)), repository: { full_name: name } };
    assert.is(readPayload(envelope("push"), payload).repo, undefined);
  }
  const odd = JSON.parse('{"__proto__":{"repository":{"full_name":"a/b"}},"ref":"refs/heads/x"}');
  assert.is(readPayload(envelope("ping"), odd).repo, undefined);
});

test("GitLab, Bitbucket Cloud and Data Center say the same in their own words", () => {
  const gitlab = readPayload(envelope("push", "gitlab"), {
    object_kind: "push",
    ref: "refs/heads/main",
    after: sha(2),
    project: { path_with_namespace: "group/sub/site", default_branch: "main" },
  });
  assert.is(gitlab.repo, "group/sub/site");
  assert.is(gitlab.changes[0]?.sha, sha(2));
  const cloud = readPayload(envelope("push", "bitbucket"), {
    repository: { full_name: "me/site" },
    push: {
      changes: [
        { new: { type: "branch", name: "main", target: { hash: sha(3) } } },
        { new: { type: "tag", name: "v1", target: { hash: sha(4) } } },
        { new: null, old: { type: "branch", name: "gone" } },
      ],
    },
  });
  assert.equal(cloud.changes, [
    { kind: "push", ref: "refs/heads/main", sha: sha(3) },
    { kind: "push", ref: "refs/tags/v1", sha: sha(4) },
  ]);
  const center = readPayload(envelope("push", "bitbucket"), {
    repository: { slug: "site", project: { key: "ME" } },
    changes: [
      { ref: { id: "refs/heads/main" }, toHash: sha(5), type: "UPDATE" },
      { ref: { id: "refs/heads/gone" }, toHash: "0".repeat(40), type: "DELETE" },
    ],
  });
  assert.is(center.repo, "ME/site");
  assert.equal(center.changes, [{ kind: "push", ref: "refs/heads/main", sha: sha(5) }]);
});

test("of the three deliveries for one published release one runs", () => {
  const release = (action: string, more = {}) =>
    readPayload(envelope("release"), {
      action,
      release: {
        tag_name: "v1.10",
        name: "One\u0000ten",
        html_url: "https://x/y",
        target_commitish: "main",
        ...more,
      },
      repository: { full_name: "me/site" },
    });
  assert.is(release("created").changes.length, 0);
  assert.is(release("released").changes.length, 0);
  assert.is(release("published", { draft: true }).changes.length, 0);
  const [change] = release("published").changes;
  assert.equal(change, {
    kind: "release",
    ref: "refs/tags/v1.10",
    sha: undefined,
    commit: { url: "https://x/y" },
    release: { tag: "v1.10", name: "One ten", url: "https://x/y", prerelease: false },
  });
  for (const tag_name of ["-x", "--help", "a..b", "a b", "", undefined]) {
    assert.throws(() => release("published", { tag_name }));
  }
  const gitlab = readPayload(envelope("release", "gitlab"), {
    action: "create",
    tag: "v2",
    url: "https://x/v2",
    commit: { id: sha(9) },
    project: { path_with_namespace: "me/site" },
  });
  assert.is(gitlab.changes[0]?.sha, sha(9));
});

test("a pull request of any forge says that pull requests are not built", () => {
  const events: [string, ForgeName][] = [
    ["pull_request", "github"],
    ["pull_request_sync", "gitea"],
    ["Merge Request Hook", "gitlab"],
    ["pullrequest:created", "bitbucket"],
    ["pr:opened", "bitbucket"],
  ];
  for (const [event, forge] of events) {
    const { changes, reason } = readPayload(envelope(event, forge), { repository: { full_name: "me/site" } });
    assert.equal([changes.length, reason], [0, "pull requests are not built, only pushes and releases are"]);
  }
  assert.is(readPayload(envelope("issues"), {}).reason, "no repo is configured for this event");
});

test("refs are matched by name and by pattern", () => {
  const table: [string, string, boolean][] = [
    ["main", "refs/heads/main", true],
    ["main", "refs/heads/main2", false],
    ["main", "refs/tags/main", false],
    ["release/*", "refs/heads/release/1.x", true],
    ["refs/tags/v*", "refs/tags/v1", true],
    ["refs/tags/v*", "refs/tags/w1", false],
    ["a.b", "refs/heads/axb", false],
    ["*", "refs/heads/x/y", true],
  ];
  for (const [pattern, ref, expected] of table) assert.is(matchesRef(pattern, ref), expected);
});

test("what runs is decided by the repo's refs, else the checkout's branch; without one pushes to branches are taken, to be decided later", () => {
  const facts = readPayload(envelope("push"), pushPayload("me/site", sha(1)));
  const on = { push: "build", release: "release" } as const;
  assert.is(selectChanges({ refs: ["dev"], on }, facts, "main").changes.length, 0);
  assert.is(selectChanges({ refs: undefined, on }, facts, "dev").changes.length, 0);
  const [open] = selectChanges({ refs: undefined, on }, facts, undefined).changes;
  assert.is(open?.onlyIfCheckedOut, true);
  assert.is(selectChanges({ refs: undefined, on }, facts, "main").changes[0]?.onlyIfCheckedOut, undefined);
  const off = selectChanges({ refs: undefined, on: { ...on, push: false } }, facts, "main");
  assert.is(off.reason, "no repo is configured for this event");
});

test("JSON and form-encoded bodies are read, others are not", () => {
  assert.is(contentTypeOf("application/json; charset=utf-8"), "json");
  assert.is(contentTypeOf("Application/X-WWW-Form-Urlencoded"), "form");
  assert.is(contentTypeOf("text/plain"), undefined);
  assert.is(contentTypeOf(undefined), undefined);
  const form = Buffer.from("payload=%7B%22a%22%3A%22x+y%22%7D");
  assert.is(jsonOf(form, "form").toString(), '{"a":"x y"}');
  assert.throws(() => jsonOf(Buffer.from("other=1"), "form"));
});

test.run();
