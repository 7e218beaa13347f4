import { createHmac } from "node:crypto";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { readEnvelope } from "../../../../lib/hook/payload/forge.ts";
import { mayProve, type Proof, proves, signingKey } from "../../../../lib/hook/payload/signature.ts";
import { lastDigitChanged, sign } from "../../../helpers/hooks.ts";

const key = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=";
const id = "f5e5f430-f57b-4e6e-9fac-d9128cd7232f";
const time = 1776000000;
const body = Buffer.from('{"object_kind":"push"}');
const right = "v1,imJSw26HZ1QfM+sMVv2rP2kDRO0Z6E/l7+diZEstRrg=";

const signed = (changes: Partial<Extract<Proof, { kind: "signed" }>> = {}): Proof => ({
  kind: "signed",
  id,
  timestamp: String(time),
  signatures: right,
  token: undefined,
  ...changes,
});
const holds = (proof: Proof, bytes: Uint8Array = body, secret = key, now = time * 1000) =>
  proves(proof, bytes, secret, now);

test("signatures of Standard Webhooks' own example, of GitLab's key, and over bytes that are no text", () => {
  const standard = signed({
    id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
    timestamp: "1614265330",
    signatures: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
  const theirs = Buffer.from('{"test": 2432232314}');
  assert.ok(holds(standard, theirs, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 1614265330_000));
  assert.ok(holds(signed()));
  const bytes = signed({ signatures: "v1,Vc92/T2uBzjZWaB5nv8nMHqvpLZIWyiAKL0XwvrJ024=" });
  assert.ok(holds(bytes, Uint8Array.of(0xff, 0xfe)));
  assert.not.ok(holds(bytes, Uint8Array.of(0xfd, 0xfe)));
  assert.not.ok(holds(bytes, Buffer.from("\ufffd\ufffd")));
});

test("one right signature of several is enough; other kinds and forms are none", () => {
  const wrong = `v1,${Buffer.alloc(32).toString("base64")}`;
  assert.ok(holds(signed({ signatures: `${wrong} ${right}` })));
  assert.ok(holds(signed({ signatures: `v1a,AAAA ${right} v2,x` })));
  const base64 = right.slice(3);
  for (const signatures of [
    "",
    wrong,
    base64,
    `v1a,${base64}`,
    `v1, ${base64}`,
    `${right},`,
    `v1,${base64.slice(0, -1)}`,
    `v1,${base64}!`,
    `v1,${Buffer.from(base64, "base64").toString("hex")}`,
    `v1,${Buffer.from(base64, "base64").subarray(0, 16).toString("base64")}`,
  ])
    assert.not.ok(holds(signed({ signatures })), signatures);
});

test("a signature that differs in its last digit or byte proves nothing", () => {
  const hex = sign(body, "a plain secret");
  assert.ok(holds({ kind: "hmac", hex }, body, "a plain secret"));
  assert.not.ok(holds({ kind: "hmac", hex: lastDigitChanged(hex) }, body, "a plain secret"));
  const bytes = Buffer.from(right.slice(3), "base64");
  bytes[31] = (bytes[31] ?? 0) ^ 1;
  assert.not.ok(holds(signed({ signatures: `v1,${bytes.toString("base64")}` })));
});

test("the time may differ by five minutes both ways, and is signed as it stands there", () => {
  for (const [seconds, expected] of [
    [-300, true],
    [300, true],
    [-301, false],
    [301, false],
  ] as const)
    assert.is(holds(signed(), body, key, (time + seconds) * 1000), expected, `${seconds} s`);
  for (const timestamp of ["", `${time}abc`, ` ${time}`, `${time}.9`, `+${time}`, "1e9", "-1"]) {
    const mac = createHmac("sha256", signingKey(key) ?? "")
      .update(`${id}.${timestamp}.`)
      .update(body)
      .digest("base64");
    assert.not.ok(holds(signed({ timestamp, signatures: `v1,${mac}` })), timestamp);
  }
  assert.not.ok(holds(signed({ timestamp: `0${time}` })), "another text of the same time");
});

test("an id in which what is signed could be split in another place proves nothing", () => {
  for (const odd of ["", "a.b", `${id}.${time}`, "a b", "ä"]) {
    const mac = createHmac("sha256", signingKey(key) ?? "")
      .update(`${odd}.${time}.`)
      .update(body)
      .digest("base64");
    assert.not.ok(holds(signed({ id: odd, signatures: `v1,${mac}` })), odd);
  }
});

test("a signing token takes nothing but its signature, and no other secret takes one", () => {
  assert.not.ok(holds({ kind: "token", token: key }));
  assert.not.ok(holds(signed({ token: key, signatures: "v1,AAAA" })));
  assert.not.ok(holds({ kind: "hmac", hex: sign(body, key) }));
  assert.not.ok(holds(signed(), body, "another secret"));
  // both are set at GitLab, the plain one here: it alone counts
  assert.ok(holds(signed({ token: "the plain one", timestamp: "1" }), body, "the plain one"));
  assert.not.ok(holds(signed({ token: "" }), body, ""));
});

test("the headers alone tell a wrong token, a stale time, and what has no signature's form", () => {
  const now = time * 1000;
  const may = (proof: Proof, secret: string) => mayProve(proof, secret, now);
  assert.ok(may(signed({ signatures: "v1,unknown" }), key));
  assert.not.ok(may(signed({ timestamp: "1" }), key));
  assert.ok(may({ kind: "token", token: "one" }, "one"));
  assert.not.ok(may({ kind: "token", token: "two" }, "one"));
  assert.ok(may({ kind: "hmac", hex: "0".repeat(64) }, "one"));
  assert.not.ok(may({ kind: "hmac", hex: "zz" }, "one"));
});

test("a signing token is whsec_ and 24 to 64 bytes in base64", () => {
  const of = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString("base64")}`;
  for (const bytes of [24, 32, 64]) assert.is(signingKey(of(bytes))?.length, bytes);
  for (const bytes of [0, 1, 23, 65]) assert.is(signingKey(of(bytes)), undefined);
  for (const secret of ["", "plain", `${of(32)}x`, of(32).replace("w", "W"), `${of(32)} `])
    assert.is(signingKey(secret), undefined);
});

test("GitLab 19 is told by its signature alone; with it only webhook-id is the delivery's id", () => {
  const headers = {
    "x-gitlab-event": "Push Hook",
    "idempotency-key": "other",
    "x-gitlab-event-uuid": "another",
    "webhook-id": id,
    "webhook-timestamp": String(time),
    "x-gitlab-token": "plain",
  };
  const plain = readEnvelope(headers);
  assert.equal(plain?.proof, { kind: "token", token: "plain" });
  assert.is(plain?.id, "other");
  const both = readEnvelope({ ...headers, "webhook-signature": right });
  assert.equal(both?.proof, signed({ token: "plain" }));
  assert.is(both?.id, id);
  // other forges know no such thing
  const github = readEnvelope({ ...headers, "x-gitlab-event": "", "x-github-event": "push" });
  assert.is(github?.proof, undefined);
});

test.run();
