import * as assert from "uvu/assert";
import { test } from "uvu";
import { isDeliveryId, readEnvelope, repoHints } from "../../../../lib/hook/payload/forge.ts";
import { proves } from "../../../../lib/hook/payload/signature.ts";
import { sign } from "../../../helpers/hooks.ts";

const hex = sign("{}");

test("each forge is told by its own headers", () => {
  const table: [Record<string, string>, string, string, string | undefined, string | undefined][] = [
    [
      {
        "x-github-event": "push",
        "x-github-delivery": "g1",
        "x-hub-signature-256": `sha256=${hex}`,
      },
      "github",
      "push",
      "g1",
      hex,
    ],
    [
      {
        "x-gitea-event": "release",
        "x-github-event": "release",
        "x-gitea-delivery": "t1",
        "x-gitea-signature": hex,
      },
      "gitea",
      "release",
      "t1",
      hex,
    ],
    [
      {
        "x-forgejo-event": "push",
        "x-gitea-event": "push",
        "x-forgejo-delivery": "f1",
        "x-forgejo-signature": hex,
      },
      "forgejo",
      "push",
      "f1",
      hex,
    ],
    [{ "x-gogs-event": "push", "x-gogs-delivery": "o1", "x-gogs-signature": hex }, "gogs", "push", "o1", hex],
    [
      { "x-gitlab-event": "Tag Push Hook", "x-gitlab-event-uuid": "l1", "x-gitlab-token": "t" },
      "gitlab",
      "push",
      "l1",
      "t",
    ],
    [
      {
        "x-gitlab-event": "Release Hook",
        "x-gitlab-event-uuid": "l1",
        "idempotency-key": "k",
        "x-gitlab-token": "t",
      },
      "gitlab",
      "release",
      "k",
      "t",
    ],
    [
      { "x-event-key": "repo:push", "x-request-uuid": "b1", "x-hub-signature": `sha256=${hex}` },
      "bitbucket",
      "push",
      "b1",
      hex,
    ],
    [
      {
        "x-event-key": "repo:refs_changed",
        "x-request-id": "d1",
        "x-hub-signature": `sha256=${hex}`,
      },
      "bitbucket",
      "push",
      "d1",
      hex,
    ],
    [{ "x-event-key": "diagnostics:ping" }, "bitbucket", "ping", undefined, undefined],
    [{ "x-github-event": "constructor" }, "github", "constructor", undefined, undefined],
  ];
  for (const [headers, forge, event, id, proof] of table) {
    const envelope = readEnvelope(headers);
    assert.is(envelope?.forge, forge);
    assert.is(envelope?.event, event);
    assert.is(envelope?.id, id);
    const shown = envelope?.proof;
    assert.is(shown?.kind === "hmac" ? shown.hex : shown?.token, proof);
  }
  assert.is(readEnvelope({ "content-type": "application/json" }), undefined);
});

test("a SHA-1 signature proves nothing", () => {
  const envelope = readEnvelope({ "x-github-event": "push", "x-hub-signature": "sha1=aa" });
  assert.is(envelope?.proof, undefined);
  const wrong = readEnvelope({ "x-github-event": "push", "x-hub-signature-256": `sha1=${hex}` });
  assert.is(wrong?.proof?.kind === "hmac" && wrong.proof.hex, "");
});

test("a proof holds for its body and its secret only", () => {
  const body = Buffer.from('{"a":1}');
  const good = sign(body, "one");
  assert.is(proves({ kind: "hmac", hex: good }, body, "one"), true);
  assert.is(proves({ kind: "hmac", hex: good.toUpperCase() }, body, "one"), true);
  assert.is(proves({ kind: "hmac", hex: good }, body, "two"), false);
  assert.is(proves({ kind: "hmac", hex: good }, Buffer.from('{"a":2}'), "one"), false);
  for (const hex of ["", "zz", good.slice(1), `${good}00`]) {
    assert.is(proves({ kind: "hmac", hex }, body, "one"), false);
  }
  assert.is(proves({ kind: "token", token: "one" }, body, "one"), true);
  assert.is(proves({ kind: "token", token: "on" }, body, "one"), false);
  assert.is(proves({ kind: "token", token: "" }, body, ""), false);
});

test("the repository's name is found in a body's bytes, in either encoding", () => {
  const json = '{"a": {"full_name" : "me/site"}, "path_with_namespace":"g/sub/p"}';
  assert.equal([...repoHints(Buffer.from(json))], ["me/site", "g/sub/p"]);
  const form = `payload=${encodeURIComponent('{"repository":{"full_name":"me/site"}}')}`;
  assert.equal([...repoHints(Buffer.from(form))], ["me/site"]);
  assert.equal([...repoHints(Buffer.from('{"full_name": 3, "full_name":"a b"}'))], []);
});

test("a delivery id is short and printable", () => {
  assert.is(isDeliveryId("72d3162e-cc78-11e3-81ab-4c9367dc0958"), true);
  assert.is(isDeliveryId("{b1}"), true);
  for (const id of ["", "a b", "a\nb", "é", "x".repeat(201)]) assert.is(isDeliveryId(id), false);
});

test.run();
