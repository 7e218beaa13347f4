import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { currentBranch, excludeFromGit, findCheckout, stateFolder } from "../../../lib/git/checkout.ts";
import { git, makeRepo } from "../../helpers/repos.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("a worktree's git folder is found, and what all worktrees share", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const tree = join(tempDir(), "tree");
  await git(repo.work, "worktree", "add", "--quiet", "-b", "side", tree);
  const checkout = await findCheckout(tree);
  assert.ok(checkout);
  assert.is(checkout.commonDir, join(repo.work, ".git"));
  assert.is(await stateFolder(tree), join(checkout.gitDir, "boatyard"));
  assert.is(await stateFolder(repo.work), join(repo.work, ".git/boatyard"));
  assert.is(await currentBranch(checkout), "side");
  await git(tree, "checkout", "--quiet", "--detach");
  assert.is(await currentBranch(checkout), undefined);
  const folder = tempDir();
  assert.is(await findCheckout(folder), undefined);
  assert.is(await stateFolder(folder), join(folder, ".boatyard"));
});

test("files are excluded from git in this clone alone, and once", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const checkout = await findCheckout(repo.work);
  assert.ok(checkout);
  await excludeFromGit(checkout, ["/logs.txt"]);
  await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
  const text = await readFile(join(repo.work, ".git/info/exclude"), "utf8");
  assert.is(text.match(/^\/logs\.txt$/gm)?.length, 1);
  assert.match(text, /\n\/logs\.txt\.\*\n$/);
});

test.run();
