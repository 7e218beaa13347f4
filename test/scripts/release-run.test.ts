// `release` on a tag: a worktree of its own, the build there, release.sh, and nothing left behind.
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { killProcessesOf, processesOf } from "../helpers/leftovers.ts";
import { type Files, git, makeRepo, type TestRepo, writeFiles } from "../helpers/repos.ts";
import { runCommand, type RunOptions, runScript, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

const release = (args: string[], options: RunOptions = {}) =>
  runScript("release", args, { ...options, env: { ...env, ...options.env } });

const releaseScript = `#!/bin/sh
echo "$RELEASE_TAG $RELEASE_NAME $RELEASE_SHA $RELEASE_PRERELEASE [$RELEASE_URL] $HOOK_EVENT" > "$OUT/said"
cp built "$OUT/built"
pwd > "$OUT/pwd"
git status --porcelain > "$OUT/status"
`;

/** A repo whose build writes \`built\` and whose release.sh tells what it was given in OUT. */
async function site(more: Files = {}): Promise<{ repo: TestRepo; dir: string; out: string }> {
  const out = tempDir("out-");
  const files = {
    "build.yml": "stages: [pull, make, uploads]\ncommands: { make: 'cat a.txt > built' }\n",
    ".gitignore": "built\n",
    "a.txt": "one\n",
    "release.sh": releaseScript.replaceAll("$OUT", out),
    ...more,
  };
  const repo = await makeRepo();
  await writeFiles(repo.work, files);
  await chmod(join(repo.work, "release.sh"), 0o755);
  await repo.push({}, { message: "First" });
  return { repo, dir: await repo.checkout(join(tempDir(), "site")), out };
}

const read = (dir: string, name: string) => readFile(join(dir, name), "utf8");

test("a tag is built and released apart from the checkout, which is not disturbed", async () => {
  const { repo, dir, out } = await site();
  const sha = await repo.tag("v1.2.3", "annotated");
  await repo.push({ "a.txt": "two\n" });
  await git(dir, "pull", "--quiet");
  await writeFile(join(dir, "a.txt"), "dirty\n");
  const { stdout } = await release([dir, "--tag", "v1.2.3"], {
    expect: 0,
    env: {
      RELEASE_NAME: "Soda",
      RELEASE_PRERELEASE: "true",
      RELEASE_URL: "https://example.com/v1",
      HOOK_EVENT: "release",
    },
  });
  assert.is(await read(out, "said"), `v1.2.3 Soda ${sha} true [https://example.com/v1] release\n`);
  assert.is(await read(out, "built"), "one\n");
  assert.is(await read(out, "status"), "");
  assert.is(await read(dir, "a.txt"), "dirty\n");
  assert.match(stdout, /checkout +ok .* v1.2.3 at \w{10}\nbuild +ok .*\nrelease.sh +ok/);
  assert.equal((await readdir(join(dir, ".."))).sort(), ["site"]);
  assert.is((await git(dir, "worktree", "list")).split("\n").length, 1);
  const log = await read(dir, "logs.txt");
  assert.match(log, /run \| start event=release ref="tag v1.2.3"/);
  assert.match(log, /run \| stage name=release.sh result=ok/);
  assert.is(log.match(/ run \| start /g)?.length, 1);
});

test("a tag that moved is built where it is now, and the event's other commit is named", async () => {
  const { repo, dir, out } = await site();
  const old = await repo.tag("v1");
  await release([dir, "--tag", "v1"], { expect: 0 });
  await repo.push({ "a.txt": "moved\n" });
  const sha = await repo.tag("v1");
  const { stderr } = await release([dir, "--tag", "v1", "--sha", old], { expect: 0 });
  assert.match(stderr, new RegExp(`named commit ${old.slice(0, 10)}, but tag v1 is at ${sha.slice(0, 10)}`));
  assert.is(await read(out, "built"), "moved\n");
});

test("a tag that is nowhere fails with words, and names that are no tags are refused", async () => {
  const { dir, out } = await site();
  const none = await release([dir, "--tag", "v9"], { expect: 1 });
  assert.match(none.stdout, /there is no tag v9 on origin; push it/);
  for (const tag of ["-x", "a b", "../x", "$(touch x)"]) {
    const { stderr } = await release([dir, `--tag=${tag}`], { expect: 2 });
    assert.match(stderr, /is not the name of a tag/);
  }
  assert.match((await release([dir], { expect: 2 })).stderr, /which release\? name its tag with --tag/);
  assert.equal(await readdir(out), []);
});

test("a build that fails releases nothing; a release.sh that fails is exit 1; both leave nothing behind", async () => {
  const { repo, dir, out } = await site({
    "build.yml": "stages: [make]\ncommands: { make: 'echo broken; false' }\n",
  });
  await repo.tag("v1");
  const { stdout, stderr } = await release([dir, "--tag", "v1"], { expect: 1 });
  assert.match(stderr, /make \| broken/);
  assert.match(stdout, /build +failed .*the build failed in make/);
  assert.not(existsSync(join(out, "said")));
  await repo.push({ "build.yml": null, "release.sh": "exit 5\n" });
  await repo.tag("v2");
  const second = await release([dir, "--tag", "v2", "--json"], { expect: 1 });
  const result = JSON.parse(second.stdout);
  assert.is(result.stages.at(-1).stage, "release.sh");
  assert.match(result.stages.at(-1).note, /exit code 5/);
  assert.equal((await readdir(join(dir, ".."))).sort(), ["site"]);
});

test("a release waits for a build of the checkout with --wait, and is exit 3 without", async () => {
  const [begun, go] = [join(tempDir(), "begun"), join(tempDir(), "go")];
  const { repo, dir, out } = await site({
    "build.yml": `stages: [make]\ncommands: { make: 'touch ${begun}; test -n "$RELEASE_TAG" || while ! test -e ${go}; do sleep 0.1; done; cat a.txt > built' }\n`,
  });
  await repo.tag("v1");
  const building = startScript("build", [dir], { env });
  await waitFor(() => existsSync(begun));
  const busy = await release([dir, "--tag", "v1"], { expect: 3 });
  assert.match(busy.stderr, /build.lock is locked by process \d+ \(build /);
  const waiting = startScript("release", [dir, "--tag", "v1", "--wait"], { env });
  await waitFor(async () => (await processesOf(dir)).some(({ command }) => command.includes("--wait")));
  assert.not(existsSync(join(out, "said")));
  await writeFile(go, "");
  assert.is((await building.exited).code, 0);
  assert.is((await waiting.exited).code, 0);
  assert.match(await read(out, "said"), /^v1 v1 /);
  const marks = (await read(dir, "logs.txt")).match(/ run \| (?:start|end)/g);
  assert.equal(marks, [" run | start", " run | end", " run | start", " run | end"], "one after the other in one log");
});

const hasLfs = await runCommand(["git", "lfs", "version"]).then(({ code }) => code === 0);
testUnless(test, hasLfs ? undefined : "needs git-lfs")(
  "a tag is built with its submodules and files in Git LFS; one whose files are not to be had is not built",
  async () => {
    const { repo, dir, out } = await site();
    const part = await makeRepo({ name: "part", files: { "p.txt": "part\n" } });
    await repo.addSubmodule(part.bare, "lib/part");
    await repo.git("lfs", "install", "--local");
    await repo.git("lfs", "track", "*.bin");
    const copy = `cp lib/part/p.txt x.bin ${out}\n`;
    await repo.push({ "x.bin": "large\n", "release.sh": copy });
    await repo.tag("v1");
    await release([dir, "--tag", "v1"], { expect: 0 });
    assert.is(await read(out, "p.txt"), "part\n");
    assert.is(await read(out, "x.bin"), "large\n");
    await rm(join(out, "x.bin"));
    await repo.push({ "x.bin": "larger\n" });
    await rm(join(repo.bare, "lfs"), { recursive: true });
    await repo.tag("v2");
    const { stdout } = await release([dir, "--tag", "v2"], { expect: 1 });
    assert.match(stdout, /checkout +failed/);
    assert.not(existsSync(join(out, "x.bin")));
    assert.equal((await readdir(join(dir, ".."))).sort(), ["site"]);
  },
);

test("SIGTERM ends release.sh with its children and removes the worktree", async () => {
  const { repo, dir } = await site({
    "release.sh": "setsid sleep 1000 &\ntouch BEGUN\nwait\n".replace("BEGUN", join(tempDir(), "begun")),
  });
  await repo.tag("v1");
  const running = startScript("release", [dir, "--tag", "v1"], { env });
  const script = await read(repo.work, "release.sh");
  const begun = /touch (\S+)/.exec(script)?.[1] ?? "";
  await waitFor(() => existsSync(begun));
  const second = await release([dir, "--tag", "v1"], { expect: 3 });
  assert.match(second.stderr, /release v1, since/);
  assert.is((await running.stop("SIGTERM")).code, 143);
  const parent = join(dir, "..");
  assert.equal((await readdir(parent)).sort(), ["site"]);
  assert.equal(await processesOf(parent), []);
});

test("what a killed release left behind is cleared by the next one", async () => {
  const begun = join(tempDir(), "begun");
  const { repo, dir } = await site({
    "release.sh": `test -e ${begun} || { touch ${begun}; sleep 1000; }\n`,
  });
  await repo.tag("v1");
  const running = startScript("release", [dir, "--tag", "v1"], { env });
  await waitFor(() => existsSync(begun));
  running.kill("SIGKILL");
  await running.exited;
  const parent = join(dir, "..");
  await killProcessesOf(parent);
  assert.is((await readdir(parent)).length, 2);
  await release([dir, "--tag", "v1"], { expect: 0 });
  assert.equal((await readdir(parent)).sort(), ["site"]);
});

test.run();
