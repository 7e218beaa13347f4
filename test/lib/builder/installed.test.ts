import { cp, readFile, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { hashOfPackages, packageFiles, removePackages } from "../../../lib/builder/installed.ts";
import { writeFiles } from "../../helpers/repos.ts";
import { tempDir } from "../../helpers/tmp.ts";

/** A repo with a workspace: packages as npm, pnpm and Deno lay them out. */
async function repo(): Promise<string> {
  const dir = tempDir();
  await writeFiles(dir, {
    "package.json": "{}",
    "packages/a/package.json": "{}",
    "packages/a/node_modules/own/package.json": "{}",
    "node_modules/.bin/tool": "",
    "node_modules/plain/package.json": "{}",
    "node_modules/plain/index.js": "",
    "node_modules/plain/node_modules/inner/package.json": "{}",
    "node_modules/@scope/name/package.json": "{}",
    "node_modules/.pnpm/ms@2.0.0/node_modules/ms/package.json": "{}",
    "node_modules/.pnpm/ms@2.1.3/node_modules/ms/package.json": "{}",
  });
  await symlink(".pnpm/ms@2.0.0/node_modules/ms", join(dir, "node_modules/ms"));
  return dir;
}

test("package files are those of the repo itself, not those that were installed", async () => {
  assert.equal((await packageFiles(await repo())).sort(), [
    "package.json",
    "packages/a/package.json",
  ]);
});

const changes: [title: string, change: (dir: string) => Promise<unknown>, shows: boolean][] = [
  ["a package is gone", (dir) => rm(join(dir, "node_modules/plain"), { recursive: true }), true],
  [
    "a package within another was replaced",
    (dir) => writeFiles(dir, { "node_modules/plain/node_modules/inner/package.json": "{ }" }),
    true,
  ],
  [
    "a package with a scope is gone",
    (dir) => rm(join(dir, "node_modules/@scope/name"), { recursive: true }),
    true,
  ],
  [
    "a package behind links is gone",
    (dir) => rm(join(dir, "node_modules/.pnpm/ms@2.0.0/node_modules/ms"), { recursive: true }),
    true,
  ],
  [
    "a link leads to another version",
    async (dir) => {
      await unlink(join(dir, "node_modules/ms"));
      await symlink(".pnpm/ms@2.1.3/node_modules/ms", join(dir, "node_modules/ms"));
    },
    true,
  ],
  [
    "a package of a workspace is gone",
    (dir) => rm(join(dir, "packages/a/node_modules/own"), { recursive: true }),
    true,
  ],
  ["yarn's .pnp.cjs changed", (dir) => writeFile(join(dir, ".pnp.cjs"), "//"), true],
  [
    "a file in a package was edited",
    (dir) => writeFile(join(dir, "node_modules/plain/index.js"), "1"),
    false,
  ],
  ["a link to a program", (dir) => writeFile(join(dir, "node_modules/.bin/other"), ""), false],
];
for (const [title, change, shows] of changes) {
  test(`what stands in node_modules ${shows ? "counts" : "does not count"}: ${title}`, async () => {
    const dir = await repo();
    const before = await hashOfPackages(dir);
    assert.is(await hashOfPackages(dir), before);
    await change(dir);
    assert.is((await hashOfPackages(dir)) !== before, shows);
  });
}

test("to begin with nothing, all that was installed goes, and nothing else", async () => {
  const dir = await repo();
  const before = join(tempDir(), "copy");
  await cp(dir, before, { recursive: true });
  await removePackages(dir);
  assert.equal((await packageFiles(dir)).sort(), (await packageFiles(before)).sort());
  for (const path of ["node_modules", "packages/a/node_modules"])
    assert.is(await readFile(join(dir, path)).catch(({ code }) => code as string), "ENOENT");
});

test.run();
