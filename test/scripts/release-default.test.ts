// `release` on a tag of a repo that has no release.sh: packed, signed, uploaded, and the web folder stays.
import { existsSync, readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, makeRepo } from "../helpers/repos.ts";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const gitEnv = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

async function yard() {
  const published = join(tempDir("published-"), "site.git");
  await git(tempDir(), "init", "-q", "--bare", published);
  const repo = await makeRepo();
  await repo.push({
    "package.json": '{ "name": "@me/my-app", "version": "0.0.0" }\n',
    "build.yml": "stages: [make]\ncommands: { make: 'mkdir -p build && cp app.js build' }\n",
    ".gitignore": "build\n",
    "app.js": "one\n",
    "uploads.yml": `to:\n  pages: { git: "file://${published}", branch: pages }\n`,
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  const key = join(tempDir("key-"), "key.asc");
  const made = await runScript("release", ["keygen", "--out", key, "--json"], { expect: 0 });
  const { fingerprint } = JSON.parse(made.stdout) as { fingerprint: string };
  const env = { ...gitEnv, RELEASE_KEY: key };
  const release = (...args: string[]) => runScript("release", args, { env });
  const names = async () => (await git(published, "ls-tree", "-r", "--name-only", "pages")).trim().split("\n").sort();
  return { repo, dir, fingerprint, release, names };
}

test("a tag becomes a signed archive that launchfit installs; other platforms' lines and older archives stay", async () => {
  const { repo, dir, fingerprint, release, names } = await yard();
  const folder = join(dir, "upload", "app-updates");
  await repo.tag("v1.0");
  const first = await release(dir, "--tag", "v1.0");
  assert.is(first.code, 0, first.stderr);
  assert.match(first.stdout, /pack +ok .*my-app 1\.0/);
  assert.match(first.stdout, /uploads +ok/);
  assert.equal(await names(), [
    "app-updates/KEY.asc",
    "app-updates/VERSION",
    "app-updates/VERSION.sig",
    "app-updates/my-app-1.0.tar.gz",
    "app-updates/my-app-1.0.tar.gz.index",
    "app-updates/my-app-1.0.tar.gz.sig",
  ]);
  const windows = ["--app", "my-app", "--version", "1.0", "--platform", "windows"];
  const other = await release("pack", ...windows, "--from", join(dir, ".git"), "--out", folder);
  assert.is(other.code, 0, other.stderr);
  await repo.push({ "app.js": "two\n" });
  await repo.tag("v1.1");
  const second = await release(dir, "--tag", "v1.1");
  assert.is(second.code, 0, second.stderr);
  const lines = readFileSync(join(folder, "VERSION"), "utf8");
  assert.match(lines, /^CURRENT 1\.0 my-app-windows-1\.0\.tar\.gz$/m);
  assert.match(lines, /^CURRENT 1\.1 my-app-1\.1\.tar\.gz$/m);
  assert.is((await names()).filter((name) => name.endsWith(".tar.gz")).length, 3);
  assert.is((await git(dir, "status", "--porcelain")).trim(), "", "git overlooks the folder");
  assert.equal(await readdir(join(dir, "..")), ["site"], "the worktree is gone");

  const deploy = tempDir("deploy-");
  const args = [`file://${folder}/`, "--key", fingerprint, "--dir", deploy];
  const installed = await runScript("launchfit", args);
  assert.is(installed.code, 0, installed.stderr);
  assert.is(readFileSync(join(deploy, "current", "app.js"), "utf8"), "two\n");
});

test("a prerelease is built and not published; a tag that is no version, or no key, fails with words", async () => {
  const { repo, dir, release } = await yard();
  await repo.tag("v2.0");
  await repo.tag("release-x");
  const env = { ...gitEnv, RELEASE_PRERELEASE: "true" };
  const pre = await runScript("release", [dir, "--tag", "v2.0"], { env });
  assert.is(pre.code, 0, pre.stderr);
  assert.match(pre.stdout, /a prerelease: built, not published/);
  assert.not.ok(existsSync(join(dir, "upload")));
  const odd = await release(dir, "--tag", "release-x");
  assert.is(odd.code, 1);
  assert.match(odd.stderr, /release-x/);
  assert.match(odd.stdout, /checkout +failed/, "before the build");
  const home = tempDir("home-");
  const keyless = await runScript("release", [dir, "--tag", "v2.0"], {
    env: { ...gitEnv, HOME: home },
  });
  assert.is(keyless.code, 1);
  assert.match(keyless.stderr, /release keygen/);
  assert.match(keyless.stdout, /checkout +failed/, "before the build");
  assert.not.match(keyless.stdout, /^build/m);
});

test("release pack --check says what would be wrong, and writes nothing", async () => {
  const { dir, release } = await yard();
  const out = join(dir, "web");
  const check = (...args: string[]) => release("pack", "--check", "--app", "my-app", "--out", out, ...args);
  const good = await check("--version", "1.0");
  assert.is(good.code, 0, good.stderr);
  assert.match(good.stdout, /my-app 1\.0 can be packed/);
  assert.is((await check("--version", "one")).code, 2);
  assert.is((await check("--version", "1.0", "--key", join(dir, "nowhere"))).code, 2);
  assert.not(existsSync(out));
});

test.run();
