// Installing from a web folder, as a user does it.
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { lstat, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand, runScript } from "../helpers/run.ts";
import { tarGz } from "../helpers/tar.ts";
import { gpgHome, needsGpg } from "../helpers/gpg.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import {
  goodArchive,
  installedVersion,
  publish,
  publisher,
  serveFolder,
  type ServedFolder,
} from "../helpers/web-folder.ts";

const by = await publisher();
const served: ServedFolder[] = [];
test.after(async () => {
  for (const server of served) await server.close();
});

async function folder(): Promise<ServedFolder> {
  const web = await serveFolder(join(tempDir("web-"), "w"));
  served.push(web);
  return web;
}

const later = (steps: number) => new Date(Date.now() + steps * 10_000);

test("an empty directory gets the app, the link and a launchify.yml; the same again is a no-op", async () => {
  const web = await folder();
  await publish(web.path, by, "1.23.42b", {
    platform: process.platform === "darwin" ? "darwin" : "gnu-linux",
    edit: (file) => void (file.release = "icecream-soda-popsticle"),
  });
  const dir = join(tempDir("deploy-"), "with space and ü");
  mkdirSync(dir);
  const argv = [web.url, "--key", by.fingerprint];
  const { stdout } = await runScript("launchfit", [...argv, "--json"], { cwd: dir, expect: 0 });
  const result = JSON.parse(stdout);
  assert.is(result.name, "my-app-1.23.42b");
  assert.is(result.release, "icecream-soda-popsticle");
  assert.is(await readlink(join(dir, "current")), "releases/my-app-1.23.42b");
  assert.is(await installedVersion(dir), "1.23.42b");
  assert.is((await lstat(join(dir, "current", "bin/run.sh"))).mode & 0o777, 0o755);
  assert.is(await readlink(join(dir, "current", "bin/link")), "run.sh");
  const yml = await readFile(join(dir, "launchify.yml"), "utf8");
  for (const part of ["name: my-app", `server: ${web.url}`, `key: "${by.fingerprint}"`]) assert.match(yml, part);
  const before = await readFile(join(dir, ".launchfit/state.json"), "utf8");
  web.asked.length = 0;
  const again = await runScript("launchfit", [web.url], { cwd: dir, expect: 0 });
  assert.match(again.stdout, "is installed already");
  assert.not(web.asked.some((name) => name.endsWith(".tar.gz")));
  assert.is(await readFile(join(dir, ".launchfit/state.json"), "utf8"), before);
  assert.is(await readFile(join(dir, "launchify.yml"), "utf8"), yml);
});

test("without a key the first install is refused with the fingerprint; --insecure pins it", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const { stderr } = await runScript("launchfit", [web.url, "--dir", dir], { expect: 4 });
  assert.match(stderr, `--key ${by.fingerprint}`);
  assert.not(existsSync(join(dir, "current")));
  assert.not(existsSync(join(dir, "launchify.yml")));
  await runScript("launchfit", [web.url, "--dir", dir, "--insecure"], { expect: 0 });
  assert.match(await readFile(join(dir, "launchify.yml"), "utf8"), by.fingerprint);
});

test("a key that is not the folder's is refused, and one that contradicts the directory is a usage error", async () => {
  const web = await folder();
  const other = await publisher();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const argv = [web.url, "--dir", dir];
  await runScript("launchfit", [...argv, "--key", other.fingerprint], { expect: 4 });
  await runScript("launchfit", [...argv, "--key", by.fingerprint], { expect: 0 });
  const { stderr } = await runScript("launchfit", [...argv, "--key", other.fingerprint], {
    expect: 2,
  });
  assert.match(stderr, "is not the key pinned here");
});

test("--key-file pins its key, and needs no KEY.asc in the folder", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  await rm(join(web.path, "KEY.asc"));
  const dir = tempDir("deploy-");
  const file = join(tempDir(), "publisher.asc");
  await writeFile(file, by.publicKey);
  await runScript("launchfit", [web.url, "--dir", dir, "--key-file", file], { expect: 0 });
  await publish(web.path, by, "2", { date: later(1) });
  await rm(join(web.path, "KEY.asc"));
  await runScript("launchfit", [web.url, "--dir", dir], { expect: 0 });
  assert.is(await installedVersion(dir), "2");
});

test("a launchify.yml that was there keeps its words, and gets what it lacks", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const before = "# mine\napp:\n    exec: ./bin/run.sh # start\nupdates:\n    every: 5m\n";
  await writeFile(join(dir, "launchify.yml"), before);
  await runScript("launchfit", [web.url, "--dir", dir, "--key", by.fingerprint], { expect: 0 });
  const after = await readFile(join(dir, "launchify.yml"), "utf8");
  for (const line of before.trim().split("\n")) assert.match(after, line);
  assert.match(after, `updates:\n    server: ${web.url}\n    gpg:\n      key: "${by.fingerprint}"\n    every: 5m`);
  await runScript("launchfit", [web.url, "--dir", dir], { expect: 0 });
});

test("mistakes in launchify.yml are named with line and column, and nothing is touched", async () => {
  const dir = tempDir("deploy-");
  await writeFile(join(dir, "launchify.yml"), "app:\n  nmae: x\nupdates:\n  every: soon\n");
  const { stderr } = await runScript("launchfit", ["https://example.com/", "--dir", dir], {
    expect: 2,
  });
  assert.match(stderr, /launchify\.yml:2:3: unknown key "nmae" \(did you mean "name"\?\)/);
  assert.match(stderr, /launchify\.yml:4:10: /);
  assert.equal(readdirSync(dir), ["launchify.yml"]);
});

test("a folder without VERSION.sig works, until one was seen", async () => {
  const web = await folder();
  await publish(web.path, by, "1", { versionSigned: false });
  const dir = tempDir("deploy-");
  const argv = [web.url, "--dir", dir];
  await runScript("launchfit", [...argv, "--key", by.fingerprint], { expect: 0 });
  await publish(web.path, by, "2", { versionSigned: false, date: later(1) });
  await runScript("launchfit", argv, { expect: 0 });
  assert.is(await installedVersion(dir), "2");
  await publish(web.path, by, "3", { date: later(2) });
  await runScript("launchfit", argv, { expect: 0 });
  await publish(web.path, by, "4", { versionSigned: false, date: later(3) });
  await rm(join(web.path, "VERSION.sig"));
  await runScript("launchfit", argv, { expect: 4 });
  assert.is(await installedVersion(dir), "3");
});

test("a client that meets the middle of a publish fetches again", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const old = await readFile(join(web.path, "VERSION"));
  await publish(web.path, by, "2", { date: later(1) });
  let times = 0;
  web.on((_request, response, name) => {
    // VERSION.sig is there already, VERSION comes last
    if (name !== "VERSION" || ++times > 1) return false;
    response.writeHead(200).end(old);
    return true;
  });
  await runScript("launchfit", [web.url, "--dir", dir, "--key", by.fingerprint], { expect: 0 });
  assert.is(times, 2);
  assert.is(await installedVersion(dir), "2");
});

test("a download that breaks off goes on where it was", async () => {
  const web = await folder();
  const archive = Buffer.concat([goodArchive("my-app", "1")]);
  const { gzipSync, gunzipSync } = await import("node:zlib");
  const { tarEntry } = await import("../helpers/tar.ts");
  const { randomBytes } = await import("node:crypto");
  const tar = gunzipSync(archive);
  const big = gzipSync(Buffer.concat([tarEntry({ name: "big", content: randomBytes(4_000_000) }), tar]), { level: 1 });
  const file = await publish(web.path, by, "1", { archive: big });
  const ranges: (string | undefined)[] = [];
  web.on((request, response, name) => {
    if (name !== file) return false;
    ranges.push(request.headers.range);
    const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const headers = { etag: '"x"', "content-length": big.length - from };
    if (from > 0) {
      const range = `bytes ${from}-${big.length - 1}/${big.length}`;
      response.writeHead(206, { ...headers, "content-range": range }).end(big.subarray(from));
    } else {
      response.writeHead(200, headers);
      response.write(big.subarray(0, 3_000_000), () => setTimeout(() => response.destroy(), 50));
    }
    return true;
  });
  const dir = tempDir("deploy-");
  await runScript("launchfit", [web.url, "--dir", dir, "--key", by.fingerprint], { expect: 0 });
  assert.is(ranges.length, 2);
  assert.match(ranges[1] ?? "", /^bytes=[1-9]/);
  assert.is(await installedVersion(dir), "1");
});

test("a server that is not there is a failure, not a refusal, and a second one is taken", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const gone = "http://127.0.0.1:1/";
  const dead = await runScript("launchfit", [gone, "--dir", dir, "--key", by.fingerprint, "--timeout", "1s"]);
  assert.ok(dead.code === 4 || dead.code === 1, dead.stderr);
  await writeFile(
    join(dir, "launchify.yml"),
    `updates:\n  server: [${gone}, ${web.url}]\n  gpg: { key: ${by.fingerprint} }\n`,
  );
  await runScript("launchfit", [web.url, "--dir", dir, "--timeout", "2s"], { expect: 0 });
  assert.is(await installedVersion(dir), "1");
});

test("a server that is down and a host that nobody knows are told in one line, by status too", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  await runScript("launchfit", [web.url, "--dir", dir, "--key", by.fingerprint], { expect: 0 });
  const yml = await readFile(join(dir, "launchify.yml"), "utf8");
  for (const [server, reason] of [
    ["http://127.0.0.1:1/", "the connection was refused"],
    ["http://no-such-host.invalid/", "the host "],
  ] as const) {
    const exec = "app:\n  exec: ./bin/run.sh";
    await writeFile(join(dir, "launchify.yml"), yml.replace("app:", exec).replace(/server: .*/, `server: ${server}`));
    const { stderr } = await runScript("launchfit", ["check", "--once", "--dir", dir], {
      expect: 1,
    });
    assert.match(stderr, `${server}VERSION: ${reason}`);
    assert.not.match(stderr, /^ +at /m);
    assert.ok(stderr.trim().split("\n").length <= 2, stderr);
    const { stdout } = await runScript("launchfit", ["status", "--dir", dir]);
    assert.match(stdout, `last check  ${server}VERSION: ${reason}`);
    assert.not.match(stdout, /^ +at /m);
  }
});

test("a local folder without VERSION.sig and KEY.asc works as a served one does", async () => {
  const web = tempDir("web-");
  await publish(web, by, "1", { versionSigned: false });
  await rm(join(web, "KEY.asc"));
  const file = join(tempDir(), "publisher.asc");
  await writeFile(file, by.publicKey);
  const dir = tempDir("deploy-");
  const argv = [`file://${web}`, "--dir", dir];
  const { stderr } = await runScript("launchfit", [...argv, "--insecure"], { expect: 4 });
  assert.match(stderr, /KEY\.asc is not there/);
  await runScript("launchfit", [...argv, "--key-file", file], { expect: 0 });
  assert.is(await installedVersion(dir), "1");
  await rm(join(web, "my-app-1.tar.gz.sig"));
  await publish(web, by, "2", { versionSigned: false, date: later(1) });
  await rm(join(web, "my-app-2.tar.gz.sig"));
  const unsigned = await runScript("launchfit", argv, { expect: 4 });
  assert.match(unsigned.stderr, "has no signature");
});

test("what was accepted is remembered within bounds, and never forgotten of a release that stands there", async () => {
  const web = await folder();
  const first = await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  const argv = [web.url, "--key", by.fingerprint, "--dir", dir];
  await runScript("launchfit", argv, { expect: 0 });
  const archive = await readFile(join(web.path, first));
  const path = join(dir, ".launchfit/state.json");
  const read = async () => JSON.parse(await readFile(path, "utf8"));
  const state = await read();
  // a year of hourly releases: all of them newer than the one that is installed
  const { sha256, file } = state.versions["1"];
  for (let hour = 0; hour < 9000; hour++) {
    const signed = new Date(Date.now() + hour).toISOString();
    state.versions[`a.${hour.toString(16)}`] = { sha256, file, signed };
  }
  await writeFile(path, JSON.stringify(state));
  await publish(web.path, by, "2", { date: later(1) });
  await runScript("launchfit", argv, { expect: 0 });
  const { versions } = await read();
  assert.ok(Object.keys(versions).length < 600, String(Object.keys(versions).length));
  for (const version of ["1", "2", `a.${(8999).toString(16)}`]) assert.ok(versions[version]);
  assert.not(versions["a.1"]);
  // pointed back to what stands there: it is known, and not fetched again
  await publish(web.path, by, "1", { archive, date: later(2) });
  web.asked.length = 0;
  await runScript("launchfit", argv, { expect: 0 });
  assert.is(await installedVersion(dir), "1");
  assert.not(web.asked.includes(first));
});

test("launchfit verify says what an update would, and installs nothing", async () => {
  const web = await folder();
  await publish(web.path, by, "1");
  const dir = tempDir("deploy-");
  await runScript("launchfit", [web.url, "--dir", dir, "--key", by.fingerprint], { expect: 0 });
  const file = await publish(web.path, by, "2", { date: later(1) });
  const { stdout } = await runScript("launchfit", ["verify", "--dir", dir], { expect: 0 });
  assert.match(stdout, `my-app-2: good, signed by ${by.fingerprint}`);
  await writeFile(join(web.path, `${file}.sig`), await by.sign(Buffer.from("other")));
  await runScript("launchfit", ["verify", "--dir", dir], { expect: 4 });
  assert.is(await installedVersion(dir), "1");
  assert.equal(readdirSync(join(dir, "releases")), ["my-app-1"]);
});

/** An archive that another tool makes of a folder `my-app` with these files. */
async function archiveBy(tool: string, files: Record<string, string>): Promise<Buffer> {
  const base = tempDir();
  const from = join(base, "my-app");
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(from, name, ".."), { recursive: true });
    await writeFile(join(from, name), text);
  }
  const made = join(base, "made.tar.gz");
  const run = (argv: string[], cwd = base) => runCommand(argv, { cwd, expect: 0 });
  if (tool === "tar") await run(["tar", "czf", made, "my-app"]);
  if (tool === "npm pack") {
    await writeFile(join(from, "package.json"), '{ "name": "my-app", "version": "1.0.0" }');
    await run(["npm", "pack", "--silent", "--offline", "--ignore-scripts"], from);
    return await readFile(join(from, "my-app-1.0.0.tgz"));
  }
  if (tool === "git archive") {
    const who = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
    await run(["git", "init", "--quiet"], from);
    await run(["git", "add", "--all"], from);
    await run(["git", ...who, "commit", "--quiet", "--message", "x"], from);
    await run(["git", "archive", "--prefix=my-app-1/", "--output", made, "HEAD"], from);
  }
  return await readFile(made);
}

for (const tool of ["tar", "npm pack", "git archive"])
  test(`an archive by ${tool}: its one folder is taken off where it holds a launchify.yml`, async () => {
    const web = await folder();
    const files = { "launchify.yml": "app:\n  name: my-app\n", "version.txt": "1", "d/f": "x" };
    await publish(web.path, by, "1", { archive: await archiveBy(tool, files) });
    const dir = tempDir("deploy-");
    const argv = [web.url, "--dir", dir, "--key", by.fingerprint];
    await runScript("launchfit", argv, { expect: 0 });
    assert.is(await installedVersion(dir), "1");
    assert.ok(existsSync(join(dir, "current", "d", "f")));
    assert.is((await lstat(join(dir, "releases", "my-app-1"))).mode & 0o777, 0o755);
  });

test("an archive's one folder without a configuration is refused with the words that help; app.strip decides", async () => {
  const web = await folder();
  const archive = await archiveBy("tar", { "version.txt": "1" });
  await publish(web.path, by, "1", { archive });
  const dir = tempDir("deploy-");
  const argv = [web.url, "--dir", dir, "--key", by.fingerprint];
  const { stderr } = await runScript("launchfit", argv, { expect: 4 });
  assert.match(stderr, /all of it is in one folder, "my-app"; write app\.strip: 1 into launchify/);
  assert.not(existsSync(join(dir, "current")));
  const yml = join(dir, "launchify.yml");
  const shape = async (lines: string) => {
    await writeFile(yml, `app:\n  name: my-app\n${lines}`);
    await rm(join(dir, "releases"), { recursive: true, force: true });
    await rm(join(dir, "current"), { force: true });
    await runScript("launchfit", argv, { expect: 0 });
    return existsSync(join(dir, "current", "version.txt")) ? "taken off" : "as it is";
  };
  assert.is(await shape("  strip: 1\n"), "taken off");
  assert.is(await shape("  strip: 0\n"), "as it is");
  assert.is(await shape("  exec: cat my-app/version.txt\n"), "as it is");
  assert.is(await shape("  exec: cat version.txt\n  strip: 1\n"), "taken off");
  // what is installed keeps its shape
  await writeFile(yml, (await readFile(yml, "utf8")).replace("  strip: 1\n", ""));
  await runScript("launchfit", argv, { expect: 0 });
  assert.is(await installedVersion(dir), "1");
});

test("a folder is not taken off where a link would then lead out of the release", async () => {
  const web = await folder();
  const archive = tarGz(
    { name: "my-app/launchify.yml", content: "app:\n  name: my-app\n" },
    { name: "my-app/l", type: "2", link: "../my-app/launchify.yml" },
  );
  await publish(web.path, by, "1", { archive });
  const dir = tempDir("deploy-");
  const argv = [web.url, "--dir", dir, "--key", by.fingerprint];
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /leads out/);
});

test("a release for another platform only is refused by name", async () => {
  const web = await folder();
  await publish(web.path, by, "1", { platform: "windows" });
  const dir = tempDir("deploy-");
  const argv = [web.url, "--dir", dir, "--key", by.fingerprint];
  const { stderr } = await runScript("launchfit", argv, { expect: 4 });
  assert.match(stderr, "only for windows");
});

testUnless(test, needsGpg)(
  "a short id is taken when one key in the ring bears it, and is written out in full",
  async () => {
    const home = await gpgHome();
    try {
      const fingerprint = await home.key("Ring <ring@example.com>");
      const web = await folder();
      await publish(web.path, by, "1", { versionSigned: false });
      const file = join(web.path, "my-app-1.tar.gz");
      await home.sign(file, fingerprint);
      await rm(join(web.path, "KEY.asc"));
      const dir = tempDir("deploy-");
      const short = fingerprint.slice(-8);
      await writeFile(join(dir, "launchify.yml"), `updates:\n  server: ${web.url}\n  gpg:\n    key: "0x${short}"\n`);
      const env = { GNUPGHOME: home.path };
      const { stderr } = await runScript("launchfit", [web.url, "--dir", dir], { env, expect: 0 });
      assert.match(stderr, /short ids can be forged/);
      assert.match(await readFile(join(dir, "launchify.yml"), "utf8"), `key: "${fingerprint}"`);
      // from then on the ring is not needed
      await runScript("launchfit", [web.url, "--dir", dir], { expect: 0 });
      const none = tempDir("deploy-");
      const argv = [web.url, "--dir", none, "--key", "01234567"];
      assert.match((await runScript("launchfit", argv, { env, expect: 4 })).stderr, "names no key");
    } finally {
      await home.close();
    }
  },
);

test.run();
