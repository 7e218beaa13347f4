// A repo whose files all hold the number of their version, so that a tree of two versions shows.
import { readdir, readFile, realpath } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as assert from "uvu/assert";
import { makeRepo } from "./repos.ts";
import { tempDir } from "./tmp.ts";

const fileCount = 60;

/** Every file of a version holds its number, so that a mixed tree shows. */
function version(number: number): Record<string, string> {
  const names = Array.from({ length: fileCount }, (_, index) => `d${index % 6}/f${index}`);
  return Object.fromEntries([...names, `only-${number}`].map((name) => [name, `${number}\n`]));
}

/** A repo at version 0, and what slave-activate needs to serve it; `push` pushes the next version. */
export async function numberedRepo() {
  const repo = await makeRepo({ files: version(0) });
  let number = 0;
  const push = async () => {
    number += 1;
    return await repo.push({ ...version(number), [`only-${number - 1}`]: null });
  };
  const repos = join(tempDir("slave-"), "repos");
  const args = ["site", "--repos", repos, "--base", `file://${dirname(repo.bare)}`];
  return { repo, repos, args, push, site: join(repos, "site") };
}

/** Reads a whole tree as one that resolves the link once; returns the version or fails. */
export async function readWhole(site: string): Promise<string> {
  const tree = await realpath(site);
  const names = (await readdir(tree, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !`${entry.parentPath}/`.startsWith(`${tree}/.git/`))
    .map((entry) => join(entry.parentPath, entry.name));
  const texts = await Promise.all(names.map((name) => readFile(name, "utf8")));
  const [number] = new Set(texts);
  assert.is(new Set(texts).size, 1, `a mixed tree: ${[...new Set(texts)].join()}`);
  assert.is(names.length, fileCount + 1);
  assert.ok(names.some((name) => name.endsWith(`/only-${number?.trim()}`)));
  return number?.trim() ?? "";
}
