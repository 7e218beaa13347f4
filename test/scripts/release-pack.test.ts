// The web folder as its publisher makes it; gpg and launchfit are the judges.
import { createHash } from "node:crypto";
import { chmodSync, existsSync, linkSync, mkdirSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { list, withdraw } from "../../lib/release/current.ts";
import { openSigner } from "../../lib/release/signer.ts";
import { gpgTests } from "../helpers/gpg.ts";
import { makePublisher, releaseYard } from "../helpers/publisher.ts";
import { runCommand, type RunOptions, runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";
import { nextSecond, waitFor } from "../helpers/wait.ts";

const { gpgTest, home } = gpgTests();

/** A checkout with a build folder, and a key. */
async function yard() {
  const { dir, web: out, release, makeKey } = releaseYard(home.path);
  mkdirSync(join(dir, "build", "bin"), { recursive: true });
  writeFileSync(join(dir, "build", "index.html"), "<h1>hi</h1>");
  writeFileSync(join(dir, "build", "bin", "run.sh"), "#!/bin/sh\n", { mode: 0o755 });
  symlinkSync("bin/run.sh", join(dir, "build", "run"));
  const fingerprint = await makeKey("Yard", join(dir, ".config", "boatyard", "release.asc"));
  const pack = (version: string, args: string[] = [], options: RunOptions = {}) =>
    release(["pack", "--app", "my-app", "--version", version, ...args], options);
  return { dir, out, fingerprint, release, pack };
}

const sha256 = async (path: string) =>
  createHash("sha256")
    .update(await readFile(path))
    .digest("hex");

gpgTest("a pack is an archive, signatures that gpg verifies, KEY.asc and VERSION", async () => {
  const { out, pack, release, fingerprint, dir } = await yard();
  const { stdout } = await release(["keygen", "--out", "another.asc"]);
  assert.match(stdout, /^[0-9A-F]{40}\n$/);
  assert.is((await stat(join(dir, "another.asc"))).mode & 0o777, 0o600);
  await pack("1.23.42b", ["--platform", "gnu-linux", "--name", "icecream-soda-popsticle"]);
  const file = "my-app-gnu-linux-1.23.42b.tar.gz";
  assert.equal((await readdir(out)).sort(), [
    "KEY.asc",
    "VERSION",
    "VERSION.sig",
    file,
    `${file}.index`,
    `${file}.sig`,
  ]);
  const version = await readFile(join(out, "VERSION"), "utf8");
  const { size } = await stat(join(out, file));
  for (const line of [
    `CURRENT 1.23.42b ${file}`,
    "PLATFORM gnu-linux",
    `SHA256 ${await sha256(join(out, file))}`,
    `SIZE ${size}`,
    "RELEASE icecream-soda-popsticle",
    "APP my-app",
  ])
    assert.match(version, `${line}\n`);
  await home.gpg(["--import", join(out, "KEY.asc")]);
  for (const signed of ["VERSION", file]) {
    const { stdout } = await home.gpg(["--status-fd", "1", "--verify", join(out, `${signed}.sig`), join(out, signed)]);
    assert.match(stdout, `VALIDSIG ${fingerprint}`);
  }
});

test("packing twice gives the same bytes, whatever the times, umask and order of files", async () => {
  const { dir, out, pack } = await yard();
  await pack("1");
  const first = await sha256(join(out, "my-app-1.tar.gz"));
  const signature = await sha256(join(out, "my-app-1.tar.gz.sig"));
  utimesSync(join(dir, "build", "index.html"), 1e9, 1e9);
  chmodSync(join(dir, "build", "index.html"), 0o600);
  const { stdout } = await pack("1");
  assert.match(stdout, "is there already");
  assert.is(await sha256(join(out, "my-app-1.tar.gz.sig")), signature);
  await pack("1", ["--out", join(dir, "second")]);
  assert.is(await sha256(join(dir, "second", "my-app-1.tar.gz")), first);
});

test("a version that is there with other bytes is refused, and nothing changes", async () => {
  const { dir, out, pack } = await yard();
  await pack("1");
  const before = await sha256(join(out, "VERSION"));
  writeFileSync(join(dir, "build", "index.html"), "changed");
  const { stderr } = await pack("1", [], { expect: 4 });
  assert.match(stderr, "is there with other bytes");
  assert.is(await sha256(join(out, "VERSION")), before);
  assert.is((await readdir(out)).length, 6);
});

test("tar unpacks the same tree, modes and links; what .releaseignore names is left out", async () => {
  const { dir, out, pack } = await yard();
  const build = join(dir, "build");
  const long = join(build, "n".repeat(120), "m".repeat(120));
  mkdirSync(long, { recursive: true });
  writeFileSync(join(long, "ünïcode file"), "x");
  linkSync(join(build, "index.html"), join(build, "second.html"));
  mkdirSync(join(build, "empty"));
  mkdirSync(join(build, "cache/deep"), { recursive: true });
  writeFileSync(join(build, "cache/deep/big.tmp"), "x");
  writeFileSync(join(build, "notes.md"), "x");
  writeFileSync(join(build, ".releaseignore"), "# what users need not have\ncache/\n*.md\n!keep.md\n");
  writeFileSync(join(build, "keep.md"), "x");
  await pack("1");
  const into = tempDir();
  await runCommand(["tar", "xzf", join(out, "my-app-1.tar.gz"), "-C", into], { expect: 0 });
  await rm(join(into, "launchify.yml"));
  for (const name of ["cache", "notes.md", ".releaseignore"]) await rm(join(build, name), { recursive: true });
  await runCommand(["diff", "-r", "--no-dereference", build, into], { expect: 0 });
  assert.is((await stat(join(into, "bin/run.sh"))).mode & 0o777, 0o755);
  assert.is((await stat(join(into, "index.html"))).ino, (await stat(join(into, "second.html"))).ino);
});

test("what no client would unpack is refused before anything is written", async () => {
  for (const [make, reason] of [
    [(build: string) => symlinkSync("/etc/passwd", join(build, "l")), /link to an absolute path/],
    [(build: string) => symlinkSync("../../x", join(build, "bin/l")), /leads out/],
    [
      (build: string) => (writeFileSync(join(build, "a"), ""), writeFileSync(join(build, "A"), "")),
      /differ only in case/,
    ],
  ] as const) {
    const { dir, out, pack } = await yard();
    make(join(dir, "build"));
    const { stderr } = await pack("1", [], { expect: 2 });
    assert.match(stderr, reason);
    assert.not(existsSync(out));
  }
});

test("several platforms stand in one folder, and each keeps its line", async () => {
  const { out, pack, release } = await yard();
  await pack("1", ["--platform", "gnu-linux"]);
  await pack("1", ["--platform", "darwin"]);
  await pack("2", ["--platform", "darwin"]);
  const version = await readFile(join(out, "VERSION"), "utf8");
  assert.match(version, "CURRENT 1 my-app-gnu-linux-1.tar.gz");
  assert.match(version, "CURRENT 2 my-app-darwin-2.tar.gz");
  assert.is(version.match(/^CURRENT/gm)?.length, 2);
  const { stdout } = await release(["list", "--json"]);
  const archives = JSON.parse(stdout) as { file: string; current: boolean }[];
  assert.equal(
    archives
      .filter(({ current }) => current)
      .map(({ file }) => file)
      .sort(),
    ["my-app-darwin-2.tar.gz", "my-app-gnu-linux-1.tar.gz"],
  );
  assert.is(archives.length, 3);
});

test("list takes the folder as a word, with its dates; --quiet prints the archive's path alone", async () => {
  const { out, dir, pack, release } = await yard();
  const { stdout } = await pack("1", ["--quiet"]);
  assert.is(stdout, "upload/app-updates/my-app-1.tar.gz\n");
  assert.is((await release(["refresh", "--quiet"])).stdout, "");
  mkdirSync(join(dir, "elsewhere"));
  const cwd = join(dir, "elsewhere");
  const listed = await release(["list", "../upload/app-updates"], { cwd });
  const time = "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ";
  assert.match(listed.stdout, new RegExp(`^current +1 +any +.* +${time} +my-app-1\\.tar\\.gz$`, "m"));
  assert.match(listed.stderr, new RegExp(`VERSION is of ${time}, good until ${time}`));
  const none = await release(["list", "../nowhere"], { cwd, expect: 2 });
  assert.match(none.stderr, "nowhere is not there");
  assert.is((await readdir(out)).length, 6);
});

test("withdraw goes back, refresh signs again, and a client follows both", async () => {
  const { dir, out, pack, release, fingerprint } = await yard();
  await pack("1");
  writeFileSync(join(dir, "build", "index.html"), "two");
  await pack("2");
  const deploy = tempDir("deploy-");
  const install = () => runScript("launchfit", [`file://${out}`, "--dir", deploy, "--key", fingerprint], { expect: 0 });
  await install();
  assert.is(await readFile(join(deploy, "current/index.html"), "utf8"), "two");
  await release(["withdraw", "2"]);
  await install();
  assert.is(await readFile(join(deploy, "current/index.html"), "utf8"), "<h1>hi</h1>");
  assert.match((await release(["withdraw", "2"], { expect: 2 })).stderr, "current is 1");
  const before = await readFile(join(out, "VERSION"), "utf8");
  await release(["refresh", "--expires", "1h"]);
  const after = await readFile(join(out, "VERSION"), "utf8");
  const field = (text: string, word: string) => new RegExp(`^${word} (.*)$`, "m").exec(text)?.[1] ?? "";
  assert.ok(field(after, "DATE") > field(before, "DATE"));
  assert.is(Date.parse(field(after, "EXPIRES")) - Date.parse(field(after, "DATE")), 3_600_000);
  await install();
});

test("of archives signed within one second the one packed last is the newest", async () => {
  const own = await makePublisher();
  const packed = ["1", "7", "3", "6", "2", "5", "4"];
  await nextSecond();
  for (const version of packed) await own.publish(version, { "data.txt": version });
  const listed = (await list(own.folder)).map(({ version }) => version);
  assert.equal(listed, packed.toReversed());
  const signer = await openSigner({ key: own.key });
  for (let at = packed.length - 1; at > 0; at--) {
    const { current } = await withdraw(own.folder, packed[at] ?? "", [signer]);
    assert.is(current[0]?.version, packed[at - 1]);
  }
  await own.close();
});

test("verify says what a client would: good, changed, expired, another key", async () => {
  const { out, pack, release, fingerprint } = await yard();
  await pack("1");
  const { stdout } = await release(["verify", out, "--key", fingerprint]);
  assert.match(stdout, "my-app-1.tar.gz: good");
  await release(["verify", out, "--key", "0".repeat(40)], { expect: 4 });
  await release(["refresh", "--expires", "1ms"]);
  // times in VERSION are whole seconds: the last of them may not be over yet
  const late = await waitFor(async () => {
    const answer = await runScript("release", ["verify", out]);
    return answer.code === 0 ? undefined : answer;
  });
  assert.is(late.code, 4);
  assert.match(late.stderr, "expired");
  await release(["refresh", "--expires", "1h"]);
  await writeFile(join(out, "my-app-1.tar.gz"), "other");
  await release(["verify", out], { expect: 4 });
});

test("--keep leaves that many older archives", async () => {
  const { dir, out, pack } = await yard();
  for (const version of ["1", "2", "3"]) {
    writeFileSync(join(dir, "build", "index.html"), version);
    await pack(version, ["--keep", "1"]);
  }
  const archives = (await readdir(out)).filter((name) => name.endsWith(".tar.gz"));
  assert.is(archives.length, 2);
  assert.ok(archives.includes("my-app-3.tar.gz"));
});

test("what npm pack lists is packed where package.json has files: patterns, README, what prepack makes", async () => {
  const { dir, out, pack } = await yard();
  const named = { name: "a", version: "1.0.0", scripts: { prepack: "mkdir -p late && echo made | tee late/made.txt" } };
  writeFileSync(join(dir, "package.json"), JSON.stringify({ ...named, files: ["build/bin/*.sh", "late/"] }));
  writeFileSync(join(dir, "README.md"), "x");
  writeFileSync(join(dir, "secret.txt"), "x");
  await pack("1");
  const { stdout } = await runCommand(["tar", "tzf", join(out, "my-app-1.tar.gz")], { expect: 0 });
  assert.equal(stdout.trim().split("\n"), [
    "README.md",
    "build/",
    "build/bin/",
    "build/bin/run.sh",
    "late/",
    "late/made.txt",
    "launchify.yml",
    "package.json",
  ]);
});

test("a key that others can read, and another key's folder, are refused", async () => {
  const { dir, pack, release } = await yard();
  await pack("1");
  await release(["keygen", "--out", "other.asc"]);
  assert.match((await pack("2", ["--key", "other.asc"], { expect: 4 })).stderr, /not by|another key/);
  chmodSync(join(dir, "other.asc"), 0o644);
  assert.match((await pack("2", ["--key", "other.asc"], { expect: 2 })).stderr, "chmod 600");
  assert.match((await release(["keygen", "--out", "other.asc"], { expect: 2 })).stderr, "never overwritten");
});

test("a key with a passphrase is opened from a file, and the passphrase is never shown", async () => {
  const { dir, pack, release } = await yard();
  writeFileSync(join(dir, "pass"), "correct horse\n", { mode: 0o600 });
  writeFileSync(join(dir, "wrong"), "battery staple\n", { mode: 0o600 });
  await release(["keygen", "--out", "locked.asc", "--passphrase-file", "pass"]);
  await pack("1", ["--key", "locked.asc", "--passphrase-file", "pass"]);
  const { stderr } = await pack("2", ["--key", "locked.asc", "--passphrase-file", "wrong"], {
    expect: 2,
  });
  assert.match(stderr, "the passphrase for locked.asc is wrong");
  assert.not.match(stderr, "staple");
  assert.match((await pack("2", ["--key", "locked.asc"], { expect: 2 })).stderr, "--passphrase-file");
});

gpgTest("gpg's own key signs, and launchfit takes it by its fingerprint", async () => {
  const { out, pack } = await yard();
  const fingerprint = await home.key("Publisher <p@example.com>", { algorithm: "rsa3072" });
  await pack("1", ["--key", `gpg:${fingerprint}`]);
  const deploy = tempDir("deploy-");
  await runScript("launchfit", [`file://${out}`, "--dir", deploy, "--key", fingerprint], {
    expect: 0,
  });
  assert.match((await pack("2", ["--key", "gpg:ABCD"], { expect: 2 })).stderr, "whole fingerprint");
});

test("what was not built is not published: an empty folder, and what package.json names and is not there", async () => {
  const { dir, release } = await yard();
  const words = ["pack", "--app", "my-app", "--version", "1", "--out", join(dir, "web")];
  const refused = async (cwd: string, told: RegExp) => {
    assert.match((await release(words, { cwd, expect: 2 })).stderr, told);
    assert.not.ok((await readdir(dir)).includes("web"));
  };
  const empty = join(dir, "empty");
  mkdirSync(join(empty, "build/assets"), { recursive: true });
  await refused(empty, /empty\/build holds no file; build it first/);
  const named = join(dir, "named");
  mkdirSync(named);
  writeFileSync(join(named, "index.js"), "");
  const files = ["index.js", "dist/"];
  writeFileSync(join(named, "package.json"), JSON.stringify({ name: "a", version: "1.0.0", files }));
  await refused(named, /named\/dist, which package.json names in files, is not there/);
  writeFileSync(join(named, "package.json"), JSON.stringify({ files }));
  await refused(named, /npm does not tell which files package.json names: .*must have name and version.*--from/);
});

test("a private key that signs is never packed, whatever leads to it", async () => {
  const { dir, out, pack, release } = await yard();
  await release(["keygen", "--out", "build/own.asc"]);
  linkSync(join(dir, "build/own.asc"), join(dir, "second.asc"));
  symlinkSync("second.asc", join(dir, "link.asc"));
  for (const key of ["build/own.asc", "second.asc", "link.asc"]) {
    const { stderr } = await pack("1", ["--key", key], { expect: 2 });
    assert.match(stderr, /build\/own\.asc is the private key that signs, .*\.releaseignore/);
    assert.not.ok(existsSync(out));
  }
  writeFileSync(join(dir, "build/.releaseignore"), "*.asc\n");
  await pack("1", ["--key", "link.asc"]);
});

test("a pattern of .releaseignore that cannot be understood is named with its line", async () => {
  const { dir, out, pack } = await yard();
  writeFileSync(join(dir, "build/.releaseignore"), "# a comment\n\n[z-a].js\n");
  const { stderr } = await pack("1", [], { expect: 2 });
  assert.match(stderr, /^release: \S+build\/\.releaseignore:3: "\[z-a\]\.js" is not a pattern; /);
  assert.not.ok(existsSync(out));
});

test("what is typed wrong is told with what to type, and nothing is made", async () => {
  const { dir, release } = await yard();
  const before = await readdir(dir);
  const pack = (...more: string[]) => ["pack", "--app", "my-app", "--version", "1", ...more];
  const cases: [string[], string][] = [
    [["pakc"], 'name its tag with --tag (did you mean "pack"?)'],
    [["pack", "--app", "my-app", "--version", "v1"], "dotted hexadecimal"],
    [["pack", "--app", "../x", "--version", "1"], '--app "../x": a name is'],
    [["pack", "--version", "1"], "give --app and --version"],
    [pack("--platform", "a b"), '--platform "a b": one of gnu-linux,'],
    [pack("--platform", "linux-gnu"), '--platform "linux-gnu": one of gnu-linux,'],
    [pack("--from", "nowhere"), "nowhere is not there; name another with --from"],
    [pack("--from", "build/index.html"), "build/index.html is not a folder"],
    [pack("--out", "build/index.html"), "build/index.html is not a folder"],
    [pack("--keep", "1.5"), '--keep: "1.5" is not a whole number'],
    [pack("--expires", "0"), '--expires: "0" is not a duration'],
    [pack("--key", "nowhere"), "the key file nowhere is not there"],
    [["list", "build/index.html"], "build/index.html is not a folder"],
    [["refresh", "--out", "nowhere"], "nowhere has no VERSION"],
    [["withdraw"], "VERSION is missing"],
    [["keys", "add"], "name a key file, or gpg:FINGERPRINT"],
    [["keys", "retire"], "name its fingerprint, as release keys list shows it"],
    [["verify", "nowhere"], "nowhere is neither a folder nor a URL"],
    [["verify", "build", "--key-file", "nowhere"], "--key-file: nowhere: there is no such file"],
  ];
  const tried = cases.map(async ([words, told]) => {
    const { stdout, stderr } = await release(words, { expect: 2 });
    assert.ok(stderr.includes(told), `release ${words.join(" ")}: ${stderr}`);
    assert.is(stdout, "");
  });
  await Promise.all(tried);
  assert.equal(await readdir(dir), before);
});

test.run();
