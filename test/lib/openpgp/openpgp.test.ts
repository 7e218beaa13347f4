// Signatures by a real gpg, judged by us; beside each gpg's own verdict. docs/signatures.md is this table.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Refused } from "../../../lib/core/errors.ts";
import { fingerprintOf, mergeKeys, normalFingerprint, readPublicKeys } from "../../../lib/openpgp/keys.ts";
import { generateSigningKey, openPrivateKey, signDetached } from "../../../lib/openpgp/sign.ts";
import { Signatures } from "../../../lib/openpgp/verify.ts";
import { type GpgHome, gpgHome, needsGpg } from "../../helpers/gpg.ts";
import { prepare } from "../../helpers/prepare.ts";
import { testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const gpgTest = testUnless(test, needsGpg);
const folder = tempDir("sig-");
const data = Buffer.from("an archive's bytes\n");
const file = join(folder, "data");
writeFileSync(file, data);
let home: GpgHome;
prepare(test, async () => {
  if (!needsGpg) home = await gpgHome();
});
test.after(async () => {
  if (!needsGpg) await home.close();
});

/** Our verdict on a signature file by a key: `good`, or the reason. */
async function judge(
  signature: Uint8Array,
  keyFile: Uint8Array,
  { bytes = data, now = new Date(), pin }: { bytes?: Buffer; now?: Date; pin?: string } = {},
): Promise<string> {
  try {
    const keys = await readPublicKeys(keyFile, "key");
    const key = pin === undefined ? keys[0] : keys.find((each) => fingerprintOf(each) === pin);
    const signatures = await Signatures.read(signature, "sig");
    await signatures.verify(key!, bytes, "sig", now);
    return "good";
  } catch (error) {
    if (error instanceof Refused) return error.message;
    throw error;
  }
}

/** gpg's exit code for the same. */
async function gpgSays(signature: string, at?: string): Promise<number | null> {
  const { code } = await home.gpg(["--verify", signature, file], {
    check: false,
    ...(at === undefined ? {} : { at }),
  });
  return code;
}

for (const algorithm of ["ed25519", "rsa2048", "rsa4096", "nistp256"]) {
  gpgTest(`a signature by gpg's ${algorithm} is good here and there`, async () => {
    const fingerprint = await home.key(algorithm, { algorithm });
    const signature = await home.sign(file, fingerprint);
    assert.is(await judge(readFileSync(signature), await home.export(fingerprint)), "good");
    assert.is(await gpgSays(signature), 0);
  });
}

for (const digest of ["SHA256", "SHA384", "SHA512"]) {
  gpgTest(`a signature with ${digest} is good, armored too`, async () => {
    const fingerprint = await home.key(`digest ${digest}`);
    const args = ["--digest-algo", digest, "--armor"];
    const signature = await home.sign(file, fingerprint, { args });
    assert.is(await judge(readFileSync(signature), await home.export(fingerprint)), "good");
  });
}

for (const [digest, word] of [
  ["SHA1", "SHA-1"],
  ["RIPEMD160", "RIPEMD-160"],
  ["SHA224", "SHA-224"],
] as const) {
  gpgTest(`a signature with ${digest} is refused, which gpg takes`, async () => {
    const fingerprint = await home.key(`weak ${digest}`, { algorithm: "rsa2048" });
    const signature = await home.sign(file, fingerprint, { args: ["--digest-algo", digest] });
    const verdict = await judge(readFileSync(signature), await home.export(fingerprint));
    assert.match(verdict, `weak: made with ${word}`);
    assert.is(await gpgSays(signature), 0);
  });
}

gpgTest("a signature with MD5 is refused", async () => {
  const fingerprint = await home.key("weak MD5", { algorithm: "rsa2048" });
  const args = ["--digest-algo", "MD5", "--allow-weak-digest-algos"];
  const signature = await home.sign(file, fingerprint, { args });
  assert.match(await judge(readFileSync(signature), await home.export(fingerprint)), "weak: made with MD5");
  assert.is(await gpgSays(signature), 2);
});

gpgTest("RSA under 2048 bits is refused, which gpg takes", async () => {
  const fingerprint = await home.key("short", { algorithm: "rsa1024" });
  const signature = await home.sign(file, fingerprint);
  assert.match(await judge(readFileSync(signature), await home.export(fingerprint)), /shorter than 2048/);
  assert.is(await gpgSays(signature), 0);
});

gpgTest("a text-mode signature is refused, which gpg takes", async () => {
  const fingerprint = await home.key("text");
  const signature = await home.sign(file, fingerprint, { args: ["--textmode"] });
  assert.match(await judge(readFileSync(signature), await home.export(fingerprint)), /text mode/);
  assert.is(await gpgSays(signature), 0);
});

gpgTest("changed bytes are refused here and there", async () => {
  const fingerprint = await home.key("changed");
  const signature = await home.sign(file, fingerprint);
  const bytes = Buffer.from("an archive's bytez\n");
  const verdict = await judge(readFileSync(signature), await home.export(fingerprint), { bytes });
  assert.match(verdict, /not those that were signed/);
  const other = join(folder, "changed");
  writeFileSync(other, bytes);
  const { code } = await home.gpg(["--verify", signature, other], { check: false });
  assert.is(code, 1);
});

gpgTest("a signing subkey is good, and is refused once it is revoked, also for older signatures", async () => {
  const fingerprint = await home.key("with subkey", { usage: "cert" });
  await home.gpg(["--passphrase", "", "--quick-add-key", fingerprint, "ed25519", "sign", "never"]);
  const signature = readFileSync(await home.sign(file, fingerprint));
  const before = await home.export(fingerprint);
  assert.is(await judge(signature, before), "good");
  await revokeSubkey(fingerprint);
  assert.match(await judge(signature, await home.export(fingerprint)), /revoked/i);
  assert.is(await gpgSays(`${file}.sig`), 0);
  // a revocation that was once seen is not forgotten for a copy of the key without it
  const [revoked] = await readPublicKeys(await home.export(fingerprint), "key");
  const [older] = await readPublicKeys(before, "key");
  const merged = await mergeKeys(revoked!, older!);
  assert.match(await judge(signature, Buffer.from(merged.armor())), /revoked/i);
});

gpgTest("what others add to a copy of a key neither spoils it nor stays in it", async () => {
  const at = "20250101T000000";
  const fingerprint = await home.key("Spoilt", { usage: "cert", at });
  const add = ["--quick-add-key", fingerprint, "ed25519", "sign", "never"];
  await home.gpg(["--passphrase", "", ...add], { at });
  const signature = readFileSync(await home.sign(file, fingerprint));
  const exported = await home.export(fingerprint);
  const [key] = await readPublicKeys(exported, "key");
  const { PacketList, PublicKey, readKey, UserIDPacket } = await import("openpgp");
  // the subkey's binding, made newer than it is: the package prefers it to the true one without a look at it
  const list = new PacketList<never>();
  const copy = await readKey({ armoredKey: exported.toString() });
  for (const packet of copy.toPacketList()) list.push(packet as never);
  const bytes = Buffer.from(list.write());
  const binding = copy.subkeys[0]!.bindingSignatures[0]!;
  const start = bytes.indexOf(Buffer.from((binding as unknown as { write(): Uint8Array }).write()));
  assert.ok(start > 0);
  const seconds = Math.floor(binding.created!.getTime() / 1000);
  const time = Buffer.alloc(4);
  time.writeUInt32BE(seconds);
  bytes.writeUInt32BE(seconds + 60, bytes.indexOf(time, start));
  const forged = await readKey({ binaryKey: new Uint8Array(bytes) });
  // and a name that nobody certified
  const named = forged.toPacketList();
  named.push(UserIDPacket.fromObject({ name: "x".repeat(5000) }) as never);
  const spoilt = new PublicKey(named as never);
  assert.is(spoilt.getFingerprint().toUpperCase(), fingerprint);
  const merged = await mergeKeys(key!, spoilt);
  const armored = Buffer.from(merged.armor());
  assert.is(await judge(signature, armored), "good");
  assert.ok(armored.length < 2000, String(armored.length));
});

async function revokeSubkey(fingerprint: string): Promise<void> {
  const input = "key 1\nrevkey\ny\n0\n\ny\nsave\n";
  const { runCommand } = await import("../../helpers/run.ts");
  const argv = ["gpg", "--homedir", home.path, "--no-tty", "--command-fd", "0", "--passphrase", ""];
  await runCommand([...argv, "--pinentry-mode", "loopback", "--edit-key", fingerprint], {
    input,
    expect: 0,
  });
}

gpgTest("an expired key is refused, also for a signature from before, which gpg takes", async () => {
  const at = "20250101T000000";
  const fingerprint = await home.key("expired", { expires: "30d", at });
  const signature = await home.sign(file, fingerprint, { at: "20250102T000000" });
  const key = await home.export(fingerprint);
  assert.match(await judge(readFileSync(signature), key), /is not valid now.*expired/i);
  assert.is(await gpgSays(signature), 0);
  const then = new Date("2025-01-03T00:00:00Z");
  assert.is(await judge(readFileSync(signature), key, { now: then }), "good");
});

gpgTest("a key that was expired and then prolonged is good again", async () => {
  const fingerprint = await home.key("prolonged", { expires: "30d", at: "20250101T000000" });
  const signature = await home.sign(file, fingerprint, { at: "20250102T000000" });
  await home.gpg(["--passphrase", "", "--quick-set-expire", fingerprint, "never"]);
  assert.is(await judge(readFileSync(signature), await home.export(fingerprint)), "good");
});

gpgTest("a revoked key is refused, which gpg takes", async () => {
  const fingerprint = await home.key("revoked");
  const signature = readFileSync(await home.sign(file, fingerprint));
  const path = join(home.path, "openpgp-revocs.d", `${fingerprint}.rev`);
  const text = readFileSync(path, "utf8").replace(/^:(?=-----BEGIN)/m, "");
  writeFileSync(path, text);
  await home.gpg(["--import", path]);
  assert.match(await judge(signature, await home.export(fingerprint)), /revoked/i);
  assert.is(await gpgSays(`${file}.sig`), 0);
});

gpgTest("a signature from the future is refused, five minutes of another clock are not", async () => {
  const fingerprint = await home.key("future", { at: "20250101T000000" });
  const key = await home.export(fingerprint);
  const signature = readFileSync(await home.sign(file, fingerprint, { at: "20250601T120000" }));
  const at = (time: string) => judge(signature, key, { now: new Date(time) });
  assert.match(await at("2025-06-01T11:54:00Z"), /from the future/);
  assert.is(await at("2025-06-01T11:56:00Z"), "good");
  assert.is(await gpgSays(`${file}.sig`, "20250601T110000"), 0);
});

gpgTest("a signature past its own end is refused", async () => {
  const fingerprint = await home.key("short-lived", { at: "20250101T000000" });
  const args = ["--default-sig-expire", "1d"];
  const signature = await home.sign(file, fingerprint, { args, at: "20250102T000000" });
  assert.match(await judge(readFileSync(signature), await home.export(fingerprint)), /Signature is expired/);
  assert.is(await gpgSays(signature), 1);
});

gpgTest("of two signatures in one file, one by an unknown key, the pinned one counts", async () => {
  const old = await home.key("old key");
  const next = await home.key("next key");
  const one = readFileSync(await home.sign(file, old, { output: `${file}.1` }));
  const two = readFileSync(await home.sign(file, next, { output: `${file}.2` }));
  for (const both of [Buffer.concat([one, two]), Buffer.concat([two, one])]) {
    assert.is(await judge(both, await home.export(old)), "good");
    assert.is(await judge(both, await home.export(next)), "good");
  }
  // for gpg one of the two has no key in a ring that holds only the other
  writeFileSync(`${file}.both`, Buffer.concat([one, two]));
  const ring = await gpgHome();
  writeFileSync(`${file}.key`, await home.export(next));
  await ring.gpg(["--import", `${file}.key`]);
  const { code } = await ring.gpg(["--verify", `${file}.both`, file], { check: false });
  await ring.close();
  assert.is(code, 2);
});

gpgTest("more than 16 signatures in one file are refused", async () => {
  const fingerprint = await home.key("many");
  const signature = readFileSync(await home.sign(file, fingerprint));
  const key = await home.export(fingerprint);
  assert.is(await judge(Buffer.concat(Array(16).fill(signature)), key), "good");
  const many = Buffer.concat(Array(17).fill(signature));
  assert.match(await judge(many, key), /17 signatures/);
  writeFileSync(`${file}.many`, many);
  assert.is(await gpgSays(`${file}.many`), 0);
});

gpgTest("the right key in the ring, but not the pinned one, is refused, which gpg takes", async () => {
  const pinned = await home.key("pinned");
  const other = await home.key("other");
  const signature = await home.sign(file, other);
  const ring = await home.export(pinned, other);
  assert.match(await judge(readFileSync(signature), ring, { pin: pinned }), `not by ${pinned}`);
  assert.is(await gpgSays(signature), 0);
});

gpgTest("a forged issuer is refused: another key's signature that names the pinned one", async () => {
  const pinned = await home.key("forged pinned");
  const other = await home.key("forger");
  const signature = readFileSync(await home.sign(file, other));
  const forged = Buffer.from(
    signature
      .toString("hex")
      .replaceAll(other.toLowerCase(), pinned.toLowerCase())
      .replaceAll(other.slice(-16).toLowerCase(), pinned.slice(-16).toLowerCase()),
    "hex",
  );
  assert.not.equal(forged, signature);
  assert.match(await judge(forged, await home.export(pinned)), /not those that were signed/);
  writeFileSync(`${file}.forged`, forged);
  assert.is(await gpgSays(`${file}.forged`), 1);
});

gpgTest("a signature from before its key was made is refused", async () => {
  const fingerprint = await home.key("young", { at: "20250601T000000" });
  const args = ["--ignore-time-conflict"];
  const signature = await home.sign(file, fingerprint, { args, at: "20250501T000000" });
  assert.match(await judge(readFileSync(signature), await home.export(fingerprint)), /was not valid when it was made/);
  assert.is(await gpgSays(signature), 2);
});

gpgTest("a key that may not sign is refused", async () => {
  const fingerprint = await home.key("signs once");
  const signature = readFileSync(await home.sign(file, fingerprint));
  const certifier = await home.key("certifies only", { usage: "cert" });
  assert.match(await judge(signature, await home.export(certifier)), /not by/);
});

gpgTest("what is no signature, or no key, is refused by name", async () => {
  const fingerprint = await home.key("rubbish");
  const key = await home.export(fingerprint);
  for (const rubbish of ["", "<html>", "-----BEGIN PGP SIGNATURE-----\n\nAAAA\n", "\x88\x75\x04"])
    assert.match(await judge(Buffer.from(rubbish), key), /sig (?:is not an|holds no) OpenPGP signature/);
  assert.match(await judge(key, key), /(?:not an|no) OpenPGP signature/);
  writeFileSync(`${file}.rubbish`, "<html>");
  assert.is(await gpgSays(`${file}.rubbish`), 2);
  assert.match(await judge(Buffer.from(""), Buffer.from("hello")), /key (?:is not an|holds no) OpenPGP key/);
});

gpgTest("gpg takes our signatures and our keys", async () => {
  const { privateKey, fingerprint } = await generateSigningKey({
    name: "ours",
    passphrase: "secret",
  });
  const key = await openPrivateKey(Buffer.from(privateKey), "key", async () => "secret");
  writeFileSync(`${file}.asc`, key.toPublic().armor());
  await home.gpg(["--import", `${file}.asc`]);
  async function* pieces() {
    yield data.subarray(0, 5);
    yield data.subarray(5);
  }
  for (const [index, what] of [data, pieces].entries()) {
    const path = `${file}.ours${index}`;
    writeFileSync(path, await signDetached(key, what, { "file@boatyard": "a.tar.gz" }));
    const { stdout, stderr } = await home.gpg(["--status-fd", "1", "--verify", path, file]);
    assert.match(stdout, `VALIDSIG ${fingerprint}`);
    assert.match(stdout, "NOTATION_DATA a.tar.gz");
    assert.match(stderr, "Good signature");
  }
});

test("a wrong passphrase is said, and none is asked for when the key has none", async () => {
  const { privateKey } = await generateSigningKey({ name: "locked", passphrase: "right" });
  try {
    await openPrivateKey(Buffer.from(privateKey), "my.asc", async () => "wrong");
    assert.unreachable();
  } catch (error) {
    assert.is((error as Error).message, "the passphrase for my.asc is wrong");
  }
});

test("fingerprints are read as people write them, short ids are none", () => {
  const full = "977CAB3DF5ACA3FA391CB44772CA03E1DA708BEA";
  for (const text of [full, full.toLowerCase(), `0x${full}`, "977C AB3D F5AC A3FA 391C  B447 72CA 03E1 DA70 8BEA"])
    assert.is(normalFingerprint(text), full);
  for (const text of ["DA708BEA", "72CA03E1DA708BEA", "", "xyz", `${full}00`])
    assert.is(normalFingerprint(text), undefined);
});

test.run();
