import { Buffer } from "node:buffer";
import { createPublicKey, verify } from "node:crypto";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isNkey, keyOfSeed, nkeyOf } from "../../../lib/bus/nkey.ts";
import { keyId, parsePublicKey, readPrivateKey, writeKey, writeSeed } from "../../../lib/fleet/keys.ts";
import { type Order, readOrder, readReport, signOrder, writeReport } from "../../../lib/fleet/order.ts";
import { runCommand } from "../../helpers/run.ts";
import { needsCommand, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const order: Order = {
  repo: "site",
  sha: "a".repeat(40),
  branch: "main",
  target: "web-17",
  at: Date.parse("2026-11-20T10:00:00Z"),
  until: Date.parse("2026-11-27T10:00:00Z"),
  run: "20261120T100000Z-3f2a9c",
};

async function makeKey() {
  const path = join(tempDir(), "key");
  const { publicKey } = await writeKey(path);
  return { path, publicKey: parsePublicKey(publicKey), key: await readPrivateKey(path) };
}

const refusal = (text: string, keys: Parameters<typeof readOrder>[1]) => {
  const read = readOrder(text, keys);
  return "refusal" in read ? read.refusal : undefined;
};

test("an order is what the page says, so that other programs can write and read one", async () => {
  const { key, publicKey } = await makeKey();
  const [version, payload = "", signature = ""] = signOrder(order, key).split(".");
  assert.is(version, "v1");
  assert.equal(JSON.parse(Buffer.from(payload, "base64url").toString()), order);
  const text = Buffer.from(`boatyard-order-v1\n${payload}`);
  assert.ok(verify(null, text, publicKey, Buffer.from(signature, "base64url")));
});

test("a signed order is read, with the name of the key that it is from", async () => {
  const [old, now] = [await makeKey(), await makeKey()];
  const read = readOrder(signOrder(order, now.key), [old.publicKey, now.publicKey]);
  assert.equal("order" in read && read.order, order);
  assert.is("key" in read && read.key, keyId(now.publicKey));
});

test("another key, a changed payload or signature, and what is no order are refused", async () => {
  const [ours, other] = [await makeKey(), await makeKey()];
  const text = signOrder(order, ours.key);
  const [version, payload = "", signature = ""] = text.split(".");
  const changed = Buffer.from(JSON.stringify({ ...order, target: "web-18" })).toString("base64url");
  assert.match(refusal(text, [other.publicKey]) ?? "", "is not signed with a master_key");
  // the last character's unused bits make another text of the same signature
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const last = alphabet[alphabet.indexOf(signature.at(-1) ?? "") ^ 1];
  for (const bad of [
    `${version}.${changed}.${signature}`,
    `${version}.${payload}.${signature.slice(0, -1)}${last}`,
    `${version}.${payload}.${"A".repeat(86)}`,
    `v2.${payload}.${signature}`,
    `${text}.x`,
    "",
  ])
    assert.ok(refusal(bad, [ours.publicKey]), bad);
  for (const [field, value] of [
    ["repo", "../x"],
    ["repo", undefined],
    ["sha", "HEAD"],
    ["branch", "a..b"],
    ["branch", null],
    ["target", "a b"],
    ["at", "now"],
    ["at", 1.5],
    ["until", undefined],
    ["run", "x"],
  ] as const) {
    const odd = signOrder({ ...order, [field]: value } as Order, ours.key);
    assert.match(refusal(odd, [ours.publicKey]) ?? "", "does not say what an order must", field);
  }
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

test("a report of a time that is none is refused", () => {
  const report = { name: "web-1", inventory: {}, orders: {}, groups: [] };
  const read = (time: number) => readReport(writeReport({ ...report, time }, undefined), report);
  assert.is("time" in read(1) && "ok", "ok");
  for (const time of [-1, 1.5, 8.64e15 + 1]) assert.ok("refusal" in read(time), `${time}`);
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
