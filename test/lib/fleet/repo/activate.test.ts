import { randomBytes } from "node:crypto";
import {
  appendFile,
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { activate, rollBack } from "../../../../lib/fleet/repo/activate.ts";
import { type RepoSettings, settingsFor } from "../../../../lib/fleet/settings.ts";
import { gpgTests } from "../../../helpers/gpg.ts";
import { git, makeRepo, type TestRepo } from "../../../helpers/repos.ts";
import { runCommand } from "../../../helpers/run.ts";
import { needsCommand, needsRoot, testUnless } from "../../../helpers/skip.ts";
import { signWith, sshSigner } from "../../../helpers/signers.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { snapshot } from "../../../helpers/trees.ts";

const { gpgTest, home } = gpgTests();

/** A repo and a slave's empty folder for it. */
async function setUp() {
  const repo = await makeRepo({
    files: {
      "index.html": "one",
      "bin/run": "#!/bin/sh\n",
      "docs/a.txt": "a",
      "docs/b.txt": "b",
      ".gitignore": "*.log\n",
    },
  });
  await chmod(join(repo.work, "bin/run"), 0o755);
  await symlink("docs/a.txt", join(repo.work, "link"));
  await repo.push({});
  const repos = join(tempDir("slave-"), "repos");
  const flags = { repos, base: `file://${dirname(repo.bare)}` };
  const settings = settingsFor("site", { file: undefined, values: {}, where: () => "" }, flags);
  const notes: string[] = [];
  return {
    repo,
    repos,
    site: join(repos, "site"),
    notes,
    update: (more: Partial<RepoSettings> = {}, sha?: string, branch?: string, back?: boolean) =>
      activate("site", {
        settings: { ...settings, ...more },
        ...{ sha, branch, back, note: (line) => notes.push(line) },
      }),
    back: () => rollBack("site", { settings }),
  };
}

async function freshClone(repo: TestRepo): Promise<string> {
  const dir = join(tempDir(), "clone");
  await git("/", "clone", "--quiet", repo.url, dir);
  return dir;
}

/** The message of an attempt that must fail. */
async function failure(attempt: Promise<unknown>): Promise<string> {
  return await attempt.then(
    () => assert.unreachable("it did not fail") as never,
    (error: Error) => error.message,
  );
}

test("what stands there is a git clone that can be used", async () => {
  const { repo, update, site } = await setUp();
  for (let round = 0; round < 5; round++) {
    await repo.push({ "index.html": `round ${round}` });
    await update();
  }
  assert.is(await git(site, "status", "--porcelain"), "");
  assert.is(await git(site, "rev-parse", "HEAD"), await repo.git("rev-parse", "HEAD"));
  assert.is(await git(site, "rev-parse", "--abbrev-ref", "HEAD@{upstream}"), "origin/main");
  assert.is(await git(site, "remote", "get-url", "origin"), repo.url);
  assert.is(await git(site, "rev-list", "--count", "HEAD"), "1");
  await git(site, "fsck", "--full", "--strict");
  await repo.push({ "index.html": "pulled by hand" });
  await git(site, "pull", "--quiet");
  assert.is(await readFile(join(site, "index.html"), "utf8"), "pulled by hand");
});

test("nothing stale survives, whoever wrote into the folder", async () => {
  const { repo, update, site } = await setUp();
  for (let round = 0; round < 6; round++) {
    await update();
    await writeFile(join(site, "stray.txt"), "x");
    await writeFile(join(site, "ignored.log"), "x");
    await mkdir(join(site, "empty/nested"), { recursive: true });
    await writeFile(join(site, "docs/a.txt"), "A");
    await rm(join(site, "docs/b.txt"));
    await chmod(join(site, "bin/run"), 0o600);
    await chmod(join(site, "docs"), 0o700);
    await rm(join(site, "link"));
    await symlink("/etc/passwd", join(site, "link"));
    await git(site, "config", "core.fsmonitor", "touch /tmp/never");
    await git(site, "update-index", "--skip-worktree", "index.html");
    await appendFile(join(site, ".git/info/exclude"), "stray.txt\n");
    await git("/", "init", "--quiet", join(site, "nested-repo"));
    await repo.push({
      "index.html": `round ${round}`,
      [`new-${round}`]: "n",
      "docs/c/d": `${round}`,
    });
  }
  await update();
  assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
  assert.is(await git(site, "status", "--porcelain", "--ignored"), "");
});

test("files that become folders, folders that become files, and links over both", async () => {
  const { repo, update, site } = await setUp();
  const shapes: Record<string, string | null>[] = [
    { "docs/a.txt": null, "docs/b.txt": null, docs: "a file now", link: null },
    { docs: null, "docs/a.txt/deep": "a folder now" },
    { "docs/a.txt/deep": null, "docs/a.txt": "a file again" },
    { "Docs/a.txt": "another case" },
    { "ünï code/naïve 'quote\" file": "odd name" },
  ];
  await update();
  for (const shape of [...shapes, ...[{ "docs/a.txt": "end" }]]) {
    await repo.git("rm", "-r", "--quiet", "--cached", "--ignore-unmatch", ...Object.keys(shape));
    for (const path of Object.keys(shape)) await rm(join(repo.work, path), { recursive: true, force: true });
    const files = Object.fromEntries(Object.entries(shape).filter(([, text]) => text !== null));
    await repo.push(files);
    await update();
    assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
  }
});

test("nothing new changes nothing, and a folder that was written into is made anew", async () => {
  const { update, site } = await setUp();
  await update();
  const before = await readlink(site);
  const again = await update();
  assert.is(again.changed, false);
  assert.is(await readlink(site), before);
  await writeFile(join(site, "stray.txt"), "x");
  await update();
  assert.is.not(await readlink(site), before);
  assert.not.ok((await readdir(site)).includes("stray.txt"));
});

test("what somebody puts into a submodule's empty folder is seen, also without .gitmodules", async () => {
  const { repo, update, site } = await setUp();
  const head = await repo.git("rev-parse", "HEAD");
  await repo.git("update-index", "--add", "--cacheinfo", `160000,${head},part`);
  await repo.git("commit", "--quiet", "-m", "a link to a commit");
  await repo.git("push", "--quiet", "origin", "HEAD");
  await update();
  assert.equal(await readdir(join(site, "part")), []);
  assert.is((await update()).changed, false);
  await writeFile(join(site, "part/stray.txt"), "x");
  assert.is((await update()).changed, true);
  assert.equal(await readdir(join(site, "part")), []);
});

test("a branch, a tag, a commit, and back", async () => {
  const { repo, update, site } = await setUp();
  const first = await repo.git("rev-parse", "HEAD");
  await repo.tag("v1", "the first");
  const side = await repo.push({ "index.html": "side" }, { branch: "side" });
  const second = await repo.push({ "index.html": "two" });
  await update({ branch: "side" });
  assert.is(await git(site, "rev-parse", "HEAD"), side);
  assert.is(await git(site, "rev-parse", "--abbrev-ref", "HEAD"), "side");
  await update({ branch: "v1" });
  assert.is(await git(site, "rev-parse", "HEAD"), first);
  assert.is(await git(site, "rev-parse", "--abbrev-ref", "HEAD"), "HEAD");
  await update();
  assert.is(await git(site, "rev-parse", "HEAD"), second);
  await update({}, first);
  assert.is(await git(site, "rev-parse", "HEAD"), first);
  assert.is(await git(site, "rev-parse", "--abbrev-ref", "HEAD"), "main");
  const unknown = await failure(update({}, "1".repeat(40)));
  assert.match(unknown, /does not have commit 1111.*stays in place/);
  assert.is(await git(site, "rev-parse", "HEAD"), first);
});

test("depth: full brings all history, branches and tags", async () => {
  const { repo, update, site } = await setUp();
  await repo.tag("v1");
  await repo.push({ "index.html": "side" }, { branch: "side" });
  await repo.push({ "index.html": "two" });
  await update();
  for (const text of ["three", "four", "five", "six"]) {
    await repo.push({ "index.html": text });
    await update({ depth: 0, keep: 1 });
  }
  const clone = await freshClone(repo);
  for (const args of [["for-each-ref"], ["rev-list", "--all", "--count"], ["status"]]) {
    assert.is(await git(site, ...args), await git(clone, ...args).then((text) => text), args.join(" "));
  }
  await git(site, "fsck", "--full");
});

test("--keep older trees stay for --rollback, and no more", async () => {
  const { repo, repos, update, back, site } = await setUp();
  for (let round = 1; round <= 7; round++) {
    await repo.push({ "index.html": `${round}` });
    await update();
  }
  const trees = join(repos, ".boatyard/site/trees");
  // the served one, and two older ones
  assert.is((await readdir(trees)).length, 3);
  await back();
  assert.is(await readFile(join(site, "index.html"), "utf8"), "6");
  await back();
  assert.is(await readFile(join(site, "index.html"), "utf8"), "5");
  await update();
  assert.is(await readFile(join(site, "index.html"), "utf8"), "7");
});

testUnless(test, needsRoot)("an older tree that cannot be removed is named, and goes with a later update", async () => {
  const { repo, repos, update, notes } = await setUp();
  const { tree } = await update({ keep: 1 });
  const inside = join(tree, "docs");
  await runCommand(["mount", "-t", "tmpfs", "none", inside], { expect: 0 });
  const trees = () => readdir(join(repos, ".boatyard/site/trees"));
  try {
    for (const text of ["two", "three"]) {
      await repo.push({ "index.html": text });
      await update({ keep: 1 });
    }
    assert.match(notes.join("\n"), `the older tree ${tree} cannot be removed: EBUSY`);
    assert.is((await trees()).length, 3);
  } finally {
    await runCommand(["umount", inside], { expect: 0 });
  }
  await repo.push({ "index.html": "four" });
  await update({ keep: 1 });
  assert.is((await trees()).length, 2);
});

test("a rollback with nothing older says so", async () => {
  const { update, back, site } = await setUp();
  await update();
  const stderr = await failure(back());
  assert.match(stderr, /no older tree of site is kept/);
  assert.is(await readFile(join(site, "index.html"), "utf8"), "one");
});

test("a plain folder from the old way is taken over, and can be had back", async () => {
  const { repo, repos, update, back, site } = await setUp();
  await git("/", "clone", "--quiet", repo.url, site);
  await writeFile(join(site, "stray.txt"), "x");
  await update();
  assert.ok((await lstat(site)).isSymbolicLink());
  assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
  assert.equal((await readdir(repos)).sort(), [".boatyard", "site"]);
  await back();
  assert.is(await readFile(join(site, "stray.txt"), "utf8"), "x");
  for (let round = 0; round < 5; round++) {
    await repo.push({ "index.html": `${round}` });
    await update();
  }
  assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
});

test("a plain folder that a killed run took over is known, also when nothing is new", async () => {
  const { repos, update, back, site } = await setUp();
  await mkdir(site, { recursive: true });
  await writeFile(join(site, "old.txt"), "old");
  await update();
  const home = join(repos, ".boatyard/site");
  const state = JSON.parse(await readFile(join(home, "state.json"), "utf8"));
  // as it is when the end comes between the switch and the record
  state.trees = state.trees.filter(({ plain }: { plain?: boolean }) => !plain);
  await writeFile(join(home, "state.json"), JSON.stringify(state));
  await writeFile(join(home, "busy"), "1\n");
  assert.not.ok((await update()).changed);
  await back();
  assert.is(await readFile(join(site, "old.txt"), "utf8"), "old");
});

test("a link to elsewhere is replaced, what it led to stays; a file is not touched", async () => {
  const { repos, update, site } = await setUp();
  const elsewhere = tempDir();
  await writeFile(join(elsewhere, "mine"), "x");
  await mkdir(repos, { recursive: true });
  await symlink(elsewhere, site);
  await update();
  assert.is(await readFile(join(site, "index.html"), "utf8"), "one");
  assert.is(await readFile(join(elsewhere, "mine"), "utf8"), "x");
  await rm(site);
  await writeFile(site, "a file");
  const stderr = await failure(update());
  assert.match(stderr, /is a file; move it away/);
  assert.is(await readFile(site, "utf8"), "a file");
});

test("flipped bytes, a truncated pack, missing files and wrong words in the served tree are repaired", async () => {
  const { repo, repos, update, site } = await setUp();
  const home = join(repos, ".boatyard/site");
  const dir = join(site, ".git");
  const pack = (end?: string) => packOf(site, end);
  const damages: [string, () => Promise<void>][] = [
    ["five bytes", async () => await flip(await pack(), 5)],
    ["an index", async () => await flip(await pack(".idx"), 5)],
    ["a truncated pack", async () => await truncate(await pack(), 40)],
    ["an empty pack", async () => await truncate(await pack(), 0)],
    ["a missing index", async () => await rm(await pack(".idx"))],
    ["no objects", async () => await rm(join(dir, "objects"), { recursive: true })],
    ["a strange config", async () => await writeFile(join(dir, "config"), "[core")],
    ["no git folder", async () => await rm(dir, { recursive: true })],
    ["a strange shallow", async () => await writeFile(join(dir, "shallow"), "zzz\n")],
    ["a file in its place", async () => await rm(dir, { recursive: true }).then(() => writeFile(dir, "x"))],
    ["a lost state", async () => await rm(join(home, "state.json"))],
    ["a strange state", async () => await writeFile(join(home, "state.json"), "{")],
    [
      "an index of no use",
      async () => {
        const folder = join(home, "index");
        for (const name of await readdir(folder)) await writeFile(join(folder, name, "index"), "DIRC");
      },
    ],
  ];
  await update();
  for (const [index, [name, damage]] of damages.entries()) {
    // with and without something new, in turns
    await damage();
    if (index % 2 === 0) await repo.push({ "index.html": name });
    await update().catch((error) => assert.unreachable(`${name}: ${error}`));
    // without anything new the commit's files stand there, and its git folder is the readers' own
    if (index % 2 === 1) await repo.push({ "index.html": `${name}, later` });
    await update().catch((error) => assert.unreachable(`${name}: ${error}`));
    assert.equal(await snapshot(site), await snapshot(await freshClone(repo)), name);
    await git(site, "fsck", "--connectivity-only");
  }
});

test("what somebody puts into the served tree's git folder does not come into the next one", async () => {
  const { repo, update, site } = await setUp();
  await update();
  const dir = join(site, ".git");
  await writeFile(join(dir, "hooks/post-checkout"), "#!/bin/sh\n", { mode: 0o755 });
  await writeFile(join(dir, "objects/info/alternates"), "/tmp\n");
  await git(site, "update-ref", "refs/heads/evil", "HEAD");
  await repo.push({ "index.html": "two" });
  await update();
  assert.equal(await readdir(join(dir, "hooks")), []);
  assert.not.ok((await readdir(join(dir, "objects/info"))).includes("alternates"));
  assert.not.match(await git(site, "for-each-ref"), /evil|boatyard/);
});

test("an update moves only what is new, and each tree is whole on its own", async () => {
  const { repo, repos, update, site } = await setUp();
  await repo.push({ big: randomBytes(500_000) });
  const { tree } = await update();
  const [before] = await readdir(join(site, ".git/objects/pack"));
  await repo.push({ "index.html": "two" });
  await update();
  const pack = join(site, ".git/objects/pack", before ?? "");
  assert.is((await lstat(pack)).nlink, 2);
  await rm(tree, { recursive: true });
  await git(site, "fsck", "--full", "--strict");
  assert.equal((await readdir(join(repos, ".boatyard/site"))).sort(), ["index", "lock", "state.json", "trees"]);
});

/** A pack of a tree, or the file beside it. */
async function packOf(tree: string, end = ".pack"): Promise<string> {
  const folder = join(tree, ".git/objects/pack");
  const name = (await readdir(folder)).find((each) => each.endsWith(end)) ?? "";
  await chmod(join(folder, name), 0o644);
  return join(folder, name);
}

test("while a damaged pack cannot be fetched again, the old tree is served", async () => {
  const { repo, update, site, notes } = await setUp();
  await update();
  await truncate(await packOf(site), 40);
  const [before, files] = [await readlink(site), await readdir(site)];
  await rename(repo.bare, `${repo.bare}.away`);
  await repo.commit({ "index.html": "two" });
  assert.match(await failure(update()), /stays in place/);
  assert.equal([await readlink(site), await readdir(site)], [before, files]);
  assert.is(await readFile(join(site, "index.html"), "utf8"), "one");
  await rename(`${repo.bare}.away`, repo.bare);
  await repo.git("push", "--quiet", "origin", "HEAD");
  await update();
  assert.match(notes.join("\n"), "cannot be made with what the served one has");
  assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
  await git(site, "fsck", "--full");
});

async function flip(file: string, count: number): Promise<void> {
  const handle = await open(file, "r+");
  const { size } = await handle.stat();
  const at = Math.floor(size / 2);
  const bytes = new Uint8Array(count);
  await handle.read(bytes, 0, count, at);
  await handle.write(
    bytes.map((byte) => byte ^ 0xff),
    0,
    count,
    at,
  );
  await handle.close();
}

test("whatever is wrong with the remote, the old tree stays and the reason is told", async () => {
  const { update, site } = await setUp();
  await update();
  const good = await readlink(site);
  const empty = await makeRepo({});
  // its branch names a commit that it does not have
  const lying = await makeRepo({ files: { x: "x" } });
  await writeFile(join(lying.bare, "refs/heads/main"), `${"1".repeat(40)}\n`);
  const cases: [Partial<RepoSettings>, RegExp][] = [
    [{ base: `file://${dirname(empty.bare)}` }, /the repo is empty/],
    [{ base: "file:///nowhere" }, /does not appear to be a git repository|not found/],
    [{ base: "http://127.0.0.1:9" }, /127\.0\.0\.1.*(?:connect|refused)/i],
    [{ base: `file://${dirname(lying.bare)}` }, /./],
    [{ branch: "gone" }, /no branch or tag "gone"/],
  ];
  for (const [settings, reason] of cases) {
    const stderr = await failure(update(settings));
    assert.match(stderr, reason);
    assert.match(stderr, /stays in place/);
    assert.is(await readlink(site), good);
  }
  assert.is(await readFile(join(site, "index.html"), "utf8"), "one");
});

test("a tree that could not be put in place is removed", async () => {
  const { repo, repos, update, site } = await setUp();
  await update();
  const good = await readlink(site);
  await repo.push({ "index.html": "two" });
  const home = join(repos, ".boatyard/site");
  const state = join(home, "state.json");
  const before = await readFile(state, "utf8");
  // an attempt under which the state cannot be written, as on a full disk
  const check = `rm ${state} && mkdir -p ${state}/x`;
  assert.match(await failure(update({ check })), /state\.json.*stays in place/);
  assert.is(await readlink(site), good);
  assert.equal(await readdir(join(home, "trees")), [good.split("/").at(-1)]);
  assert.equal(await readdir(join(home, "index")), [good.split("/").at(-1)]);
  await rm(state, { recursive: true });
  await writeFile(state, before);
  await update();
  assert.is(await readFile(join(site, "index.html"), "utf8"), "two");
});

test("a tree that a program is in outlives its turn for a day, and then goes", async () => {
  const { repo, repos, update, site } = await setUp();
  await update();
  const held = await open(join(site, "index.html"));
  const id = (await readlink(site)).split("/").at(-1) ?? "";
  const trees = join(repos, ".boatyard/site/trees");
  try {
    for (const text of ["two", "three", "four", "five", "six"]) {
      await repo.push({ "index.html": text });
      await update({ keep: 1 });
    }
    assert.equal((await readdir(trees)).length, 3);
    assert.ok((await readdir(trees)).includes(id));
    const file = join(repos, ".boatyard/site/state.json");
    const state = JSON.parse(await readFile(file, "utf8")) as { trees: Record<string, string>[] };
    for (const tree of state.trees)
      if (tree["id"] === id) tree["left"] = new Date(Date.now() - 90_000_000).toISOString();
    await writeFile(file, JSON.stringify(state));
    await repo.push({ "index.html": "seven" });
    await update({ keep: 1 });
    assert.not.ok((await readdir(trees)).includes(id));
    assert.is(await held.readFile("utf8"), "one");
  } finally {
    await held.close();
  }
});

test("a pinned commit takes the branch that comes with it, also after the default branch changed", async () => {
  const { repo, update, site } = await setUp();
  await update();
  await repo.git("push", "--quiet", "origin", "HEAD:refs/heads/trunk");
  await git(repo.bare, "symbolic-ref", "HEAD", "refs/heads/trunk");
  await repo.git("push", "--quiet", "origin", "--delete", "main");
  const sha = await repo.git("rev-parse", "HEAD");
  const done = await update({}, sha, "trunk");
  assert.is(done.branch, "trunk");
  assert.is(await git(site, "rev-parse", "--abbrev-ref", "HEAD@{upstream}"), "origin/trunk");
});

test("check: decides before the switch; what it makes there stays", async () => {
  const { repo, repos, update, site } = await setUp();
  const gate = join(tempDir(), "bad");
  const check = `test -L "$SLAVE_DIR" && readlink "$SLAVE_DIR" > ${gate}.link; echo made > made.txt; test ! -e broken`;
  const first = await update({ check });
  assert.is(await readFile(join(site, "made.txt"), "utf8"), "made\n");
  assert.is((await update({ check })).changed, false);
  const bad = await repo.push({ broken: "x", "index.html": "two" });
  const before = await readlink(site);
  const words = await failure(update({ check }));
  assert.match(words, `check: `);
  assert.match(words, `commit ${bad} was not put in place; ${first.sha?.slice(0, 12)} stays`);
  assert.equal([await readlink(site), await readFile(`${gate}.link`, "utf8")], [before, `${before}\n`]);
  assert.is((await readdir(join(repos, ".boatyard/site/trees"))).length, 1);
  await repo.push({ broken: null, "index.html": "three" });
  const changing = await failure(update({ check: "echo x > index.html" }));
  assert.match(changing, "check: it changed files of the repo in the new tree");
  await update({ check });
  assert.is(await readFile(join(site, "index.html"), "utf8"), "three");
});

test("submodules: true fetches them, and a change in one is seen", async () => {
  const { repo, update, site } = await setUp();
  const part = await makeRepo({ name: "part", files: { "p.txt": "p" }, dir: dirname(repo.bare) });
  await repo.addSubmodule(part.url, "part");
  await update();
  assert.equal(await readdir(join(site, "part")), []);
  assert.is((await update({ submodules: true })).changed, true);
  assert.is(await readFile(join(site, "part/p.txt"), "utf8"), "p");
  assert.is(await git(site, "status", "--porcelain"), "");
  assert.is((await update({ submodules: true })).changed, false);
  await writeFile(join(site, "part/p.txt"), "q");
  assert.is((await update({ submodules: true })).changed, true);
  assert.is(await readFile(join(site, "part/p.txt"), "utf8"), "p");
  await part.push({ "p.txt": "p2" });
  await git(join(repo.work, "part"), "pull", "--quiet", "origin", "main");
  await repo.push({}, { message: "newer part" });
  await update({ submodules: true });
  assert.is(await readFile(join(site, "part/p.txt"), "utf8"), "p2");
  assert.is((await update()).changed, true, "without the setting they go");
  assert.equal(await readdir(join(site, "part")), []);
});

testUnless(test, needsCommand("git-lfs"))(
  "lfs: true brings the files in the place of pointers, and what is not needed goes",
  async () => {
    const { repo, repos, update, site } = await setUp();
    await repo.git("lfs", "install", "--local");
    await repo.git("lfs", "track", "*.bin");
    const first = "first ".repeat(1000);
    await repo.push({ "a.bin": first });
    await update();
    assert.match(await readFile(join(site, "a.bin"), "utf8"), /^version https:\/\/git-lfs/);
    assert.is((await update({ lfs: true })).changed, true);
    assert.is(await readFile(join(site, "a.bin"), "utf8"), first);
    assert.is((await update({ lfs: true })).changed, false);
    await writeFile(join(site, "a.bin"), "first ".repeat(999));
    assert.is((await update({ lfs: true })).changed, true);
    const second = "second ".repeat(1000);
    await repo.push({ "a.bin": second });
    await update({ lfs: true });
    assert.is(await readFile(join(site, "a.bin"), "utf8"), second);
    const kept = await readdir(join(repos, ".boatyard/site/lfs/objects"), {
      recursive: true,
    });
    assert.is(kept.filter((name) => /[0-9a-f]{64}$/.test(name)).length, 1);
    assert.is((await update()).changed, true, "without the setting pointers stand there");
  },
);

testUnless(test, needsCommand("ssh-keygen"))(
  "signers: only a commit that one of them signed is served, and none that is older than the served one",
  async () => {
    const { repo, update, site } = await setUp();
    const { key, signers } = await sshSigner();
    const [stranger, gone] = [await sshSigner(), await sshSigner('valid-before="20200101" ')];
    const unsigned = await failure(update({ signers }));
    assert.match(unsigned, /commit [0-9a-f]{40} is not signed by a key of .*signers \(it is not signed\)/);
    await signWith(repo, "ssh", key);
    const first = await repo.push({ "index.html": "signed" });
    const wrong = await failure(update({ signers: stranger.signers }));
    assert.match(wrong, "is not signed by a key of");
    assert.is((await update({ signers })).sha, first);
    // the history between is needed, and a clone of one commit stands there all the same
    await repo.push({ "index.html": "two" });
    const third = await repo.push({ "index.html": "three" });
    assert.is((await update({ signers })).sha, third);
    assert.is(await git(site, "rev-list", "--count", "HEAD"), "1");
    await git(site, "fsck", "--full", "--strict");
    // slave.yml has to allow it, and the order to say it
    for (const [allowBack, back] of [
      [false, true],
      [true, false],
    ] as const) {
      const words = await failure(update({ signers, allowBack }, first, undefined, back));
      assert.match(words, `has not the served one in its history`);
      assert.match(words, "stays in place");
    }
    assert.is((await update({ signers, allowBack: true }, first, undefined, true)).sha, first);
    for (const depth of [0, 3]) assert.is((await update({ signers, depth })).sha, third);
    // an expired key does not count, whatever time the commit says
    await signWith(repo, "ssh", gone.key);
    await repo.push({ "index.html": "four" });
    assert.match(await failure(update({ signers: gone.signers })), "is not signed by a key of");
    await signWith(repo, "ssh", stranger.key);
    const before = await readlink(site);
    await repo.push({ "index.html": "five" });
    assert.match(await failure(update({ signers })), "stays in place");
    assert.is(await readlink(site), before);
    await chmod(signers, 0o666);
    assert.match(await failure(update({ signers })), /signers: .* can be written by others; run: chmod go-w/);
  },
);

/** A gpg for git, with the keys of this file and further options. */
async function gpgWith(...options: string[]): Promise<string> {
  const program = join(tempDir(), "gpg");
  const argv = ["gpg", "--homedir", home.path, ...options].join(" ");
  await writeFile(program, `#!/bin/sh\nexec ${argv} "$@"\n`, { mode: 0o755 });
  return program;
}

gpgTest("signers: with OpenPGP keys; those of the account do not count", async () => {
  const { repo, update } = await setUp();
  const [mine, other] = [await home.key("Me <me@example.com>"), await home.key("Other <other@example.com>")];
  const signers = join(tempDir(), "signers.asc");
  await writeFile(signers, await home.export(mine), { mode: 0o644 });
  await repo.git("config", "gpg.program", await gpgWith());
  await signWith(repo, "openpgp", other);
  await repo.push({ "index.html": "other" });
  process.env["GNUPGHOME"] = home.path;
  try {
    assert.match(await failure(update({ signers })), "is not signed by a key of");
  } finally {
    delete process.env["GNUPGHOME"];
  }
  await signWith(repo, "openpgp", mine);
  const sha = await repo.push({ "index.html": "mine" });
  assert.is((await update({ signers })).sha, sha);
});

gpgTest(
  "signers: no commit is served that was signed with SHA-1, by an expired or by a revoked OpenPGP key",
  async () => {
    const { repo, update, site } = await setUp();
    const long = "20200101T000000";
    const mine = await home.key("Mine <mine@example.com>");
    const expired = await home.key("Expired <expired@example.com>", { at: long, expires: "20200201T000000" });
    const revoked = await home.key("Revoked <revoked@example.com>");
    const signers = join(tempDir(), "signers.asc");
    const write = async () => writeFile(signers, await home.export(mine, expired, revoked), { mode: 0o644 });
    await write();
    const commit = async (key: string, ...options: string[]) => {
      await repo.git("config", "gpg.program", await gpgWith(...options));
      await signWith(repo, "openpgp", key);
      return await repo.push({ "index.html": `${key} ${options.join(" ")}` });
    };
    const first = await commit(mine);
    assert.is((await update({ signers })).sha, first);
    await commit(mine, "--digest-algo", "SHA1");
    assert.match(await failure(update({ signers })), "is not signed by a key of");
    await commit(expired, "--faked-system-time", "20200102T000000!");
    assert.match(await failure(update({ signers })), "is not signed by a key of");
    const good = await commit(revoked);
    assert.is((await update({ signers })).sha, good);
    // signed while the key was good, and revoked since
    await commit(revoked, "--no-sk-comments");
    const certificate = join(home.path, "openpgp-revocs.d", `${revoked}.rev`);
    await writeFile(certificate, (await readFile(certificate, "utf8")).replace(/^:(?=-----BEGIN)/m, ""));
    await home.gpg(["--import", certificate]);
    await write();
    assert.match(await failure(update({ signers })), "is not signed by a key of");
    assert.is(await git(site, "rev-parse", "HEAD"), good);
  },
);

testUnless(test, needsRoot)("signers: a file that belongs to another user is not believed", async () => {
  const { update } = await setUp();
  const signers = join(tempDir(), "signers");
  await writeFile(signers, "me@example.com ssh-ed25519 AAAA\n", { mode: 0o644 });
  await chown(signers, 12345, 0);
  assert.match(await failure(update({ signers })), /signers: .* belongs to user 12345, .*; run: chown root /);
});

test.run();
