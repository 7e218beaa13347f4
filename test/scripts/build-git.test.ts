// What `build` makes of everything that can happen to a git checkout.
import { existsSync } from "node:fs";
import { readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Built, buildHere } from "../helpers/build.ts";
import { git, makeRepo, type TestRepo, writeFiles } from "../helpers/repos.ts";
import { runCommand, scriptArgv } from "../helpers/run.ts";
import { signWith, sshSigner } from "../helpers/signers.ts";
import { needsCommand, needsRoot, testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { tempDir } from "../helpers/tmp.ts";
import { withUser } from "../helpers/users.ts";

/** A build with the flags of the command line; `expect` is its exit code. */
async function build(dir: string, args: string[] = [], expect = 0): Promise<Built> {
  const result = await buildHere(dir, args);
  assert.is(result.code, expect, `exit code ${result.code}: ${result.text}`);
  return result;
}

async function site(files: Record<string, string> = { "a.txt": "1\n" }): Promise<{ repo: TestRepo; dir: string }> {
  const repo = await makeRepo({ files });
  return { repo, dir: await repo.checkout(join(tempDir(), "site")) };
}

const head = (dir: string) => git(dir, "rev-parse", "HEAD");
/** The stash that a build's lines name. */
const stashOf = (text: string) => /kept in a stash \(git stash apply (\w+) brings it back\)/.exec(text)?.[1] ?? "";
const read = (dir: string, name: string) => readFile(join(dir, name), "utf8");

test("a push brings the checkout to the pushed commit and leaves its status clean", async () => {
  const { repo, dir } = await site();
  const sha = await repo.push({ "a.txt": "2\n", "b/c.txt": "new\n" });
  const { text } = await build(dir);
  assert.is(await head(dir), sha);
  assert.is(await read(dir, "b/c.txt"), "new\n");
  assert.is(await git(dir, "status", "--porcelain"), "");
  assert.match(text, new RegExp(`pull +ok .* main at ${sha.slice(0, 10)}`));
  assert.match(text, /^skipped: .*\binstall\b/m);
  assert.match(await read(dir, "logs.txt"), /run \| end result=ok code=0/);
});

test("nothing new is said, and costs no stage", async () => {
  const { dir } = await site();
  const { text } = await build(dir);
  assert.match(text, /pull +ok .* already at/);
});

test("an older commit that was pushed is built exactly, though the branch has moved on", async () => {
  const { repo, dir } = await site();
  const older = await repo.push({ "a.txt": "2\n" });
  await repo.push({ "a.txt": "3\n" });
  const result = await build(dir, ["--ref", "refs/heads/main", "--sha", older]);
  assert.is(await head(dir), older);
  assert.match(result.text, /is asked for; main is at \w+ by now/);
  await build(dir, ["--ref", "main", "--sha", older.slice(0, 12)]);
  assert.is(await head(dir), older);
  await build(dir);
  assert.is(await read(dir, "a.txt"), "3\n");
});

test("a force-push is followed, and the history that was left is named", async () => {
  const { repo, dir } = await site();
  const old = await repo.push({ "a.txt": "2\n" });
  await build(dir);
  await repo.git("reset", "--quiet", "--hard", "HEAD~1");
  const sha = await repo.push({ "a.txt": "rewritten\n" });
  const result = await build(dir);
  assert.is(await head(dir), sha);
  assert.match(result.text, new RegExp(`force-push.*${old.slice(0, 10)}`));
});

testUnless(test, needsCommand("ssh-keygen"))(
  "with --signers only a commit that one of them signed is built, and none that is older than the present one",
  async () => {
    const { repo, dir } = await site();
    const [{ key, signers }, stranger] = [await sshSigner(), await sshSigner()];
    await repo.push({ "a.txt": "unsigned\n" });
    const before = await head(dir);
    const refused = await build(dir, ["--signers", signers], 4);
    assert.match(refused.text, /commit \w{40} is not signed by a key of .*signers \(it is not signed\)/);
    await signWith(repo, "ssh", stranger.key);
    await repo.push({ "a.txt": "a stranger's\n" });
    await build(dir, ["--signers", signers], 4);
    assert.is(await head(dir), before, "what stood there stays");
    await signWith(repo, "ssh", key);
    const good = await repo.push({ "a.txt": "signed\n" });
    await build(dir, ["--signers", signers]);
    assert.is(await head(dir), good);
    const newer = await repo.push({ "a.txt": "newer\n" });
    await build(dir, ["--signers", signers]);
    const back = await build(dir, ["--signers", signers, "--ref", "main", "--sha", good], 4);
    assert.match(back.text, "has not the present one in its history");
    assert.is(await head(dir), newer);
    await build(dir, ["--signers", signers, "--ref", "main", "--sha", good, "--allow-back"]);
    assert.is(await head(dir), good);
    await repo.git("checkout", "-qb", "feature/x");
    await signWith(repo, "ssh", stranger.key);
    await repo.push({ "a.txt": "apart\n" }, { branch: "feature/x" });
    await build(dir, ["--signers", signers, "--apart", "--ref", "feature/x"], 4);
  },
);

test("a commit that was force-pushed away fails with words and leaves the checkout as it was", async () => {
  const { dir } = await site();
  const before = await head(dir);
  const result = await build(dir, ["--sha", "1".repeat(40)], 1);
  assert.match(result.text, /commit 1111111111 is not on origin any more/);
  assert.is(await head(dir), before);
});

test("another branch is built when it is asked for, and the checkout follows it from then on", async () => {
  const { repo, dir } = await site();
  const sha = await repo.push({ "a.txt": "dev\n" }, { branch: "dev" });
  await build(dir);
  assert.is(await read(dir, "a.txt"), "1\n");
  await build(dir, ["--ref", "dev"]);
  assert.is(await head(dir), sha);
  assert.is(await git(dir, "symbolic-ref", "--short", "HEAD"), "dev");
  const next = await repo.push({ "a.txt": "dev 2\n" }, { branch: "dev" });
  await build(dir);
  assert.is(await head(dir), next);
});

test("--apart builds a branch or a commit of it in a worktree, which goes again, without uploads; the checkout stays", async () => {
  const { repo, dir } = await site({
    "a.txt": "1\n",
    "build.yml": "stages: [pull, say, uploads]\ncommands: { say: 'echo here $(cat a.txt) $PWD' }\n",
  });
  const before = await head(dir);
  await repo.git("checkout", "-qb", "feature");
  const first = await repo.push({ "a.txt": "2\n" }, { branch: "feature" });
  await repo.push({ "a.txt": "3\n" }, { branch: "feature" });
  const { text } = await build(dir, ["--apart", "--ref", "feature", "--sha", first]);
  assert.match(text, /say \| here 2 /);
  assert.not.match(text, `here 2 ${dir}\n`);
  assert.not.match(text, "uploads");
  assert.match(text, new RegExp(`pull +ok .*feature at ${first.slice(0, 10)}, in a worktree of its own`));
  assert.is(await head(dir), before);
  assert.is(await git(dir, "rev-parse", "--abbrev-ref", "HEAD"), "main");
  assert.match(await read(dir, "logs.txt"), "say | here 2 ");
  assert.equal(await readdir(join(dir, "..")), ["site"], "nothing is left beside it");
  await repo.push({ "build.yml": "stages: [say]\ncommands: { say: 'exit 4' }\n" }, { branch: "feature" });
  const failed = await build(dir, ["--apart", "--ref", "refs/heads/feature"], 1);
  assert.match(failed.text, /build +failed .*the build failed in say/);
  assert.equal(await readdir(join(dir, "..")), ["site"]);
  for (const flag of [["--dry-run"], ["--only", "say"], ["--check"]])
    assert.match((await build(dir, ["--apart", "--ref", "main", ...flag], 2)).text, `leave ${flag[0]} out`);
  assert.equal(await readdir(join(dir, "..")), ["site"]);
  assert.match((await build(dir, ["--apart"], 2)).text, "--apart: which branch or tag? name it with --ref");
});

test("a tag is built at its commit; afterwards a branch has to be named", async () => {
  const { repo, dir } = await site();
  const sha = await repo.tag("v1", "annotated");
  await repo.push({ "a.txt": "2\n" });
  await build(dir, ["--ref", "refs/tags/v1"]);
  assert.is(await head(dir), sha);
  const result = await build(dir, [], 2);
  assert.match(result.text, /is not on a branch .*--ref/);
  await build(dir, ["--ref", "main"]);
  assert.is(await read(dir, "a.txt"), "2\n");
});

test("a branch that was deleted is nothing to build, and is no failure", async () => {
  const { dir } = await site();
  const before = await head(dir);
  const { text } = await build(dir, ["--ref", "refs/heads/old", "--sha", "0".repeat(40)]);
  assert.match(text, /old was deleted: nothing to build/);
  assert.match(text, /install +skipped/);
  assert.is(await head(dir), before);
});

test("a branch that is gone from the remote fails, and says so", async () => {
  const { repo, dir } = await site();
  await repo.git("push", "--quiet", "origin", "HEAD:refs/heads/other");
  await git(repo.bare, "symbolic-ref", "HEAD", "refs/heads/other");
  await repo.git("push", "--quiet", "origin", ":refs/heads/main");
  const result = await build(dir, [], 1);
  assert.match(result.text, /main is not on origin \(deleted or renamed\?\)/);
});

test("an empty repository is nothing to build; its first push is built", async () => {
  const repo = await makeRepo();
  const dir = await repo.checkout(join(tempDir(), "site"));
  const { text } = await build(dir);
  assert.match(text, /origin is empty: nothing to build until the first push/);
  const sha = await repo.push({ "a.txt": "first\n" });
  await writeFile(join(dir, "a.txt"), "somebody's own\n");
  // as with an account that useradd made: it has no full name, which git takes for the committer's
  await git(dir, "config", "user.useConfigOnly", "true");
  const result = await build(dir);
  assert.is(await head(dir), sha);
  assert.is(await read(dir, "a.txt"), "first\n");
  assert.match(result.text, /not tracked, but in the way of new files: a.txt/);
});

test("a remote that is gone fails with git's words and leaves the checkout as it was", async () => {
  const { repo, dir } = await site();
  await rm(repo.bare, { recursive: true });
  const result = await build(dir, [], 1);
  assert.match(result.text, /cannot fetch from origin: fatal: .*the checkout stays as it was/);
  assert.is(await read(dir, "a.txt"), "1\n");
  assert.match(await read(dir, "logs.txt"), /run \| end result=failed code=1/);
});

test("changes to tracked files are kept in a stash", async () => {
  const { repo, dir } = await site();
  await writeFile(join(dir, "a.txt"), "edited on the server\n");
  await writeFiles(dir, { "staged.txt": "staged\n", "untracked.txt": "untracked\n" });
  await git(dir, "add", "staged.txt");
  const sha = await repo.push({ "b.txt": "b\n" });
  const result = await build(dir);
  assert.is(await head(dir), sha);
  assert.is(await read(dir, "a.txt"), "1\n");
  assert.is(await read(dir, "untracked.txt"), "untracked\n");
  await git(dir, "stash", "apply", stashOf(result.text));
  assert.is(await read(dir, "a.txt"), "edited on the server\n");
  assert.is(await read(dir, "staged.txt"), "staged\n");
});

test("a build that dirties the same tracked file each time leaves one stash, not one a run", async () => {
  const repo = await makeRepo({
    files: {
      "out.txt": "0\n",
      "build.yml": "stages: [pull, make]\ncommands: { make: echo built > out.txt }\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  for (let run = 0; run < 3; run++) await build(dir);
  assert.is((await git(dir, "stash", "list")).split("\n").length, 1);
  assert.is(await read(dir, "out.txt"), "built\n");
});

test("untracked files in the way of new ones are kept in a stash, folders and all", async () => {
  const { repo, dir } = await site();
  await writeFiles(dir, {
    "new.txt": "mine\n",
    "folder/deep.txt": "mine too\n",
    d: "file\n",
  });
  await repo.push({
    "new.txt": "theirs\n",
    folder: "now a file\n",
    "d/e.txt": "e\n",
  });
  const result = await build(dir);
  assert.is(await read(dir, "new.txt"), "theirs\n");
  assert.is(await read(dir, "folder"), "now a file\n");
  assert.is(await read(dir, "d/e.txt"), "e\n");
  const kept = (path: string) => git(dir, "show", `${stashOf(result.text)}^3:${path}`);
  assert.is(await kept("new.txt"), "mine");
  assert.is(await kept("folder/deep.txt"), "mine too");
  assert.is(await kept("d"), "file");
});

test("commits made in the checkout get a ref of their own before the pull", async () => {
  const { repo, dir } = await site();
  await writeFile(join(dir, "local.txt"), "local\n");
  await git(dir, "add", "local.txt");
  await git(dir, "commit", "--quiet", "-m", "On the server");
  const own = await head(dir);
  const sha = await repo.push({ "a.txt": "2\n" });
  const result = await build(dir);
  assert.is(await head(dir), sha);
  const ref = /kept as (refs\/\S+)/.exec(result.text)?.[1] ?? "";
  assert.is(await git(dir, "rev-parse", ref), own);
});

test("submodules come with the commit, and follow an address that changed", async () => {
  const part = await makeRepo({ name: "part", files: { "p.txt": "1\n" } });
  const { repo, dir } = await site();
  await repo.addSubmodule(part.bare, "lib/part");
  const result = await build(dir);
  assert.is(await read(dir, "lib/part/p.txt"), "1\n");
  assert.match(result.text, /, submodules/);
  await writeFile(join(dir, "lib/part/p.txt"), "edited\n");
  await build(dir);
  assert.is(await read(dir, "lib/part/p.txt"), "1\n");
  assert.match(await git(join(dir, "lib/part"), "stash", "show", "-p"), /\+edited/);
  const moved = await makeRepo({ name: "moved", files: { "p.txt": "elsewhere\n" } });
  await repo.git("config", "--file", ".gitmodules", "submodule.lib/part.url", moved.bare);
  await repo.git("-C", "lib/part", "fetch", "--quiet", moved.bare);
  await repo.git("-C", "lib/part", "checkout", "--quiet", "FETCH_HEAD");
  await repo.push({}, { message: "Move the part" });
  await build(dir);
  assert.is(await read(dir, "lib/part/p.txt"), "elsewhere\n");
});

test("changes in two submodules of similar names are kept both", async () => {
  const part = await makeRepo({ name: "part", files: { "p.txt": "1\n" } });
  const { repo, dir } = await site();
  for (const path of ["lib/part", "lib-part"]) await repo.addSubmodule(part.bare, path);
  await build(dir);
  await writeFiles(dir, { "lib/part/p.txt": "one\n", "lib-part/p.txt": "other\n" });
  await build(dir);
  for (const [path, line] of [
    ["lib/part", /\+one/],
    ["lib-part", /\+other/],
  ] as const)
    assert.match(await git(join(dir, path), "stash", "show", "-p"), line);
});

test("a changed file that git was told to forget is kept", async () => {
  const { dir } = await site();
  await writeFile(join(dir, "a.txt"), "edited on the server\n");
  await git(dir, "rm", "--quiet", "--cached", "a.txt");
  const result = await build(dir);
  assert.is(await git(dir, "show", `${stashOf(result.text)}:a.txt`), "edited on the server");
  assert.is(await read(dir, "a.txt"), "1\n");
});

test("lock files of a killed git do not stop the build", async () => {
  const { repo, dir } = await site();
  await writeFiles(dir, {
    ".git/index.lock": "",
    ".git/refs/heads/main.lock": "",
    ".git/refs/remotes/origin/main.lock": "",
  });
  const sha = await repo.push({ "a.txt": "2\n" });
  const result = await build(dir);
  assert.is(await head(dir), sha);
  assert.match(result.text, /removed .*index\.lock/);
});

test("--if-changed builds a new commit once, leaves no trace when there is none, and tries a failed one again", async () => {
  const repo = await makeRepo({
    files: {
      "build.yml": "stages: [pull, make]\ncommands: { make: 'echo x >> made; test ! -e fail' }\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  const made = async () => (await read(dir, "made")).length / 2;
  await build(dir, ["--if-changed"]);
  assert.is(await made(), 1);
  const log = await read(dir, "logs.txt");
  const silent = await build(dir, ["--if-changed", "--quiet"]);
  assert.is(silent.text, "");
  assert.is(await made(), 1);
  assert.is(await read(dir, "logs.txt"), log);
  const noted = await build(dir, ["--if-changed"]);
  assert.match(noted.text, /nothing new since/);
  await writeFile(join(dir, "fail"), "");
  await repo.push({ "b.txt": "b\n" });
  await build(dir, ["--if-changed"], 1);
  await build(dir, ["--if-changed"], 1);
  assert.is(await made(), 3);
  await rm(join(dir, "fail"));
  await build(dir, ["--if-changed"]);
  await build(dir, ["--if-changed"]);
  assert.is(await made(), 4);
  await build(dir, ["--if-changed", "--force"]);
  assert.is(await made(), 5);
});

test("a checkout without a remote is built as it is", async () => {
  const { dir } = await site();
  await git(dir, "remote", "remove", "origin");
  const { text } = await build(dir);
  assert.match(text, /pull +skipped +the checkout has no remote/);
});

test("a tracked logs.txt is refused with the way out", async () => {
  const { repo, dir } = await site();
  await repo.push({ "logs.txt": "old\n" });
  const result = await build(dir, [], 1);
  assert.match(result.text, /logs.txt is tracked by git.*git rm --cached logs.txt/);
});

test("names that are not refs or commits are refused before anything is touched", async () => {
  const { dir } = await site();
  for (const ref of ["--upload-pack=touch x", "a..b", "a b", "$(touch x)", "refs/heads/../x"]) {
    const result = await build(dir, [`--ref=${ref}`], 2);
    assert.match(result.text, /is not a name of a branch or tag/);
  }
  const result = await build(dir, ["--sha", "HEAD; touch x"], 2);
  assert.match(result.text, /is not a commit/);
  assert.not(existsSync(join(dir, "logs.txt")));
});

test("a folder that is not a checkout is built with --skip pull, and refused without", async () => {
  const dir = tempDir();
  await writeFile(join(dir, "build.yml"), "stages: [pull, make]\ncommands: { make: pwd }\n");
  const refused = await build(dir, [], 2);
  assert.match(refused.text, /is not a git checkout; clone the repository there, or use --skip pull/);
  const { text } = await build(dir, ["--skip", "pull"]);
  assert.match(text, new RegExp(`make \\| ${dir}`));
  const nowhere = await build(join(dir, "nowhere"), [], 2);
  assert.match(nowhere.text, /there is no folder/);
  const file = await build(join(dir, "build.yml"), [], 2);
  assert.match(file.text, /build\.yml is a file; name the folder of a checkout/);
});

test("a password in the remote's address shows nowhere", async () => {
  const { dir } = await site();
  await git(dir, "remote", "set-url", "origin", "http://me:hunter2secret@127.0.0.1:9/site.git");
  const result = await build(dir, [], 1);
  assert.not.match(result.text + (await read(dir, "logs.txt")), /hunter2secret/);
});

const hasLfs = await runCommand(["git", "lfs", "version"]).then(({ code }) => code === 0);
testUnless(test, hasLfs ? undefined : "needs git-lfs")(
  "files in Git LFS come with the commit, also where git has not heard of LFS before",
  async () => {
    const { repo, dir } = await site();
    await repo.git("lfs", "install", "--local");
    await repo.git("lfs", "track", "*.bin");
    await repo.push({ "x.bin": "large\n" });
    const { text } = await build(dir);
    assert.match(text, /, LFS files/);
    assert.is(await read(dir, "x.bin"), "large\n");
    assert.is(await git(dir, "status", "--porcelain"), "");
  },
);

testUnless(test, needsStrace)(
  "git does not look for the host's own name: where that does not resolve it would wait for 20 s",
  async () => {
    const repo = await makeRepo({ files: { "a.txt": "a\n" } });
    const dir = await repo.checkout(join(tempDir(), "site"));
    await repo.push({ "a.txt": "b\n" });
    const file = join(tempDir(), "calls");
    const looks = ["/etc/hosts", "/etc/resolv.conf"].flatMap((path) => ["-P", path]);
    await runCommand(
      [...["strace", "-f", "-qq", "-e", "signal=none", "-o", file, ...looks], ...scriptArgv("build"), dir],
      {
        env: { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" },
        expect: 0,
        timeout: 60_000,
      },
    );
    assert.is(await readFile(join(dir, "a.txt"), "utf8"), "b\n");
    assert.is(await readFile(file, "utf8"), "");
  },
);

test("a repository with Git LFS on a server without it is not built on pointers", async () => {
  const { repo, dir } = await site();
  const before = await head(dir);
  await repo.push({ ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n" });
  const bin = tempDir();
  for (const name of ["git", "flock", "sh", "git-upload-pack"]) {
    const { stdout } = await runCommand(["sh", "-c", `command -v ${name}`], { expect: 0 });
    await symlink(stdout.trim(), join(bin, name));
  }
  const path = process.env["PATH"];
  process.env["PATH"] = bin;
  const { text } = await build(dir, [], 1).finally(() => {
    process.env["PATH"] = path;
  });
  assert.match(text, /keeps files in Git LFS, but git-lfs is not installed/);
  assert.is(await head(dir), before);
});

testUnless(test, needsRoot)("root does not build what another user owns", async () => {
  await withUser(async (user) => {
    const { repo, dir } = await site();
    const sha = await repo.push({ "a.txt": "2\n" });
    await runCommand(["chown", "-R", user.name, dir], { expect: 0 });
    const { text } = await build(dir, [], 4);
    assert.match(text, /belongs to another user, whose code a build would run/);
    assert.is.not(
      (await runCommand(["git", "-C", dir, "-c", `safe.directory=${dir}`, "rev-parse", "HEAD"])).stdout.trim(),
      sha,
    );
  });
});

test.run();
