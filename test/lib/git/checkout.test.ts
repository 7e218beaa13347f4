import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  findCheckout,
  overlook,
  parseRemotes,
  readHead,
  readRef,
  readRemotes,
} from "../../../lib/git/checkout.ts";
import { git, makeRepo } from "../../helpers/repos.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("remotes and upstreams are read as git has written them", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await git(dir, "remote", "add", "other/one", repo.bare);
  await git(dir, "branch", "dev/x", "--track", "origin/main");
  const checkout = await findCheckout(dir);
  assert.ok(checkout);
  const remotes = await readRemotes(checkout);
  assert.equal(remotes?.names, ["origin", "other/one"]);
  assert.equal(remotes?.upstream.get("main"), { remote: "origin", merge: "refs/heads/main" });
  assert.equal(remotes?.upstream.get("dev/x"), { remote: "origin", merge: "refs/heads/main" });
  assert.equal(await readHead(checkout), { branch: "main" });
  const sha = await git(dir, "rev-parse", "main");
  assert.is(await readRef(checkout, "refs/heads/main"), sha);
  await git(dir, "pack-refs", "--all");
  assert.is(await readRef(checkout, "refs/heads/main"), sha);
  assert.is(await readRef(checkout, "refs/heads/none"), undefined);
});

test("a worktree's git folder is found, and what all worktrees share", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const tree = join(tempDir(), "tree");
  await git(repo.work, "worktree", "add", "--quiet", "-b", "side", tree);
  const checkout = await findCheckout(tree);
  assert.ok(checkout);
  assert.is(checkout.commonDir, join(repo.work, ".git"));
  assert.equal(await readHead(checkout), { branch: "side" });
  assert.is(await readRef(checkout, "refs/heads/side"), await git(tree, "rev-parse", "HEAD"));
  assert.is(await findCheckout(tempDir()), undefined);
});

for (const text of [
  "[include]\n\tpath = other\n",
  '[includeIf "gitdir:x"]\n\tpath = other\n',
  '[branch "a\\"b"]\n\tremote = origin\n',
  '[branch "main"]\n\tremote = "origin" ; quoted\n',
]) {
  test(`a config that is not plain is left to git: ${JSON.stringify(text)}`, () => {
    assert.is(parseRemotes(text), undefined);
  });
}

test("files are overlooked in this clone alone, and once", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const checkout = await findCheckout(repo.work);
  assert.ok(checkout);
  await overlook(checkout, ["/logs.txt"]);
  await overlook(checkout, ["/logs.txt", "/logs.txt.*"]);
  const text = await readFile(join(repo.work, ".git/info/exclude"), "utf8");
  assert.is(text.match(/^\/logs\.txt$/gm)?.length, 1);
  assert.match(text, /\n\/logs\.txt\.\*\n$/);
});

test.run();
