import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseRemotes } from "../../../lib/builder/pull.ts";
import { makeRepo, git } from "../../helpers/repos.ts";
import { gitIn } from "../../../lib/git/git.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { join } from "node:path";

test("remotes and upstreams are read as git tells them, whatever their names hold", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await git(dir, "remote", "add", "other/one.two", repo.bare);
  await git(dir, "branch", "dev/x.y", "--track", "origin/main");
  const keys = "^(remote|branch)\\.";
  const { stdout } = await gitIn(dir)`git config --null --get-regexp ${keys}`;
  const remotes = parseRemotes(stdout);
  assert.equal(remotes.names, ["origin", "other/one.two"]);
  const main = { remote: "origin", merge: "refs/heads/main" };
  assert.equal(remotes.upstream.get("main"), main);
  assert.equal(remotes.upstream.get("dev/x.y"), main);
});

test.run();
