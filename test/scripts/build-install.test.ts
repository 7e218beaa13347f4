// The install stage, with the real npm and packages from folders: no network.
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { buildHere } from "../helpers/build.ts";
import { type Files, git, writeFiles } from "../helpers/repos.ts";
import { runCommand } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

// npm's cache and settings of whoever runs the tests stay out of it
process.env["HOME"] = tempDir("home-");

/** A package with a tarball as its dependency: npm really unpacks it. */
async function site(more: Files = {}): Promise<string> {
  const dir = tempDir();
  await writeFiles(dir, {
    "dep/package.json": '{ "name": "dep", "version": "1.0.0" }\n',
    "dep/index.js": "module.exports = 1;\n",
    "package.json": '{ "name": "site", "private": true, "dependencies": { "dep": "file:dep.tgz" } }\n',
    ...more,
  });
  await npm(join(dir, "dep"), "pack", "--pack-destination", dir);
  await runCommand(["mv", join(dir, "dep-1.0.0.tgz"), join(dir, "dep.tgz")], { expect: 0 });
  return dir;
}

async function npm(dir: string, ...args: string[]): Promise<void> {
  const env = { HOME: process.env["HOME"] };
  await runCommand(["npm", ...args, "--no-audit", "--no-fund", "--offline"], {
    cwd: dir,
    env,
    expect: 0,
  });
}

async function install(dir: string, args: string[] = [], expect = 0): Promise<string> {
  const { code, text } = await buildHere(dir, ["--only", "install", ...args]);
  assert.is(code, expect, text);
  return text;
}

const unchanged = /install +skipped +nothing changed since the last install/;

test("with a lock file it is npm ci, and nothing when nothing changed", async () => {
  const dir = await site();
  await npm(dir, "install", "--package-lock-only");
  assert.match(await install(dir), /install +ok .* npm ci/);
  assert.match(await install(dir), unchanged);
  await rm(join(dir, "node_modules"), { recursive: true });
  assert.match(await install(dir), /npm ci/);
  assert.is(await readFile(join(dir, "node_modules/dep/index.js"), "utf8"), "module.exports = 1;\n");
});

test("a worktree copies what is installed in the checkout when nothing differs, else it installs", async () => {
  const dir = await site({ ".gitignore": "node_modules\nlogs.txt\n" });
  await npm(dir, "install", "--package-lock-only");
  await git(dir, "init", "-q");
  await git(dir, "add", "-A");
  await git(dir, "commit", "-qm", "First");
  await install(dir);
  await writeFile(join(dir, "node_modules/dep/mark"), "");
  const tree = join(tempDir(), "tree");
  await git(dir, "worktree", "add", "-q", "--detach", tree);
  assert.match(await install(tree), /install +ok .*copied from the checkout/);
  assert.is(await readFile(join(tree, "node_modules/dep/mark"), "utf8"), "");
  assert.match(await install(tree), unchanged);
  await writeFile(join(tree, ".npmrc"), "fund=false\n");
  assert.match(await install(tree), /install +ok .*npm ci/);
});

test("--dry-run looks at an install with the variables of build.yml, as the build does", async () => {
  const dir = await site({ "build.yml": "env: { NODE_ENV: production }\n" });
  await npm(dir, "install", "--package-lock-only");
  await install(dir);
  assert.match(await install(dir, ["--dry-run"]), /install +skipped: nothing changed since the last install/);
});

/** An npm that installs `dep` at once, first on PATH while `body` runs. */
async function withQuickNpm(body: (bin: string) => Promise<void>): Promise<void> {
  const bin = tempDir();
  const script = `#!/bin/sh
test -e broken && exit 7
mkdir -p node_modules/dep
echo '{ "packages": { "node_modules/dep": {}, "packages/a": {}, "node_modules/a": { "link": true } } }' > node_modules/.package-lock.json
echo '{ "name": "dep" }' > node_modules/dep/package.json
`;
  await writeFile(join(bin, "npm"), script, { mode: 0o755 });
  const path = process.env["PATH"];
  process.env["PATH"] = `${bin}:${path}`;
  await body(bin).finally(() => {
    process.env["PATH"] = path;
  });
}

const locked: Files = {
  "package.json": '{ "name": "site", "dependencies": { "dep": "1" } }\n',
  "package-lock.json": '{ "packages": { "": {}, "packages/a": {}, "node_modules/dep": {} } }\n',
};

const changes: [title: string, change: (dir: string, bin: string) => Promise<unknown>][] = [
  [
    "the lock file: another version, all else the same",
    (dir) => {
      const text = String(locked["package-lock.json"]).replace('dep": {}', 'dep": { "version": "2" }');
      return writeFile(join(dir, "package-lock.json"), text);
    },
  ],
  ["the package file", (dir) => writeFile(join(dir, "package.json"), '{ "dependencies": { "x": "1" } }')],
  ["a package of a workspace", (dir) => writeFiles(dir, { "packages/a/package.json": "{}" })],
  ["npm's settings", (dir) => writeFile(join(dir, ".npmrc"), "fund=false\n")],
  ["NODE_ENV", (dir) => writeFile(join(dir, "build.yml"), "env: { NODE_ENV: production }\n")],
  ["node_modules that is gone", (dir) => rm(join(dir, "node_modules"), { recursive: true })],
  ["another Node", (_, bin) => writeFile(join(bin, "node"), "#!/bin/sh\n", { mode: 0o755 })],
];
for (const [title, change] of changes) {
  test(`what makes an install necessary again: ${title}`, async () => {
    const dir = tempDir();
    await writeFiles(dir, locked);
    await withQuickNpm(async (bin) => {
      await install(dir);
      assert.match(await install(dir), unchanged);
      await change(dir, bin);
      assert.match(await install(dir), /install +ok .* npm ci/);
      assert.match(await install(dir), unchanged);
      assert.match(await install(dir, ["--force"]), /install +ok .* npm ci/);
    });
  });
}

test("an install that broke off is not taken for a done one", async () => {
  const dir = tempDir();
  await writeFiles(dir, locked);
  await withQuickNpm(async () => {
    await install(dir);
    await writeFiles(dir, { broken: "" });
    await install(dir, ["--force"], 1);
    assert.match(await install(dir, [], 1), /npm ci failed with exit code 7/);
    await rm(join(dir, "broken"));
    assert.match(await install(dir), /install +ok .* npm ci/);
  });
});

async function which(name: string): Promise<string> {
  return (await runCommand(["sh", "-c", `command -v ${name}`], { expect: 0 })).stdout.trim();
}

test("without a lock file it is npm install, and what npm writes then counts as known", async () => {
  const dir = await site();
  assert.match(await install(dir), /npm install/);
  assert.match(await readFile(join(dir, "package-lock.json"), "utf8"), /dep.tgz/);
  assert.match(await install(dir), /npm ci|nothing changed/);
  assert.match(await install(dir), unchanged);
});

test("nothing to install is said, and npm is not started", async () => {
  const dir = tempDir();
  assert.match(await install(dir), /^skipped: install$/m);
  await writeFile(join(dir, "package.json"), '{ "name": "x", "scripts": { "test": "true" } }\n');
  assert.match(await install(dir), /^skipped: install$/m);
  await mkdir(join(dir, "node_modules"));
  await writeFile(join(dir, "package.json"), '{ "name": "x", "scripts": { "prepare": "touch prepared" } }\n');
  assert.match(await install(dir), /npm install/);
  await readFile(join(dir, "prepared"));
});

test("without node on PATH the stage says what to do", async () => {
  const dir = await site();
  const path = process.env["PATH"];
  const bin = tempDir();
  for (const name of ["flock"]) await runCommand(["ln", "-s", await which(name), join(bin, name)], { expect: 0 });
  process.env["PATH"] = bin;
  const text = await install(dir, [], 1).finally(() => {
    process.env["PATH"] = path;
  });
  assert.match(text, /node is not on PATH, which npm needs/);
});

test.run();
