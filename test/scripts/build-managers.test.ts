// The install stage with each package manager, the real ones: the lock file holds.
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { buildHere } from "../helpers/build.ts";
import { writeFiles } from "../helpers/repos.ts";
import { packageManager, trust } from "../helpers/npm-packages.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

process.env["HOME"] = tempDir("home-");
// yarn 1 keeps a cache there
process.env["TMPDIR"] = process.env["HOME"];
for (const [name, value] of Object.entries(trust)) if (value) process.env[name] = value;

/** The repo of a fixture: package.json asks for ms ^2.0.0, the lock file holds it at 2.0.0, and there are newer ones. */
async function lockedRepo(name: string): Promise<string> {
  const dir = join(tempDir(), "site");
  await cp(join(root, "test/fixtures/locked", name), dir, { recursive: true });
  return dir;
}

/** `body` with this program on PATH: before all others, or alone with what a build always needs. */
async function withProgram(programs: Record<string, string>, body: () => Promise<void>, alone = false): Promise<void> {
  const bin = tempDir("bin-");
  for (const [name, file] of Object.entries(programs)) await symlink(file, join(bin, name));
  const path = process.env["PATH"];
  process.env["PATH"] = alone ? bin : [bin, path].join(delimiter);
  await body().finally(() => {
    process.env["PATH"] = path;
  });
}

async function install(dir: string, expect = 0): Promise<string> {
  const { code, text } = await buildHere(dir, ["--only", "install"]);
  assert.is(code, expect, text);
  return text;
}

async function which(name: string): Promise<string> {
  return (await runCommand(["sh", "-c", `command -v ${name}`], { expect: 0 })).stdout.trim();
}

const outdated = '{ "name": "site", "version": "1.0.0", "dependencies": { "ms": "2.1.3" } }\n';
const unchanged = /install +skipped +nothing changed since the last install/;

const table = [
  { name: "pnpm", lock: "pnpm-lock.yaml", title: "pnpm install --frozen-lockfile" },
  { name: "yarn-1", lock: "yarn.lock", title: "yarn install --frozen-lockfile" },
  { name: "yarn", lock: "yarn.lock", title: "yarn install --immutable" },
  { name: "bun", lock: "bun.lock", title: "bun install --frozen-lockfile" },
  { name: "deno", lock: "deno.lock", title: "deno install --frozen" },
] as const;
for (const { name, lock, title } of table) {
  const { file, reason } = await packageManager(name);
  testUnless(test, reason)(`a repo of ${name} gets what its lock file says, by ${title}`, async () => {
    const dir = await lockedRepo(name);
    const locked = await readFile(join(dir, lock), "utf8");
    const isArchived = name === "yarn";
    const loader = isArchived ? ["--require", "./.pnp.cjs"] : [];
    const version = async () => {
      const code = "console.log(require('ms/package.json').version)";
      return (await runCommand(["node", ...loader, "-e", code], { cwd: dir, expect: 0 })).stdout.trim();
    };
    await withProgram({ [name.split("-")[0] ?? ""]: file ?? "" }, async () => {
      assert.match(await install(dir), new RegExp(`install +ok .* ${title}\n`));
      assert.is(await version(), "2.0.0");
      assert.match(await install(dir), unchanged);
      await rm(join(dir, isArchived ? ".pnp.cjs" : "node_modules"), { recursive: true });
      await install(dir);
      assert.is(await version(), "2.0.0");
      assert.match(await install(dir), unchanged);
      await writeFile(join(dir, "package.json"), outdated);
      assert.match(await install(dir, 1), new RegExp(`${title} failed with exit code`));
    });
    assert.is(await readFile(join(dir, lock), "utf8"), locked);
  });
}

test("a package manager that is missing is named, with what to run", async () => {
  const dir = await lockedRepo("pnpm");
  const programs = Object.fromEntries(
    await Promise.all(["node", "npm", "flock"].map(async (name) => [name, await which(name)])),
  );
  const wanted = /pnpm is not on PATH, which pnpm-lock.yaml asks for; run: npm install --global pnpm/;
  await withProgram(programs, async () => assert.match(await install(dir, 1), wanted), true);
});

for (const [lockOf, program] of [
  ["yarn", "yarn-1"],
  ["yarn-1", "yarn"],
] as const) {
  const { file, reason } = await packageManager(program);
  testUnless(test, reason)(`a lock file of ${lockOf} is not rewritten by ${program}`, async () => {
    const dir = await lockedRepo(lockOf);
    const locked = await readFile(join(dir, "yarn.lock"), "utf8");
    await withProgram({ yarn: file ?? "" }, async () =>
      assert.match(
        await install(dir, 1),
        /yarn.lock is of yarn .*, and yarn here is [14]\.\d+\.\d+; set packageManager/,
      ),
    );
    assert.is(await readFile(join(dir, "yarn.lock"), "utf8"), locked);
  });
}

const { file: pnpm, reason: noPnpm } = await packageManager("pnpm");
testUnless(test, noPnpm)("what npm installed before the repo came to pnpm is replaced", async () => {
  const dir = await lockedRepo("pnpm");
  await writeFiles(dir, { "node_modules/ms/package.json": '{ "version": "0.0.1" }\n' });
  await writeFiles(dir, { "node_modules/.package-lock.json": "{}\n" });
  await mkdir(join(dir, "node_modules/gone"));
  await withProgram({ pnpm: pnpm ?? "" }, async () => void (await install(dir)));
  assert.match(await readFile(join(dir, "node_modules/ms/package.json"), "utf8"), /"2\.0\.0"/);
});

testUnless(test, noPnpm ?? needsCommand("corepack"))(
  "the version that packageManager names comes by corepack, and package.json stays as it is",
  async () => {
    const dir = await lockedRepo("pnpm");
    const file = join(dir, "package.json");
    // a mirror of the registry may have no signatures
    await writeFile(join(dir, "build.yml"), 'env: { COREPACK_INTEGRITY_KEYS: "0" }\n');
    const text = (await readFile(file, "utf8")).replace("{", '{ "packageManager": "pnpm@9.15.9",');
    await writeFile(file, text);
    assert.match(await install(dir), /using pnpm v9\.15\.9[^]*pnpm install --frozen-lockfile/);
    assert.is(await readFile(file, "utf8"), text);
  },
);

test.run();
