import { Buffer } from "node:buffer";
import { createPublicKey, generateKeyPairSync, type KeyObject, verify } from "node:crypto";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isNkey, keyOfSeed, nkeyOf } from "../../../lib/bus/nkey.ts";
import { keyId, keyOfSecret, parsePublicKey, readPrivateKey, writeKey, writeSeed } from "../../../lib/fleet/keys.ts";
import { checkTime, digestOf, type Letter, open, openOrder, seal } from "../../../lib/fleet/letter.ts";
import { openReport } from "../../../lib/fleet/report.ts";
import { runCommand } from "../../helpers/run.ts";
import { needsCommand, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const order: Letter = {
  kind: "order",
  to: "web-17",
  at: Date.parse("2026-11-20T10:00:00Z"),
  until: Date.parse("2026-11-27T10:00:00Z"),
  repo: "site",
  sha: "a".repeat(40),
  branch: "main",
  run: "20261120T100000Z-3f2a9c",
};

async function makeKey() {
  const path = join(tempDir(), "key");
  const { publicKey } = await writeKey(path);
  return { path, publicKey: parsePublicKey(publicKey), key: await readPrivateKey(path) };
}

function refusalOf(work: () => unknown): string | undefined {
  try {
    work();
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

const refusal = (text: string, keys: readonly KeyObject[] | undefined) => {
  return refusalOf(() => openOrder(text, { keys }));
};

test("a letter is what the page says, so that other programs can write and read one", async () => {
  const { key, publicKey } = await makeKey();
  const [version, payload = "", signature = ""] = seal(order, key).split(".");
  assert.is(version, "v2");
  assert.equal(JSON.parse(Buffer.from(payload, "base64url").toString()), order);
  assert.ok(verify(null, Buffer.from(`v2.${payload}`), publicKey, Buffer.from(signature, "base64url")));
});

test("a signed order is read, with the key that it is from", async () => {
  const [old, now] = [await makeKey(), await makeKey()];
  const text = seal(order, now.key);
  const read = openOrder(text, { keys: [old.publicKey, now.publicKey], names: ["other", "Web-17"] });
  const { kind: _, to, ...content } = order;
  assert.equal({ ...read.order }, { ...content, back: undefined, digest: digestOf(text) } as typeof read.order);
  assert.is(read.letter.to, to);
  assert.is(read.key && keyId(read.key), keyId(now.publicKey));
});

test("another key, a changed payload or signature, and what is no order are refused", async () => {
  const [ours, other] = [await makeKey(), await makeKey()];
  const text = seal(order, ours.key);
  const [version, payload = "", signature = ""] = text.split(".");
  const changed = Buffer.from(JSON.stringify({ ...order, to: "web-18" })).toString("base64url");
  assert.match(refusal(text, [other.publicKey]) ?? "", "is not signed with a key that is known here");
  assert.match(refusal(seal(order, undefined), [ours.publicKey]) ?? "", "is not signed");
  assert.is(refusal(seal(order, undefined), undefined), undefined, "where nobody has to sign");
  for (const bad of [
    `${version}.${changed}.${signature}`,
    `${version}.${payload}.${"A".repeat(86)}`,
    `v1.${payload}.${signature}`,
    `${text}.x`,
    "v2..",
    "",
  ])
    assert.ok(refusal(bad, [ours.publicKey]), bad);
  for (const [field, value] of [
    ["kind", "question"],
    ["repo", "../x"],
    ["repo", undefined],
    ["sha", "HEAD"],
    ["branch", "a..b"],
    ["branch", null],
    ["to", "a b"],
    ["at", "now"],
    ["at", 1.5],
    ["until", undefined],
    ["run", "x"],
  ] as const) {
    const odd = seal({ ...order, [field]: value } as Letter, ours.key);
    assert.match(refusal(odd, [ours.publicKey]) ?? "", /does not say what an order must|it is no order/, field);
  }
});

test("one signature in two forms is one letter: what it is known by is its payload", async () => {
  const { key, publicKey } = await makeKey();
  const text = seal(order, key);
  // the last character's unused bits make another text of the same signature
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const other = text.slice(0, -1) + alphabet[alphabet.indexOf(text.at(-1) ?? "") ^ 1];
  assert.is(refusal(other, [publicKey]), undefined);
  assert.is(digestOf(other), digestOf(text));
});

test("a letter counts from when it was written, give or take five minutes, until it is over", () => {
  const minute = 60_000;
  const time = (now: number) => refusalOf(() => checkTime(order, now));
  assert.is(time(order.at - 4 * minute), undefined);
  assert.match(time(order.at - 6 * minute) ?? "", /written at 2026-11-20T10:00.*here says 2026-11-20T09:54/);
  assert.is(time(order.until), undefined);
  assert.match(time(order.until + 1) ?? "", /good until 2026-11-27T10:00.*--converge.*NTP/);
});

test("a shared secret is a key that both sides make, and a short one is refused", () => {
  const secret = "0123456789abcdef0123456789abcdef";
  assert.is(keyId(keyOfSecret(secret, "")), keyId(keyOfSecret(secret, "")));
  assert.is.not(keyId(keyOfSecret(secret, "")), keyId(keyOfSecret(`${secret}0`, "")));
  assert.throws(() => keyOfSecret(secret.slice(1), "slave.yml:3"), /slave\.yml:3: a secret is shorter than 32/);
});

test("an answer is the slave's own, to this very letter, and its words are cleaned", () => {
  const [slave, stranger] = [generateKeyPairSync("ed25519"), generateKeyPairSync("ed25519")];
  const at = Date.now();
  const repos = [{ repo: "site", error: "\u001b[31mno", order: { digest: "d", at: 1, state: "done" } }, { repo: 1 }, 7];
  const answer = (key?: KeyObject, more: object = {}) =>
    seal({ kind: "answer", to: "digest", at, until: at, name: "web-1", repos, ...more }, key);
  const why = (text: string, more: object = {}) => {
    return refusalOf(() => openReport(text, { name: "web-1", to: "digest", ...more }));
  };
  const own = { key: slave.publicKey };
  assert.is(why(answer(slave.privateKey), own), undefined);
  assert.is(why(answer()), undefined);
  assert.match(why(answer(), own) ?? "", "key that the list has");
  assert.match(why(answer(stranger.privateKey), own) ?? "", "key that the list has");
  assert.match(why(answer(), { shared: slave.publicKey }) ?? "", "shared secret");
  assert.match(why(answer(), { to: "another" }) ?? "", "not to our letter");
  assert.match(why(answer(undefined, { to: "*", name: "web-2" }), { to: "*" }) ?? "", "another slave's");
  assert.match(why(answer(undefined, { kind: "order" })) ?? "", "no letter");
  assert.match(why(answer(undefined, { at: 8.64e15 + 1 })) ?? "", "no letter");
  const report = openReport(answer(), { name: "web-1", to: "digest" });
  assert.equal(
    report.repos.map(({ repo, error, order: last }) => [repo, error, last?.state]),
    [["site", "no", "done"]],
  );
  assert.throws(() => open(answer(), "order", { keys: undefined }), /it is no order/);
  assert.throws(
    () => openOrder(seal(order, slave.privateKey), { keys: [slave.publicKey], names: ["web-1"] }),
    /another slave, web-17/,
  );
});

test("a key is made once, for its owner alone", async () => {
  const { path, key } = await makeKey();
  assert.is((await stat(path)).mode & 0o777, 0o600);
  assert.match(await readFile(`${path}.pub`, "utf8"), /^ed25519:[A-Za-z0-9_-]{43}\n$/);
  const before = await readFile(path, "utf8");
  const error = await writeKey(path).catch((reason: unknown) => reason);
  assert.match(String(error), "is there already, and is left alone");
  assert.is(await readFile(path, "utf8"), before);
  assert.is(keyId(key), keyId(createPublicKey(key)));
});

test("a key whose public half cannot be written is not left behind", async () => {
  const path = join(tempDir(), "key");
  await mkdir(`${path}.pub/x`, { recursive: true });
  const error = await writeKey(path).catch((reason: unknown) => reason);
  assert.match(String(error), `${path}.pub cannot be written`);
  await rm(`${path}.pub`, { recursive: true });
  await writeKey(path);
});

test("what is no public key is said so", () => {
  for (const text of [
    "",
    "ed25519:",
    `ed25519:${"A".repeat(42)}`,
    `ed25519:${"A".repeat(42)}B`,
    `x25519:${"A".repeat(43)}`,
  ])
    assert.throws(() => parsePublicKey(text), /is not a public key/);
});

testUnless(test, needsCommand("openssl"))("a key of openssl is one, an RSA key is not", async () => {
  const dir = tempDir();
  await runCommand(["openssl", "genpkey", "-algorithm", "ed25519", "-out", join(dir, "ok")], {
    expect: 0,
  });
  await runCommand(["chmod", "600", join(dir, "ok")]);
  assert.is((await readPrivateKey(join(dir, "ok"))).asymmetricKeyType, "ed25519");
  await runCommand(["sh", "-c", `umask 077; openssl genrsa -out ${dir}/rsa 2048`], { expect: 0 });
  const error = await readPrivateKey(join(dir, "rsa")).catch((reason: unknown) => reason);
  assert.match(String(error), "is not an Ed25519 private key");
});

test("a bus's seed is that of nk and nsc, and one with a wrong letter is none", async () => {
  // the pair in NATS's documentation of nkeys
  const seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
  const nkey = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
  const key = keyOfSeed(seed);
  assert.is(key && nkeyOf(key), nkey);
  assert.ok(isNkey(nkey));
  for (const wrong of [seed.replace("3VY", "3VA"), seed.slice(1), nkey, seed.toLowerCase(), ""])
    assert.is(keyOfSeed(wrong), undefined, wrong);
  assert.not(isNkey(nkey.replace("NF4", "NF5")));
  assert.not(isNkey(seed));
  const path = join(tempDir(), "bus.seed");
  const made = await writeSeed(path);
  const known = keyOfSeed((await readFile(path, "utf8")).trim());
  assert.is(known && nkeyOf(known), made);
  assert.is((await stat(path)).mode & 0o777, 0o600);
  const again = await writeSeed(path).catch((error: unknown) => String(error));
  assert.match(again, "is there already");
});

test.run();
