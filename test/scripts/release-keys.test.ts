// Keys that change, from the publisher's side: release keys, several keys that sign, real keys by keygen and gpg, and
// launchfit as the judge.
import { cpSync, mkdirSync } from "node:fs";
import { readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Signatures } from "../../lib/openpgp/verify.ts";
import { openSigner } from "../../lib/release/signer.ts";
import { gpgTests } from "../helpers/gpg.ts";
import { releaseYard } from "../helpers/publisher.ts";
import { runCommand, type RunOptions, runScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { changingCalls, injected, needsStrace } from "../helpers/strace.ts";
import { installedVersion, keepCopy } from "../helpers/web-folder.ts";

const { gpgTest, home } = gpgTests();

/** A web folder with version 1 by the key `a`, and keys beside it. */
async function publisher() {
  const { dir, web, release, makeKey: make, publish: packed } = releaseYard(home.path);
  const publish = (version: string, ...keys: string[]) => packed(version, { "version.txt": version }, keys);
  const a = await make("a");
  await publish("1", "a");
  const deploy = join(dir, "deploy");
  mkdirSync(deploy);
  const argv = [`file://${web}`, "--dir", deploy];
  const install = (more: string[] = [], options: RunOptions = { expect: 0 }) =>
    runScript("launchfit", [...argv, ...more], options);
  return { dir, web, a, make, publish, release, deploy, install, argv };
}

test("a key is added, the old one retired, and clients follow; what was retired signs nothing more", async () => {
  const { web, a, make, publish, release, install, deploy } = await publisher();
  await install(["--key", a]);
  const b = await make("b");
  const several = ["refresh", "--key", "a.asc", "--key", "b.asc"];
  assert.match((await release(several, { expect: 2 })).stderr, "release keys add b.asc --key a.asc");
  const { stdout } = await release(["keys", "add", "b.asc", "--key", "a.asc"]);
  assert.is(stdout, `KEYS 1: ${a}, ${b}\n`);
  const version = await readFile(join(web, "VERSION"), "utf8");
  assert.match(version, `\nKEYS 1\nKEY ${a}\nKEY ${b}\n`);
  assert.is(await readFile(join(web, "keys/1"), "utf8"), version);
  await publish("2", "b");
  assert.match((await install()).stderr, `KEYS 1: releases must be signed by ${a} or ${b}`);
  assert.is(await installedVersion(deploy), "2");
  await release(several);
  // the archive of a release that only A signed is signed by B, too, before A goes
  await publish("3", "a");
  await release(["refresh", "--key", "b.asc"]);
  const sig = await readFile(join(web, "my-app-3.tar.gz.sig"));
  assert.is((await Signatures.read(sig, "sig")).packets.length, 2, "A's stays");
  await release(["keys", "retire", a, "--key", "b.asc"]);
  await install();
  assert.is(await installedVersion(deploy), "3");
  assert.match((await release(["refresh", "--key", "a.asc"], { expect: 4 })).stderr, "was retired");
  const back = await release(["keys", "add", "a.asc", "--key", "b.asc"], { expect: 2 });
  assert.match(back.stderr, "never comes back");
  const last = await release(["keys", "retire", b, "--key", "b.asc"], { expect: 2 });
  assert.match(last.stderr, "leaves no KEY");
  const listed = await release(["keys", "list"]);
  assert.match(listed.stdout, new RegExp(`^KEY +${b} +b +never`, "m"));
  assert.match(listed.stdout, new RegExp(`^retired +${a} +a `, "m"));
  await release(["refresh", "--key", "b.asc"]);
  await install();
});

test("one who was away since before the first change follows all of them", async () => {
  const { a, make, publish, release, install, deploy, dir } = await publisher();
  await install(["--key", a]);
  for (const [old, next] of ["ab", "bc", "cd"]) {
    const fingerprint = await make(next!);
    await release(["keys", "add", `${next}.asc`, "--key", `${old}.asc`]);
    const gone = await openSigner({ key: join(dir, `${old}.asc`) });
    await release(["keys", "retire", gone.fingerprint, "--key", `${next}.asc`]);
    assert.not.equal(fingerprint, gone.fingerprint);
  }
  await publish("2", "d");
  assert.is((await install()).stderr.match(/KEYS \d: releases/g)?.length, 6);
  assert.is(await installedVersion(deploy), "2");
});

test("a ROOT alone changes the keys, signs no release, and replaces a key that is lost", async () => {
  const { a, make, publish, release, install, deploy } = await publisher();
  await install(["--key", a]);
  const root = await make("root");
  await release(["keys", "add", "root.asc", "--root", "--key", "a.asc"]);
  await make("b");
  const alone = await release(["keys", "add", "b.asc", "--key", "a.asc"], { expect: 2 });
  assert.match(alone.stderr, /none of the keys trusted before has signed it.*; name the keys/);
  const signs = await release(["refresh", "--key", "root.asc"], { expect: 4 });
  assert.match(signs.stderr, "is a ROOT, which signs changes of the keys and no releases");
  // A is lost: R and the new key are enough
  await release(["keys", "add", "b.asc", "--key", "root.asc"]);
  await release(["keys", "retire", a, "--key", "root.asc", "--key", "b.asc"]);
  const last = ["keys", "retire", root, "--key", "root.asc", "--key", "b.asc"];
  assert.match((await release(last, { expect: 2 })).stderr, "last ROOT");
  await publish("2", "b");
  await install();
  assert.is(await installedVersion(deploy), "2");
});

gpgTest("gpg's keys hand over to each other, and gpg verifies both signatures", async () => {
  const [one, two] = [await home.key("One"), await home.key("Two", { algorithm: "rsa3072" })];
  const { dir, web, release, deploy } = await publisher();
  await rm(web, { recursive: true });
  const from = ["--app", "my-app", "--version", "1", "--from", "build-1"];
  await release(["pack", ...from, "--key", `gpg:${one}`]);
  await release(["keys", "add", `gpg:${two}`, "--key", `gpg:${one}`]);
  const status = await home.gpg(["--status-fd", "1", "--verify", join(web, "VERSION.sig"), join(web, "VERSION")]);
  for (const key of [one, two]) assert.match(status.stdout, `VALIDSIG ${key}`);
  await release(["keys", "retire", one, "--key", `gpg:${two}`]);
  const argv = [`file://${web}`, "--dir", deploy, "--key", one];
  const { stderr } = await runScript("launchfit", argv, { expect: 0 });
  assert.match(stderr, `KEYS 2: releases must be signed by ${two}`);
  const verified = await runScript("release", ["verify", web], { cwd: dir, expect: 0 });
  assert.match(verified.stdout, `by ${two}`);
});

testUnless(test, needsStrace)(
  "killed at any instant of a change, the old VERSION stands or the new one, and the same command completes it",
  async () => {
    const { dir, web, a, make, release, install, argv: launch } = await publisher();
    await install(["--key", a]);
    const b = await make("b");
    const before = await keepCopy(web);
    const add = ["keys", "add", "b.asc", "--key", "a.asc"];
    // one thread, since calls are counted by thread; tsx's cache has renames of its own
    const env = { UV_THREADPOOL_SIZE: "1", TSX_DISABLE_CACHE: "1", NODE_COMPILE_CACHE: undefined };
    // the renames of KEY.asc, the archive's signature, keys/1.sig, keys/1, VERSION.sig and VERSION
    for (const n of [2, 4, 6]) {
      await rm(web, { recursive: true });
      cpSync(before, web, { recursive: true });
      const fault = `signal=KILL:when=${n}`;
      const argv = injected("release", add, changingCalls.rename, fault);
      const { code } = await runCommand(argv, { cwd: dir, env });
      if (n === 2) assert.not.equal(code, 0);
      if (code !== 0) assert.not.match(await readFile(join(web, "VERSION"), "utf8"), "KEYS");
      // with the new VERSION.sig beside the old VERSION a folder is not uploaded: release has failed
      if (n < 6) await install();
    }
    // what was broken off may be uploaded already: another change does not take its place
    for (const name of ["VERSION", "VERSION.sig"]) cpSync(join(before, name), join(web, name));
    await make("c");
    const other = await release(["keys", "add", "c.asc", "--key", "a.asc"], { expect: 4 });
    assert.match(other.stderr, `keys/1 is there, of a change that was broken off (${a}, ${b})`);
    await release(["keys", "add", "b.asc", "--key", "a.asc"]);
    assert.equal((await readdir(join(web, "keys"))).sort(), ["1", "1.sig"]);
    await install();
    // killed between VERSION.sig, which A signed alone, and VERSION: either key goes on
    const argv = ["refresh", "--key", "a.asc"];
    const killed = injected("release", argv, changingCalls.rename, "signal=KILL:when=2");
    const { code } = await runCommand(killed, { cwd: dir, env });
    if (code !== 0) await runScript("launchfit", launch, { expect: 4 });
    await release(["refresh", "--key", "b.asc"]);
    await install();
  },
);

test("mistakes are usage errors, and change nothing", async () => {
  const { web, a, make, release } = await publisher();
  await make("b");
  const before = await readFile(join(web, "VERSION"));
  const wrong = async (args: string[], reason: string, code = 2) => {
    const { stderr } = await release(["keys", ...args], { expect: code });
    assert.match(stderr, reason);
  };
  await wrong(["remove"], "one of list, add, retire");
  assert.match((await runScript("release", ["keys", "list", web], { expect: 0 })).stdout, a);
  const { stderr } = await runScript("release", ["keys", "list", `${web}-not`], { expect: 2 });
  assert.match(stderr, "app-updates-not is not there; name the web folder");
  await wrong(["add", "--key", "a.asc"], "which key?");
  await wrong(["add", "a.asc", "--key", "a.asc"], "the same");
  await wrong(["add", "c.asc", "--key", "a.asc"], "c.asc is not there");
  await wrong(["add", "a.asc", "--key", "b.asc"], "not by", 4);
  await wrong(["retire", "1234", "--key", "a.asc"], "not a fingerprint");
  await wrong(["retire", "0".repeat(40), "--key", "a.asc"], "not one of the keys");
  await wrong(["retire", a, "--key", "a.asc"], "leaves no KEY");
  assert.ok(before.equals(await readFile(join(web, "VERSION"))));
  assert.equal((await readdir(web)).sort().at(-1), "my-app-1.tar.gz.sig");
});

test.run();
