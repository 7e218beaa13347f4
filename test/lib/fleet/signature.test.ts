import { createHmac, generateKeyPairSync } from "node:crypto";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { answerRefusal, digestOf, signAnswer, signRequest, verifyRequest } from "../../../lib/fleet/signature.ts";
import { lastDigitChanged } from "../../helpers/hooks.ts";

const secret = "a secret of sixteen or more";
const now = Date.parse("2026-11-20T10:00:00Z");
const nonce = "00112233445566778899aabbccddeeff";
const get = { method: "GET", path: "/status?repo=site" };
const master = generateKeyPairSync("ed25519");
const stranger = generateKeyPairSync("ed25519");
const bySecret = { keys: [], secrets: ["the newer secret", secret] };
const byKey = { keys: [stranger.publicKey, master.publicKey], secrets: [] };

test("the headers are what the page says, so that other programs can sign", () => {
  const header = signRequest({ secret }, { ...get, target: "web-17" }, now, nonce);
  const text = `boatyard-request-v2\nGET\n/status?repo=site\nweb-17\n${now / 1000}\n${nonce}`;
  const hmac = createHmac("sha256", secret).update(text).digest("hex");
  assert.is(header, `target=web-17, time=${now / 1000}, nonce=${nonce}, hmac=${hmac}`);
});

test("a signed request is taken, by a secret of two or by a key, and says who it is for", () => {
  for (const [keys, trusted] of [
    [{ secret }, bySecret],
    [{ key: master.privateKey }, byKey],
    [{ key: master.privateKey, secret: "not known there" }, byKey],
  ] as const) {
    const header = signRequest(keys, { ...get, target: "web-17" }, now, nonce);
    const check = verifyRequest(trusted, get, header, now + 60_000);
    assert.equal([check.ok, check.target], [true, "web-17"]);
  }
});

test("another method, path, target, secret, key or a changed header is refused", () => {
  for (const [keys, trusted] of [
    [{ secret }, bySecret],
    [{ key: master.privateKey }, byKey],
  ] as const) {
    const header = signRequest(keys, { ...get, target: "web-17" }, now, nonce);
    const cases = [
      [trusted, { ...get, method: "POST" }, header],
      [trusted, { ...get, path: "/status?repo=other" }, header],
      [trusted, get, header.replace("web-17", "web-18")],
      [trusted, get, header.replace("time=1", "time=2")],
      [trusted, get, header.replace("nonce=00", "nonce=01")],
      [trusted, get, `${header}, x=1`],
      [trusted, get, ""],
      [{ keys: [stranger.publicKey], secrets: ["another"] }, get, header],
      [{ keys: [], secrets: [] }, get, header],
    ] as const;
    for (const [against, request, given] of cases) assert.not.ok(verifyRequest(against, request, given, now).ok, given);
  }
});

test("a shared secret's signature that differs in its last digit is refused, in a request and in an answer", () => {
  const header = signRequest({ secret }, { ...get, target: "web-17" }, now, nonce);
  assert.not.ok(verifyRequest(bySecret, get, lastDigitChanged(header), now).ok);
  const answer = signAnswer({ secret }, digestOf("request"), 200, "{}");
  const whyNot = (given: string) => answerRefusal(given, { sent: ["request"], own: { secret } }, 200, "{}");
  assert.is(whyNot(answer), undefined);
  assert.match(whyNot(lastDigitChanged(answer)) ?? "", "shared secret");
});

test("clocks that differ are told in plain words, and only to who holds the secret", () => {
  const request = { method: "GET", path: "/x" };
  const header = signRequest({ secret }, { ...request, target: "web-17" }, now - 7 * 60_000, nonce);
  const old = verifyRequest(bySecret, request, header, now);
  assert.match(old.ok ? "" : old.reason, "clock is 7 minutes behind this slave's");
  const early = verifyRequest(bySecret, request, header, now - 3 * 3_600_000);
  assert.match(early.ok ? "" : early.reason, "clock is 3 hours ahead of this slave's");
  const other = verifyRequest({ keys: [], secrets: ["another"] }, request, header, now);
  assert.not.match(other.ok ? "" : other.reason, "clock");
});

test("an answer is good for the request that it was given to, and as it was given", () => {
  const slave = generateKeyPairSync("ed25519");
  const body = '{"state":"done"}\n';
  const good = signAnswer({ secret, key: slave.privateKey }, digestOf("request"), 200, body);
  const check = (
    header: string | undefined,
    more: Partial<Parameters<typeof answerRefusal>[1]> = {},
    [status, text] = [200, body] as [number, string],
  ) => answerRefusal(header, { sent: ["order", "request"], own: { secret }, ...more }, status, text);
  assert.is(check(good), undefined);
  assert.is(check(good, { slaveKey: slave.publicKey }), undefined);
  assert.match(check(good, { sent: ["another"] }) ?? "", "not bound");
  assert.match(check(undefined) ?? "", "not bound");
  assert.match(check(good, {}, [202, body]) ?? "", "shared secret");
  assert.match(check(good, {}, [200, "{}"]) ?? "", "shared secret");
  assert.match(check(`for=${digestOf("request")}`) ?? "", "shared secret");
  assert.match(check(good, { slaveKey: stranger.publicKey }) ?? "", "key that the list has");
  const plain = signAnswer({}, digestOf("order"), 200, body);
  assert.is(check(plain, { own: { key: master.privateKey } }), undefined);
  assert.ok(check(plain, { own: { key: master.privateKey }, slaveKey: slave.publicKey }));
});

test.run();
