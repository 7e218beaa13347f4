import { createServer } from "node:http";
import { chmod, mkdir, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { runCommand, type RunOptions, runScript, startScript } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const rsyncTest = testUnless(test, needsCommand("rsync"));

const home = tempDir();
const env = { HOME: home, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

async function uploads(dir: string, args: string[] = [], options: RunOptions = {}) {
  return await runScript("uploads", [dir, ...args], {
    ...options,
    env: { ...env, ...options.env },
  });
}

/** A folder with these files and this config. */
async function makeSite(files: Record<string, string>, config: string): Promise<string> {
  const dir = tempDir();
  await mkdir(join(dir, "upload"));
  await writeFiles(join(dir, "upload"), files);
  await writeFile(join(dir, "uploads.yml"), config);
  return dir;
}

test("every mistake in uploads.yml is named with line and column, and nothing is touched", async () => {
  const dir = await makeSite(
    { "a.txt": "1" },
    [
      "from: upload",
      "to:",
      '  one: { s3: "s3://bucket/x", branch: main }',
      "  two: { rsync: rsync://host/x }",
      "  three: { key: k }",
      '  four: { git: "ext::sh -c touch% /tmp/x" }',
      '  five: { git: "https://me:secret@host/x.git" }',
      '  six: { s3: "s3://bucket/../x" }',
      "",
    ].join("\n"),
  );
  const { stderr } = await uploads(dir, [], { expect: 2 });
  const lines = stderr.trim().split("\n");
  assert.match(lines[0] ?? "", /uploads\.yml:3:\d+: "branch" means nothing for a s3 target/);
  assert.match(lines[1] ?? "", /uploads\.yml:4:\d+: .*daemon/);
  assert.match(lines[2] ?? "", /uploads\.yml:5:\d+: target "three" needs exactly one of/);
  assert.match(lines[3] ?? "", /uploads\.yml:6:\d+: .*runs a program/);
  assert.match(lines[4] ?? "", /uploads\.yml:7:\d+: the address holds a login/);
  assert.not.match(stderr, "secret");
  assert.match(lines[5] ?? "", /uploads\.yml:8:\d+: .*holds \. or \.\./);
  assert.is(lines.length, 6);
});

test("a mistyped key, a missing folder, an unknown target and a missing file exit 2", async () => {
  const dir = await makeSite({ "a.txt": "1" }, "to: { web: { rsnyc: x } }\n");
  assert.match((await uploads(dir, [], { expect: 2 })).stderr, /:1:14: unknown key "rsnyc" \(did you mean "rsync"\?\)/);
  await writeFile(join(dir, "uploads.yml"), `from: nowhere\nto: { web: { rsync: ${dir}/out } }\n`);
  assert.match((await uploads(dir, [], { expect: 2 })).stderr, /there is no folder .*nowhere/);
  const wrong = await uploads(dir, ["--to", "wbe"], { expect: 2 });
  assert.match(wrong.stderr, /no target "wbe" \(did you mean "web"\?\)/);
  await rm(join(dir, "uploads.yml"));
  assert.match((await uploads(dir, [], { expect: 2 })).stderr, /uploads\.yml: there is no such file/);
});

rsyncTest("rsync judges by content: a rebuild sends nothing, a changed byte with the old time is sent", async () => {
  const out = tempDir();
  const files = { "index.html": "<p>", "a b/c.txt": "1", "new\nline": "2", empty: "" };
  const dir = await makeSite(files, `to: { web: { rsync: ${out}/www } }\n`);
  const first = await uploads(dir, ["--json"], { expect: 0 });
  assert.is(JSON.parse(first.stdout).counts.new, 4);
  assert.is(await readFile(join(out, "www/a b/c.txt"), "utf8"), "1");
  assert.is(await readFile(join(out, "www/new\nline"), "utf8"), "2");
  await writeFiles(join(dir, "upload"), files);
  const again = JSON.parse((await uploads(dir, ["--json"], { expect: 0 })).stdout);
  assert.equal([again.unchanged, again.bytes], [4, 0]);
  const changed = join(dir, "upload/a b/c.txt");
  const old = new Date("2020-01-01");
  await writeFile(changed, "3");
  await utimes(changed, old, old);
  const third = JSON.parse((await uploads(dir, ["--json"], { expect: 0 })).stdout);
  assert.equal(third.counts, { new: 0, replace: 1, headers: 0, delete: 0 });
  assert.is(await readFile(join(out, "www/a b/c.txt"), "utf8"), "3");
});

rsyncTest("rsync deletes only when told to, and a file can take a folder's place", async () => {
  const out = tempDir();
  const dir = await makeSite({ "a.txt": "1", place: "a file" }, `to: { web: { rsync: ${out} } }\n`);
  await writeFiles(out, { "place/x.txt": "2", "gone.txt": "3" });
  await uploads(dir, [], { expect: 0 });
  assert.is(await readFile(join(out, "place"), "utf8"), "a file");
  assert.is(await readFile(join(out, "gone.txt"), "utf8"), "3");
  const dry = await uploads(dir, ["-n", "--delete"], { expect: 0 });
  assert.match(dry.stdout, /web: delete +gone\.txt/);
  await uploads(dir, ["--delete"], { expect: 0 });
  await readFile(join(out, "gone.txt")).then(
    () => assert.unreachable("gone.txt is still there"),
    () => {},
  );
});

rsyncTest("rsync follows links of folders, and puts a folder where a file was", async () => {
  const out = tempDir();
  const dir = await makeSite(
    { "real/a b/1.txt": "1", "index.html": "<p>" },
    `to: { web: { rsync: ${out}, delete: true } }\n`,
  );
  await symlink("real", join(dir, "upload/link"));
  await rm(out, { recursive: true });
  const dry = await uploads(dir, ["-n"], { expect: 0 });
  assert.match(dry.stdout, /web: new +index\.html/);
  await mkdir(out, { mode: 0o700 });
  await writeFiles(out, { real: "a file" });
  await uploads(dir, [], { expect: 0 });
  assert.is(await readFile(join(out, "real/a b/1.txt"), "utf8"), "1");
  assert.is(await readFile(join(out, "link/a b/1.txt"), "utf8"), "1");
  for (const folder of ["", "real/a b"]) assert.is((await stat(join(out, folder))).mode & 0o777, 0o755, folder);
  const again = JSON.parse((await uploads(dir, ["--json"], { expect: 0 })).stdout);
  assert.equal([again.unchanged, again.bytes], [3, 0]);
});

test("a checkout that is not there is refused and not made, whatever config is named", async () => {
  const dir = await makeSite({ a: "1" }, `to: { web: { rsync: /srv/www } }\n`);
  const args = ["--config", join(dir, "uploads.yml")];
  const { stderr } = await uploads(join(dir, "chekout"), args, { expect: 2 });
  assert.match(stderr, /there is no folder \S+chekout; name a checkout/);
  assert.not((await readdir(dir)).includes("chekout"));
});

test("--check asks each target, says which would fail, and leaves nothing; a folder's parents are made", async () => {
  const out = tempDir("out-");
  const { bare } = await makeRepo();
  const targets = `to:\n  web: { rsync: ${out}/a/b/c }\n  pages: { git: "file://${bare}" }\n`;
  const dir = await makeSite({ "a.txt": "1" }, targets);
  const good = await uploads(dir, ["--check"], { expect: 0 });
  assert.match(good.stdout, /^web +rsync +ok\npages +git +ok$/m);
  assert.equal((await readdir(dir)).sort(), ["upload", "uploads.yml"]);
  assert.equal(await readdir(out), []);
  await uploads(dir, [], { expect: 0 });
  assert.is(await readFile(join(out, "a/b/c/a.txt"), "utf8"), "1");

  await writeFile(join(out, "file"), "");
  const wrong = `${targets}  gone: { git: "file://${bare}x" }\n  shut: { rsync: ${out}/file/b }\n  no: { s3: "s3://bucket/p", endpoint: "http://127.0.0.1:1" }\n`;
  await writeFile(join(dir, "uploads.yml"), wrong);
  const bad = await uploads(dir, ["--check"], {
    expect: 2,
    env: { AWS_ACCESS_KEY_ID: "a", AWS_SECRET_ACCESS_KEY: "b" },
  });
  assert.match(bad.stdout, /^web +rsync +ok\npages +git +ok\ngone +git +failed\nshut +rsync +failed\nno +s3 +failed$/m);
  assert.match(bad.stderr, /no: .*refuses connections/);
});

test("a folder on PATH is not the program of its name", async () => {
  const bin = tempDir("bin-");
  await mkdir(join(bin, "rsync"));
  const dir = await makeSite({}, `to: { web: { rsync: /srv/www } }\n`);
  const { stderr } = await uploads(dir, ["--check"], { expect: 2, env: { PATH: bin } });
  assert.match(stderr, /web: rsync is not on PATH/);
});

test("what a hook over there prints cannot act on the terminal", async () => {
  const site = await makeRepo({ files: { "old.txt": "1" } });
  const hook = '#!/bin/sh\nprintf "no: \\033]0;title\\007\\033[31mred\\n" >&2\nexit 1\n';
  await writeFile(join(site.bare, "hooks/pre-receive"), hook, { mode: 0o755 });
  const dir = await makeSite({ "a.txt": "1" }, `to: { pages: { git: "file://${site.bare}" } }\n`);
  const { stdout, stderr } = await uploads(dir, ["--retries", "0"], { expect: 1 });
  assert.match(stderr, /pages: file:\/\/\S+ refused the push to gh-pages: remote: no: red/);
  assert.not.match(stdout + stderr, /\u001b|\u0007/);
});

test("an empty folder is never published over what is there", async () => {
  const out = tempDir();
  await writeFiles(out, { "keep.txt": "1" });
  const dir = await makeSite({}, `to: { web: { rsync: ${out}, delete: true } }\n`);
  const { stderr } = await uploads(dir, [], { expect: 4 });
  assert.match(stderr, /is empty: this would remove everything from web/);
  assert.is(await readFile(join(out, "keep.txt"), "utf8"), "1");
});

rsyncTest("a folder that a build empties meanwhile removes nothing over there", async () => {
  const out = tempDir();
  const site = await makeRepo({ files: { x: "1" } });
  const config = `to:\n  web: { rsync: ${out}/www, delete: true }\n  pages: { git: "${site.url}" }\n`;
  const dir = await makeSite({ "a.css": "1", "index.html": "1" }, config);
  await uploads(dir, [], { expect: 0 });
  const bin = tempDir("bin-");
  // a build removes what it made: here just after the pages were sent, and while git makes its tree
  const stop = `rm -rf "${dir}"/upload/*`;
  for (const [name, when] of [
    ["rsync", '[ "$(wc -l <"$0.calls")" = 2 ]'],
    ["git", 'case "$*" in *hash-object*) true ;; *) false ;; esac'],
  ] as const) {
    const real = (await runCommand(["sh", "-c", `command -v ${name}`], { expect: 0 })).stdout;
    const wrapper = `#!/bin/sh\necho >>"$0.calls"\n${real.trim()} "$@"; code=$?\nif ${when}; then ${stop}; fi\nexit $code\n`;
    await writeFile(join(bin, name), wrapper, { mode: 0o755 });
  }
  for (const name of ["web", "pages"]) {
    await writeFiles(join(dir, "upload"), { "a.css": "1", "index.html": "1" });
    const { stderr } = await uploads(dir, ["--to", name, "--retries", "2"], {
      expect: 1,
      env: { PATH: `${bin}:${process.env["PATH"]}` },
    });
    assert.match(stderr, `${name}: ${dir}/upload has become empty`);
  }
  assert.equal((await readdir(join(out, "www"))).sort(), ["a.css", "index.html"]);
  const published = await git(site.bare, "ls-tree", "--name-only", "gh-pages");
  assert.equal(published.split("\n"), ["a.css", "index.html"]);
});

test("a link that leads out, nowhere or in a circle is refused before anything is sent", async () => {
  const out = tempDir();
  const dir = await makeSite({ "d/a.txt": "1" }, `to: { web: { rsync: ${out}/www } }\n`);
  await symlink("/etc", join(dir, "upload/etc"));
  await symlink("missing", join(dir, "upload/dangling"));
  await symlink("..", join(dir, "upload/d/up"));
  const { stderr } = await uploads(dir, [], { expect: 4 });
  assert.match(stderr, /"etc": the link leads out of the folder, to \/etc/);
  assert.match(stderr, /"dangling": the link leads nowhere/);
  assert.match(stderr, /"d\/up": the link leads back to a folder that holds it/);
  assert.not((await readFile(join(out, "www/d/a.txt"), "utf8").catch(() => "")) === "1");
});

test("git: the folder becomes one commit on top of the branch, byte for byte, named after its source", async () => {
  const source = await makeRepo({ files: { "README.md": "hi" } });
  const site = await makeRepo({ files: { "index.html": "old", CNAME: "example.com" } });
  await site.git("push", "origin", "HEAD:refs/heads/pages");
  const before = await git(site.bare, "rev-parse", "pages");
  const dir = tempDir("checkout-");
  await source.checkout(dir);
  const files = {
    "index.html": "new\r\n",
    ".gitignore": "*.log\n",
    ".gitattributes": "* text=auto\n",
    "kept.log": "1",
    "a b/été\nx": "2",
    run: "#!/bin/sh\n",
  };
  await writeFiles(join(dir, "upload"), files);
  await chmod(join(dir, "upload/run"), 0o755);
  await writeFile(join(dir, "uploads.yml"), `to: { pages: { git: "${site.url}", branch: pages } }\n`);
  await git(dir, "config", "user.name", "Grace");
  await git(dir, "config", "user.email", "grace@example.com");
  const { stdout } = await uploads(dir, ["--json"], { expect: 0 });
  assert.equal(JSON.parse(stdout).counts, { new: 5, replace: 1, headers: 0, delete: 1 });
  assert.is(await git(site.bare, "rev-parse", "pages^"), before, "history is kept");
  const head = await git(dir, "rev-parse", "HEAD");
  const log = await git(site.bare, "log", "-1", "--format=%an <%ae>%n%B", "pages");
  assert.match(log, `Grace <grace@example.com>\nPublish ${head.slice(0, 12)}:`);
  assert.match(log, `Source: ${head}`);
  const clone = join(tempDir(), "clone");
  await git("/", "clone", "-q", "-c", "core.autocrlf=false", "-b", "pages", site.bare, clone);
  for (const [name, content] of Object.entries(files)) assert.is(await readFile(join(clone, name), "utf8"), content);
  assert.match(await git(site.bare, "ls-tree", "pages", "run"), /^100755/);
  const after = await git(site.bare, "rev-parse", "pages");
  await writeFiles(join(dir, "upload"), files);
  await uploads(dir, [], { expect: 0 });
  assert.is(await git(site.bare, "rev-parse", "pages"), after, "no commit when nothing changed");
  assert.is(await git(dir, "status", "--porcelain", "--", ".boatyard"), "", "our state is no dirt");
});

test("git: a branch that is not there yet is made; without user.name the source commit's author is taken", async () => {
  const source = await makeRepo({ files: { "README.md": "hi" } });
  const site = await makeRepo({ files: { x: "1" } });
  const dir = tempDir("checkout-");
  await source.checkout(dir);
  await writeFiles(dir, {
    "upload/a.txt": "1",
    "uploads.yml": `to: { pages: { git: "${site.url}" } }\n`,
  });
  await uploads(dir, [], { expect: 0 });
  assert.is(await git(site.bare, "log", "--format=%an", "gh-pages"), "Ada");
});

test("git: what a killed run left of its own repository does not stop the next one", async () => {
  const site = await makeRepo({ files: { x: "1" } });
  const config = `to: { pages: { git: "${site.url}" } }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config);
  const own = join(dir, ".boatyard/uploads/pages.git");
  // killed while it was made, and while the branch was fetched
  await writeFiles(own, { HEAD: "ref: refs/heads/main\n", "config.lock": "" });
  await uploads(dir, [], { expect: 0 });
  await writeFile(join(dir, "upload/a.txt"), "2");
  await writeFiles(own, { "refs/boatyard/there.lock": "", "index.lock": "" });
  await uploads(dir, ["--retries", "0"], { expect: 0 });
  assert.is(await git(site.bare, "show", "gh-pages:a.txt"), "2");
});

test("git: a push that lost a race is done again on top of the other", async () => {
  const site = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeSite({ "b.txt": "2" }, `to: { pages: { git: "${site.url}", branch: main } }\n`);
  // as our push arrives, another commit has just come in
  const hook = join(site.bare, "hooks/pre-receive");
  await mkdir(join(site.bare, "hooks"), { recursive: true });
  const rival = await site.commit({ "c.txt": "3" }, "rival");
  await site.git("push", "-q", "origin", "HEAD:refs/heads/rival");
  await writeFile(
    hook,
    "#!/bin/sh\n[ -e raced ] && exit 0\ntouch raced\nunset GIT_QUARANTINE_PATH\nexec git update-ref refs/heads/main rival\n",
  );
  await chmod(hook, 0o755);
  await uploads(dir, [], { expect: 0 });
  assert.is(await git(site.bare, "rev-parse", "main^"), rival);
  assert.is(await git(site.bare, "ls-tree", "--name-only", "main"), "b.txt");
});

test("git: what others push between our fetch and our push stays", async () => {
  const site = await makeRepo({ files: { "a.txt": "1" } });
  const rival = await site.commit({ "c.txt": "3" }, "rival");
  const dir = await makeSite({ "b.txt": "2" }, `to: { pages: { git: "${site.url}", branch: main } }\n`);
  // git, before which the rival is quicker once
  const bin = tempDir("bin-");
  const real = (await runCommand(["sh", "-c", "command -v git"], { expect: 0 })).stdout.trim();
  const wrapper = `#!/bin/sh
case " $* " in *" push "*) mkdir "${bin}/pushed" 2>/dev/null && ${real} -C "${site.work}" push -q origin HEAD:main ;; esac
exec ${real} "$@"
`;
  await writeFile(join(bin, "git"), wrapper, { mode: 0o755 });
  await uploads(dir, [], { expect: 0, env: { PATH: `${bin}:${process.env["PATH"]}` } });
  assert.is(await git(site.bare, "rev-parse", "main^"), rival);
  assert.is(await git(site.bare, "ls-tree", "--name-only", "main"), "b.txt");
});

rsyncTest("a file that does not rest is reported by rsync and git, not sent half old and half new", async () => {
  const out = tempDir();
  const site = await makeRepo({ files: { x: "1" } });
  const config = `to:\n  web: { rsync: ${out}/www }\n  pages: { git: "${site.url}" }\n`;
  const dir = await makeSite({ "a.txt": "1", busy: "" }, config);
  const busy = join(dir, "upload/busy");
  // somebody writes to it each time that it is read
  const bin = tempDir("bin-");
  for (const name of ["git", "rsync"]) {
    const real = (await runCommand(["sh", "-c", `command -v ${name}`], { expect: 0 })).stdout;
    const wrapper = `#!/bin/sh\necho line >> "${busy}"\nexec ${real.trim()} "$@"\n`;
    await writeFile(join(bin, name), wrapper, { mode: 0o755 });
  }
  const { stderr } = await uploads(dir, ["--retries", "1"], {
    expect: 1,
    env: { PATH: `${bin}:${process.env["PATH"]}` },
  });
  assert.match(stderr, /web: "busy" changes while it is read/);
  assert.match(stderr, /pages: "busy" changes while it is read/);
  await uploads(dir, [], { expect: 0 });
  const whole = await readFile(busy, "utf8");
  assert.is(await readFile(join(out, "www/busy"), "utf8"), whole);
  assert.is(`${await git(site.bare, "show", "gh-pages:busy")}\n`, whole);
});

rsyncTest("one target that fails does not stop the others; the table and --json say which", async () => {
  const out = tempDir();
  const config = `to:\n  bad: { git: "file:///nowhere/at/all.git" }\n  web: { rsync: ${out}/www }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config);
  const { stdout, stderr } = await uploads(dir, [], { expect: 1 });
  assert.match(stdout, /bad +git +FAILED/);
  assert.match(stdout, /web +rsync +ok +1/);
  assert.match(stderr, /bad: there is no repository at file:\/\/\/nowhere/);
  assert.is(await readFile(join(out, "www/a.txt"), "utf8"), "1");
  const { stdout: json } = await uploads(dir, ["--json", "--to", "web"], { expect: 0 });
  assert.is(JSON.parse(json).target, "web");
});

rsyncTest("--json has a line for each target as soon as it is served", async () => {
  const bin = tempDir("bin-");
  const isTold = join(bin, "told");
  const real = (await runCommand(["sh", "-c", "command -v rsync"], { expect: 0 })).stdout.trim();
  const wrapper = `#!/bin/sh\nwhile [ ! -e "${isTold}" ]; do sleep 0.1; done\nexec ${real} "$@"\n`;
  await writeFile(join(bin, "rsync"), wrapper, { mode: 0o755 });
  const config = `to:\n  slow: { rsync: ${bin}/www }\n  bad: { git: "file:///nowhere/at/all.git" }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config);
  const path = `${bin}:${process.env["PATH"]}`;
  const running = startScript("uploads", [dir, "--json"], { env: { ...env, PATH: path } });
  await waitFor(() => running.stdout().includes('"target":"bad"'));
  await writeFile(isTold, "");
  const { stdout } = await running.exited;
  const lines = stdout.trim().split("\n");
  assert.equal(
    lines.map((line) => JSON.parse(line).target),
    ["bad", "slow"],
  );
});

rsyncTest("a builder that loses the repo meanwhile publishes no page and pushes nothing", async () => {
  const out = tempDir();
  const site = await makeRepo({ files: { x: "1" } });
  const config = `to:\n  web: { rsync: ${out}/www }\n  pages: { git: "${site.url}" }\n`;
  const dir = await makeSite({ "a.css": "1", "index.html": "1" }, config);
  const socket = join(out, "claim");
  let yes = 0;
  const builder = createServer((_, response) => {
    response.writeHead(yes-- > 0 ? 200 : 409).end('{"error":"another builder has the repo"}');
  });
  await new Promise<void>((resolve) => builder.listen(socket, resolve));
  // asked at the start, then before each step
  for (const [to, until] of [
    ["web", 2],
    ["pages", 1],
  ] as const) {
    yes = until;
    const { stderr } = await uploads(dir, ["--to", to], { expect: 1, env: { HOOK_CLAIM: socket } });
    assert.match(stderr, `${to}: not published: another builder has the repo`);
  }
  builder.close();
  assert.equal(await readdir(join(out, "www")), ["a.css"]);
  assert.is(await git(site.bare, "branch", "--list", "gh-pages"), "");
});

test.run();
