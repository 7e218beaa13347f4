// hooks/post-receive in a real bare repository, with the real build behind it.
import { existsSync } from "node:fs";
import { chmod, copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, gitEnv, makeRepo, type TestRepo } from "../helpers/repos.ts";
import { runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

/** A bare repository with the hook, and the checkout it builds, which is not there yet. */
async function server(config: Record<string, string> = {}): Promise<{ repo: TestRepo; dir: string }> {
  const repo = await makeRepo({ name: "ada/site" });
  const hook = join(repo.bare, "hooks/post-receive");
  await copyFile(join(root, "hooks/post-receive"), hook);
  await chmod(hook, 0o755);
  const dir = join(tempDir(), "site");
  const settings = { dir, build: await program("build"), ...config };
  for (const [name, value] of Object.entries(settings)) await git(repo.bare, "config", `boatyard.${name}`, value);
  return { repo, dir };
}

/** One of our scripts as an executable file, as an npm install makes it. */
async function program(name: string): Promise<string> {
  const file = join(tempDir("bin-"), name);
  await writeFile(file, `#!/bin/sh\nexec ${scriptArgv(name).join(" ")} "$@"\n`, { mode: 0o755 });
  return file;
}

/** What the pusher sees. */
async function push(repo: TestRepo, ...refs: string[]): Promise<string> {
  const argv = ["git", "-C", repo.work, "push", "--force", "origin", ...refs];
  const { stderr } = await runCommand(argv, { env: gitEnv, expect: 0, timeout: 60_000 });
  return stderr.replace(/^remote: (.*?) *$/gm, "$1");
}

const makes = "stages: [pull, make]\ncommands: { make: 'echo made $HOOK_REPO $HOOK_EVENT $(cat a.txt)' }\n";

test("the first push clones and builds, the next one builds, and the pusher sees it", async () => {
  const { repo, dir } = await server();
  await repo.commit({ "a.txt": "one\n", "build.yml": makes });
  const first = await push(repo, "main");
  assert.match(first, new RegExp(`^post-receive: cloning .* to ${dir}$`, "m"));
  assert.match(first, /^make \| made ada\/site push one$/m);
  assert.match(first, /^make +ok/m);
  await repo.commit({ "a.txt": "two\n" });
  assert.match(await push(repo, "main"), /^make \| made ada\/site push two$/m);
  assert.match(await readFile(join(dir, "logs.txt"), "utf8"), /start event=push ref=main sha=\w{40} repo=ada\/site/);
});

test("other branches, deleted branches and tags are named and not built", async () => {
  const { repo, dir } = await server();
  await repo.commit({ "a.txt": "one\n" });
  await push(repo, "main");
  const log = await readFile(join(dir, "logs.txt"), "utf8");
  assert.match(await push(repo, "HEAD:refs/heads/dev"), /post-receive: dev is not built, only main is/);
  assert.match(await push(repo, ":refs/heads/dev"), /post-receive: branch dev was deleted: nothing to build/);
  await repo.git("tag", "v1");
  assert.match(await push(repo, "v1"), /post-receive: tag v1 is not released; to have tags released/);
  assert.is(await readFile(join(dir, "logs.txt"), "utf8"), log);
});

test("a tag is released where that is wished", async () => {
  const { repo } = await server({ release: await program("release") });
  await repo.commit({ "a.txt": "one\n", "release.sh": "echo released $RELEASE_TAG $HOOK_EVENT\n" });
  await push(repo, "main");
  await repo.git("tag", "v1");
  assert.match(await push(repo, "v1"), /^release.sh \| released v1 release$/m);
});

test("a build that fails is told, and the push stands", async () => {
  const { repo, dir } = await server();
  const sha = await repo.commit({
    "build.yml": "stages: [pull, make]\ncommands: { make: exit 4 }\n",
  });
  const seen = await push(repo, "main");
  assert.match(
    seen,
    new RegExp(
      `post-receive: build of main FAILED: make: exit code 4; the push itself is stored, so git push exits 0; see ${dir}/logs.txt`,
    ),
  );
  assert.is(await git(repo.bare, "rev-parse", "main"), sha);
  // of a build that cannot begin the reason is not that of the one before
  await git(repo.bare, "config", "boatyard.build", "no-such-build");
  await repo.commit({ "a.txt": "two\n" });
  assert.match(await push(repo, "main"), "post-receive: build of main FAILED: exit code 1; the push itself");
});

test("what is missing is named: the checkout's folder, the script", async () => {
  const { repo } = await server();
  await git(repo.bare, "config", "--unset", "boatyard.dir");
  await repo.commit({ "a.txt": "one\n" });
  assert.match(await push(repo, "main"), /post-receive: no checkout is named; run: git -C \S+ config boatyard.dir DIR/);
  await git(repo.bare, "config", "boatyard.dir", join(tempDir(), "site"));
  await git(repo.bare, "config", "boatyard.build", "no-such-build");
  await repo.commit({ "a.txt": "two\n" });
  assert.match(await push(repo, "main"), /post-receive: no-such-build is not on PATH; name it/);
});

test("a pusher who hangs up does not end the build", async () => {
  const { repo, dir } = await server();
  const go = join(tempDir(), "go");
  await repo.commit({
    "build.yml": `stages: [pull, make]\ncommands: { make: 'touch begun; while ! test -e ${go}; do sleep 0.02; done; touch made' }\n`,
  });
  const pusher = startCommand(["setsid", "git", "-C", repo.work, "push", "origin", "main"], {
    env: gitEnv,
  });
  await waitFor(() => existsSync(join(dir, "begun")));
  // the whole foreground group, as Ctrl-C does
  process.kill(-pusher.pid, "SIGINT");
  await writeFile(go, "");
  await waitFor(() => existsSync(join(dir, "made")));
  await waitFor(async () => /run \| end result=ok/.test(await readFile(join(dir, "logs.txt"), "utf8")));
  await pusher.exited;
});

test("the hook is a clean POSIX shell script", async () => {
  const found = await runCommand(["sh", "-c", "command -v shellcheck || true"]);
  if (found.stdout === "") return console.log("SKIP shellcheck: it is not installed");
  await runCommand(["shellcheck", join(root, "hooks/post-receive")], { expect: 0 });
});

test.run();
