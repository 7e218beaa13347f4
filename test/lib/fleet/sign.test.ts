import { createHmac } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { signRequest, verifyRequest } from "../../../lib/fleet/sign.ts";

const secret = "a secret of sixteen or more";
const now = Date.parse("2026-11-20T10:00:00Z");
const nonce = "00112233445566778899aabbccddeeff";

test("the header is what the page says, so that other programs can sign", () => {
  const header = signRequest(secret, "GET", "/get/?repo=site", now, nonce);
  const hmac = createHmac("sha256", secret)
    .update(`GET\n/get/?repo=site\n${now / 1000}\n${nonce}`)
    .digest("hex");
  assert.is(header, `time=${now / 1000}, nonce=${nonce}, hmac=${hmac}`);
});

test("a signed request is taken, with either of two secrets", () => {
  const header = signRequest(secret, "GET", "/x", now, nonce);
  assert.ok(verifyRequest([secret], "GET", "/x", header, now).ok);
  assert.ok(verifyRequest(["the newer secret", secret], "GET", "/x", header, now + 60_000).ok);
});

test("another method, path, query, secret or a changed header is refused", () => {
  const header = signRequest(secret, "GET", "/get/?repo=site", now, nonce);
  const cases: [string[], string, string, string | undefined][] = [
    [[secret], "POST", "/get/?repo=site", header],
    [[secret], "GET", "/get/?repo=other", header],
    [[secret], "GET", "/get/?repo=site&sha=1", header],
    [["another"], "GET", "/get/?repo=site", header],
    [[secret], "GET", "/get/?repo=site", header.replace("time=1", "time=2")],
    [[secret], "GET", "/get/?repo=site", header.replace("nonce=00", "nonce=01")],
    [[secret], "GET", "/get/?repo=site", `${header}, x=1`],
    [[secret], "GET", "/get/?repo=site", ""],
    [[secret], "GET", "/get/?repo=site", undefined],
  ];
  for (const [secrets, method, path, given] of cases) {
    const verdict = verifyRequest(secrets, method, path, given, now);
    assert.not.ok(verdict.ok, `${method} ${path} ${given}`);
  }
});

test("clocks that differ are told in plain words, and only to who holds the secret", () => {
  const header = signRequest(secret, "GET", "/x", now - 7 * 60_000, nonce);
  const old = verifyRequest([secret], "GET", "/x", header, now);
  assert.match(old.ok ? "" : old.reason, "clock is 7 minutes behind this slave's");
  const early = verifyRequest([secret], "GET", "/x", header, now - 3 * 3_600_000);
  assert.match(early.ok ? "" : early.reason, "clock is 3 hours ahead of this slave's");
  const stranger = verifyRequest(["another"], "GET", "/x", header, now);
  assert.not.match(stranger.ok ? "" : stranger.reason, "clock");
});

test.run();
