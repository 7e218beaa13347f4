import { Buffer } from "node:buffer";
import { randomBytes } from "node:crypto";
import { chmod, lstat, mkdir, readdir, readFile, readlink, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkRepo } from "../../lib/fleet/settings.ts";
import { git, makeRepo, type TestRepo } from "../helpers/repos.ts";
import { runCommand, type RunOptions, runScript, scriptArgv, startCommand, startScript } from "../helpers/run.ts";
import { needsCommand, needsRoot, testUnless } from "../helpers/skip.ts";
import { fakeSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";
import { snapshot } from "../helpers/trees.ts";
import { waitFor } from "../helpers/wait.ts";

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
  const base = `file://${dirname(repo.bare)}`;
  const activate = (args: string[] = [], options: RunOptions = {}) =>
    runScript("slave-activate", ["site", "--repos", repos, "--base", base, ...args], options);
  return { repo, repos, base, activate, site: join(repos, "site") };
}

async function freshClone(repo: TestRepo): Promise<string> {
  const dir = join(tempDir(), "clone");
  await git("/", "clone", "--quiet", repo.url, dir);
  return dir;
}

test("the first update puts a whole clone behind a link", async () => {
  const { repo, repos, activate, site } = await setUp();
  const { stdout } = await activate(["--json"], { expect: 0 });
  const sha = await repo.git("rev-parse", "HEAD");
  const told = JSON.parse(stdout);
  assert.is(told.sha, sha);
  assert.is(told.before, undefined);
  assert.is(told.changed, true);
  assert.is(told.branch, "main");
  assert.ok((await lstat(site)).isSymbolicLink());
  assert.equal(await snapshot(site), await snapshot(await freshClone(repo)));
  assert.equal((await readdir(repos)).sort(), [".boatyard", "site"]);
});

test("an old commit comes from a server that gives only what its branches name", async () => {
  const { repo, activate, site } = await setUp();
  const first = await repo.git("rev-parse", "HEAD");
  await repo.push({ "index.html": "two" });
  await repo.push({ "index.html": "three" });
  await git(repo.bare, "config", "uploadpack.allowAnySHA1InWant", "false");
  await activate([], { expect: 0 });
  await activate(["--sha", first], {
    expect: 0,
    env: { GIT_CONFIG_COUNT: "1", GIT_CONFIG_KEY_0: "protocol.version", GIT_CONFIG_VALUE_0: "0" },
  });
  assert.is(await git(site, "rev-parse", "HEAD"), first);
});

test("without a base nothing is fetched from anybody, and it is said what to write", async () => {
  const { repos, activate } = await setUp();
  const bare = ["--config", join(tempDir(), "slave.yml"), "--repos", repos];
  await writeFile(bare[1] ?? "", "{}\n");
  const words = /where repos come from is not known; give --base URL.*or write base: into slave\.yml/;
  for (const [name, ...args] of [["slave-activate", "site"], ["slave-server"]] as const)
    assert.match((await runScript(name, [...args, ...bare], { expect: 2 })).stderr, words, name);
  await activate();
  await runScript("slave-activate", ["site", ...bare, "--rollback"], { expect: 1 });
});

testUnless(test, needsRoot)(
  "another user's repository on this machine: what to type, and then it is served",
  async () => {
    const { repo, activate } = await setUp();
    await runCommand(["chown", "-R", "65534", repo.bare], { expect: 0 });
    const config = join(tempDir(), "gitconfig");
    const env = { GIT_CONFIG_GLOBAL: config };
    const { stderr } = await activate([], { env, expect: 1 });
    const command = `git config --global --add safe.directory ${repo.bare}`;
    assert.match(stderr, `it belongs to another user; say that root may read it: runuser -u root -- ${command}`);
    await runCommand(command.split(" "), { env, expect: 0 });
    await activate([], { env, expect: 0 });
  },
);

test("names and bases that are more than that are refused, and nothing is made", async () => {
  const { repos, base } = await setUp();
  const names = ["../x", "--upload-pack=x", ".boatyard", "a/b", "x.git", "x.lock", "", "a b", "a\n", "é"];
  for (const name of names) assert.throws(() => checkRepo(name), /is not a repo name/, name);
  for (const name of ["../x", "a\n"]) {
    const { code } = await runScript("slave-activate", ["--repos", repos, "--base", base, "--", name]);
    assert.is(code, 4, JSON.stringify(name));
  }
  // all that are refused: test/lib/fleet/remote.test.ts
  for (const bad of ["ext::sh -c id", "https://u:secret@h/x"]) {
    const { code, stderr } = await runScript("slave-activate", ["site", "--repos", repos, "--base", bad]);
    assert.is(code, 2, bad);
    assert.not.match(stderr, "secret");
  }
  const branch = ["--sha", "a".repeat(40), "--sha-branch", "a..b"];
  const { stderr } = await runScript("slave-activate", ["site", "--repos", repos, "--base", base, ...branch], {
    expect: 2,
  });
  assert.match(stderr, '--sha-branch: "a..b" is not a branch name');
  assert.equal(await readdir(repos).catch(() => []), []);
});

test("a repo that is not there, or has not the commit, leaves nothing behind", async () => {
  const { repos, base, activate } = await setUp();
  const nowhere = await runScript("slave-activate", ["other", "--repos", repos, "--base", base]);
  assert.is(nowhere.code, 1);
  assert.match(nowhere.stderr, "does not appear to be a git repository");
  for (const more of [[], ["--sha-branch", "main"]]) {
    const { code, stderr } = await activate(["--sha", "a".repeat(40), ...more]);
    assert.is(code, 1);
    assert.match(stderr, /the remote does not have commit a{40}/);
  }
  assert.equal(await readdir(join(repos, ".boatyard")), []);
  await activate([], { expect: 0 });
});

test("where no folder can be made, or a file is in the way, is said at once", async () => {
  const { repos, base, activate, site } = await setUp();
  // Node tries to make a folder in /proc without end
  for (const place of ["/proc/x/repos", "/etc/passwd/repos"]) {
    const args = ["site", "--repos", place, "--base", base];
    const { code, stderr } = await runScript("slave-activate", args, { timeout: 20_000 });
    assert.is(code, 1, place);
    assert.match(stderr, new RegExp(`cannot be written: (?:ENOENT|ENOTDIR)`));
  }
  await mkdir(repos);
  await writeFile(site, "a file");
  // before anything is fetched
  const { code, stderr } = await activate(["--sha", "a".repeat(40), "--sha-branch", "main"]);
  assert.is(code, 1);
  assert.match(stderr, `${site} is a file; move it away`);
  assert.equal(await readdir(join(repos, ".boatyard")), []);
});

test("no hook, filter, submodule or configuration of anybody runs during the clone", async () => {
  const { repo, activate, repos } = await setUp();
  const proof = join(tempDir(), "ran");
  const home = tempDir();
  await writeFile(
    join(home, ".gitconfig"),
    `[filter "evil"]\n\tsmudge = touch ${proof}\n\trequired = true\n[core]\n\thooksPath = ${home}/hooks\n\tfsmonitor = touch ${proof}\n`,
  );
  await mkdir(join(home, "hooks"));
  for (const hook of ["post-checkout", "reference-transaction", "post-index-change"]) {
    await writeFile(join(home, "hooks", hook), `#!/bin/sh\ntouch ${proof}\n`, { mode: 0o755 });
  }
  const other = await makeRepo({ name: "sub", files: { x: "x" } });
  await repo.push({
    ".gitattributes": "* filter=evil\n",
    ".gitmodules": `[submodule "s"]\n\tpath = s\n\turl = ${other.url}\n\tupdate = !touch ${proof}\n`,
  });
  await repo.addSubmodule(other.url, "sub");
  for (let round = 0; round < 4; round++) {
    await activate([], { env: { HOME: home }, expect: 0 });
    await repo.push({ "index.html": `${round}` });
  }
  assert.equal(await readdir(join(repos, "site/sub")), []);
  await readFile(proof).then(
    () => assert.unreachable("something ran"),
    () => {},
  );
});

test("after: runs in the new tree with what changed; its failure puts the old one back", async () => {
  const { repo, repos, base, site } = await setUp();
  const folder = tempDir();
  const config = join(folder, "slave.yml");
  const run = (args: string[] = []) => runScript("slave-activate", ["site", "--config", config, ...args]);
  await writeFile(
    config,
    `repos: ${repos}\nbase: ${base}\nafter: 'echo "$SLAVE_REPO $SLAVE_SHA $SLAVE_BEFORE $(cat index.html)" >> ${folder}/ran; test ! -e broken'\n`,
  );
  const first = await repo.git("rev-parse", "HEAD");
  assert.is((await run()).code, 0);
  const good = await readlink(site);
  const bad = await repo.push({ broken: "x", "index.html": "two" });
  const { code, stderr } = await run();
  assert.is(code, 1);
  assert.match(stderr, `commit ${bad} was undone`);
  assert.is(await readlink(site), good);
  assert.is(await readFile(join(folder, "ran"), "utf8"), `site ${first}  one\nsite ${bad} ${first} two\n`);
  await repo.push({ broken: null, "index.html": "three" });
  assert.is((await run()).code, 0);
  assert.is(await readFile(join(site, "index.html"), "utf8"), "three");
  // what `after:` made there is no reason to build the tree again
  await writeFile(join(site, "made.txt"), "x");
  const same = await run(["--json"]);
  assert.is(JSON.parse(same.stdout).changed, false);
});

test("after: of the very first update fails: nothing is left in place", async () => {
  const { repos, base, site } = await setUp();
  const config = join(tempDir(), "slave.yml");
  await writeFile(config, `repos: ${repos}\nbase: ${base}\nafter: "false"\n`);
  const { code } = await runScript("slave-activate", ["site", "--config", config]);
  assert.is(code, 1);
  await lstat(site).then(
    () => assert.unreachable(),
    () => {},
  );
});

test("a git that is killed in the middle of a fetch leaves no half pack behind", async () => {
  const { repo, repos, activate, site } = await setUp();
  await activate([], { expect: 0 });
  await repo.push({ "index.html": "two" });
  const folder = tempDir();
  const { stdout: real } = await runCommand(["sh", "-c", "command -v git"], { expect: 0 });
  await writeFile(
    join(folder, "git"),
    `#!/bin/sh
case " $* " in *" fetch "*) echo half > .git/objects/pack/tmp_pack_half; kill -9 $$ ;; esac
exec ${real.trim()} "$@"
`,
    { mode: 0o755 },
  );
  const path = `${folder}:${process.env["PATH"] ?? ""}`;
  const { code, stderr } = await activate([], { env: { PATH: path } });
  assert.is(code, 1);
  assert.match(stderr, /stays in place/);
  const home = join(repos, ".boatyard/site");
  const left = await readdir(home, { recursive: true });
  assert.equal(
    left.filter((name) => /tmp_|\.lock$|building|busy/.test(name)),
    [],
  );
  await activate([], { expect: 0 });
  assert.is(await readFile(join(site, "index.html"), "utf8"), "two");
});

test("a second update at the same time is told that it is busy, or waits", async () => {
  const { repo, repos, base, site } = await setUp();
  const config = join(tempDir(), "slave.yml");
  const gate = join(tempDir(), "gate");
  await writeFile(config, `repos: ${repos}\nbase: ${base}\nafter: 'until test -e ${gate}; do sleep 0.02; done'\n`);
  const first = startScript("slave-activate", ["site", "--config", config]);
  await waitFor(() => readlink(site));
  const busy = await runScript("slave-activate", ["site", "--config", config]);
  assert.is(busy.code, 3);
  assert.match(busy.stderr, /locked by process \d+ \(update of site/);
  await repo.push({ "index.html": "two" });
  const waiting = startScript("slave-activate", ["site", "--config", config, "--wait"]);
  await writeFile(gate, "");
  assert.is((await first.exited).code, 0);
  assert.is((await waiting.exited).code, 0);
  assert.is(await readFile(join(site, "index.html"), "utf8"), "two");
});

test("a mistake in slave.yml is named with its place, and nothing is touched", async () => {
  const { repos } = await setUp();
  const config = join(tempDir(), "slave.yml");
  const cases: [string, RegExp][] = [
    ["bse: x\n", /slave\.yml:1:1: unknown key "bse".*"base"/],
    ["base: 'ext::x'\n", /slave\.yml:1:\d+: base "ext::x"/],
    ["depth: deep\n", /slave\.yml:1:\d+: expected a number of commits, or "full"/],
    ["each: { '../x': { branch: y } }\n", /slave\.yml:1:\d+: "\.\.\/x" is not a repo name/],
    ["branch: a..b\n", /slave\.yml:1:\d+: "a\.\.b" is not a branch or tag name/],
  ];
  for (const [text, reason] of cases) {
    await writeFile(config, text);
    const { code, stderr } = await runScript("slave-activate", ["site", "--config", config, "--repos", repos]);
    assert.is(code, 2, text);
    assert.match(stderr, reason);
  }
  assert.equal(await readdir(repos).catch(() => []), []);
});

test("a token reaches the server that asks for it, a key reaches ssh, and neither stands in a command line", async () => {
  const folder = tempDir();
  const token = "ghp_0123456789abcdef";
  await writeFile(join(folder, "token"), `${token}\n`, { mode: 0o600 });
  const server = await fakeSlave((_, count) =>
    count === 1
      ? { status: 401, body: {}, headers: { "www-authenticate": 'Basic realm="git"' } }
      : { status: 404, body: {} },
  );
  const config = join(folder, "slave.yml");
  await writeFile(config, `repos: repos\nbase: http://${server.name}\ntoken_file: token\n`);
  const refused = await runScript("slave-activate", ["site", "--config", config]);
  await server.close();
  assert.is(refused.code, 1);
  assert.not.match(refused.stderr, token);
  assert.is(server.headers[0]?.authorization, undefined);
  const expected = Buffer.from(`x-access-token:${token}`).toString("base64");
  assert.is(server.headers[1]?.authorization, `Basic ${expected}`);

  // in the place of ssh: it notes what it was called with
  const ssh = join(folder, "ssh");
  await writeFile(ssh, `#!/bin/sh\nprintf '%s\\n' "$@" > ${folder}/arguments\nexit 1\n`, {
    mode: 0o755,
  });
  await writeFile(config, "repos: repos\nbase: ssh://git@host.example/me\nkey_file: it's.key\n");
  await writeFile(join(folder, "it's.key"), "", { mode: 0o600 });
  const env = { GIT_SSH_COMMAND: ssh, GIT_SSH_VARIANT: "ssh" };
  assert.is((await runScript("slave-activate", ["site", "--config", config], { env })).code, 1);
  const given = (await readFile(join(folder, "arguments"), "utf8")).split("\n");
  for (const word of [join(folder, "it's.key"), "IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=yes"]) {
    assert.ok(given.includes(word), word);
  }
});

test("a token file that others can read, or a key that is not there, is refused before anything is asked", async () => {
  const folder = tempDir();
  await writeFile(join(folder, "token"), "x\n", { mode: 0o644 });
  const config = join(folder, "slave.yml");
  await writeFile(config, "repos: repos\nbase: https://127.0.0.1:9\ntoken_file: token\n");
  const { code, stderr } = await runScript("slave-activate", ["site", "--config", config]);
  assert.is(code, 2);
  assert.match(stderr, /chmod 600/);
  // ssh would go on without it, and the host would only say that it is denied
  await writeFile(config, "repos: repos\nbase: ssh://127.0.0.1:9\nkey_file: key\n");
  const keyless = await runScript("slave-activate", ["site", "--config", config], { expect: 2 });
  assert.match(keyless.stderr, `key_file: ${join(folder, "key")} cannot be read: ENOENT`);
  assert.equal((await readdir(folder)).sort(), ["slave.yml", "token"]);
});

testUnless(test, needsRoot ?? needsCommand("unshare"))(
  "a program in an old tree, which the update cannot see, never finds another's files in it",
  async () => {
    const { repo, repos, base, activate, site } = await setUp();
    await activate(["--keep", "1"], { expect: 0 });
    const gate = join(tempDir(), "gate");
    const seen = join(tempDir(), "seen");
    const program = `echo in; until test -e ${gate}; do cat index.html >> ${seen} 2>/dev/null; sleep 0.01; done`;
    const inside = startCommand(["sh", "-c", program], { cwd: site });
    await inside.until(/in/);
    // as under ProtectProc=invisible and PrivateUsers: a /proc without anybody else's processes
    const alone = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--"];
    const argv = [...alone, ...scriptArgv("slave-activate"), "site", "--repos", repos];
    for (const text of ["two", "three", "four", "five"]) {
      await repo.push({ "index.html": `${text}\n` });
      await runCommand([...argv, "--base", base, "--keep", "1"], { expect: 0 });
    }
    await writeFile(gate, "");
    await inside.exited;
    assert.not.match(await readFile(seen, "utf8"), /two|three|four|five/);
  },
);

testUnless(test, needsRoot)("a full disk is called one, and no larger attempt follows", async () => {
  const { repo, repos, activate, site } = await setUp();
  await mkdir(repos, { recursive: true });
  await runCommand(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", repos], { expect: 0 });
  try {
    await activate([], { expect: 0 });
    const before = await readlink(site);
    await repo.push({ big: randomBytes(4 * 1024 * 1024) });
    const { code, stderr } = await activate();
    assert.is(code, 1);
    assert.match(stderr, /the disk is full; [0-9a-f]{12} stays in place/);
    assert.not.match(stderr, /fetching all of it/);
    assert.is(await readlink(site), before);
    // room for the pack, and none for the tree
    await repo.push({ big: null, same: Buffer.alloc(4 * 1024 * 1024, 97) });
    const again = await activate();
    assert.match(again.stderr, /git cannot write a file: the disk is full, or it fails; [0-9a-f]{12} stays in place/);
    assert.not.match(again.stderr, /fetching all of it/);
    await repo.push({ same: null, "index.html": "two" });
    await activate([], { expect: 0 });
  } finally {
    await runCommand(["umount", repos]);
  }
});

test("a rollback to or from an old plain folder says what it is", async () => {
  const { repo, activate, site } = await setUp();
  await repo.checkout(site);
  const nothing = await activate(["--rollback"]);
  assert.is(nothing.code, 1);
  assert.match(nothing.stderr, /site is a plain folder that no update has replaced yet/);
  await activate([], { expect: 0 });
  const { stdout } = await activate(["--rollback"], { expect: 0 });
  assert.match(stdout, /the plain folder/);
  assert.not.match(stdout, "unknown");
});

test.run();
