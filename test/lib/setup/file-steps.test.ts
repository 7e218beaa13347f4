// What setup writes into homes, whose users may have put links there.
import { chown, lstat, mkdir, readFile, readlink, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { edit, file, folder } from "../../../lib/setup/file-steps.ts";
import { clone, hostKey, key } from "../../../lib/setup/key-steps.ts";
import { runCommand } from "../../helpers/run.ts";
import { needsCommand, needsRoot, testUnless } from "../../helpers/skip.ts";
import { needsSshd, startSshd } from "../../helpers/sshd.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { withUser } from "../../helpers/users.ts";

testUnless(test, needsRoot)("a link in a home leads root to nothing that is closed to the home's user", async () => {
  await withUser(async (user) => {
    const closed = join(tempDir(), "closed");
    await mkdir(closed, { mode: 0o700 });
    const text = "Host *\n";
    await writeFile(join(closed, "config"), text, { mode: 0o600 });
    await symlink(closed, join(user.home, ".ssh"));
    const path = join(user.home, ".ssh/config");
    const options = { path, mode: 0o600, owner: user.name, asOwner: true, why: "" };
    assert.is(await file({ ...options, text }).look("/"), "make", "it was not read");
    let failed = false;
    await file({ ...options, text: "Host other\n" })
      .perform("/")
      .catch(() => {
        failed = true;
      });
    assert.ok(failed, "it was not written");
    assert.is(await readFile(join(closed, "config"), "utf8"), text);
    // where the user may write it is done
    await mkdir(join(user.home, "own"));
    await chown(join(user.home, "own"), user.uid, user.gid);
    const own = file({ ...options, path: join(user.home, "own/config"), text });
    await own.perform("/");
    assert.is(await own.look("/"), "ready");
  });
});

testUnless(test, needsRoot)("a pipe in a home, where setup reads or writes, holds nobody up", async () => {
  await withUser(async (user) => {
    const path = join(user.home, "known_hosts");
    const options = { path, mode: 0o600, owner: user.name, asOwner: true, why: "" };
    await runCommand(["mkfifo", "-m", "666", path, `${path}.new`], { expect: 0 });
    const step = file({ ...options, text: "one\n" });
    assert.is(await step.look("/"), "make");
    await step.perform("/");
    assert.is(await readFile(path, "utf8"), "one\n");
    assert.is(await step.look("/"), "ready");
  });
});

testUnless(test, needsRoot)(
  "a folder in a home that is not its user's is refused, and a person's own folder is changed as that person",
  async () => {
    await withUser(async (user) => {
      const path = join(user.home, "own");
      const options = { path, mode: 0o700, owner: user.name, asOwner: true, why: "" };
      await mkdir(path);
      await folder(options)
        .look("/")
        .then(
          () => assert.unreachable(),
          ({ message }: Error) => assert.match(message, `${path} is there and belongs to another user`),
        );
      await chown(path, user.uid, user.gid);
      assert.is(await folder(options).look("/"), "fix");
      await folder(options).perform("/");
      assert.is(await folder(options).look("/"), "ready");
    });
  },
);

testUnless(test, needsRoot ?? needsCommand("ssh-keygen"))(
  "a private key that a person has stays, and gets its public half; one that tells none is left alone",
  async () => {
    await withUser(async (user) => {
      const path = join(user.home, "id_ed25519");
      const step = key({ path, owner: user.name, comment: "ada@host", why: "" });
      await step.perform("/");
      assert.is(await step.look("/"), "ready");
      const [own, half] = [await readFile(path, "utf8"), await readFile(`${path}.pub`, "utf8")];
      assert.match(half, /^ssh-ed25519 \S+ ada@host\n$/);
      await rm(`${path}.pub`);
      assert.is(await step.look("/"), "make");
      await step.perform("/");
      assert.is(await readFile(path, "utf8"), own);
      assert.is(await readFile(`${path}.pub`, "utf8"), half);
      await rm(`${path}.pub`);
      await writeFile(path, "half a key");
      await Promise.resolve(step.perform("/")).then(
        () => assert.unreachable(),
        ({ message }: Error) => assert.match(message, "has no public half beside it"),
      );
      assert.is(await readFile(path, "utf8"), "half a key");
    });
  },
);

testUnless(test, needsRoot)(
  "a clone never takes the place of what a person has there, and a repository without commits says so",
  async () => {
    await withUser(async (user) => {
      const as = (...argv: string[]) =>
        runCommand(["runuser", "-u", user.name, "--", "env", `HOME=${user.home}`, ...argv], {
          expect: 0,
        });
      const [remote, path] = [join(user.home, "remote.git"), join(user.home, "checkout")];
      await as("git", "init", "-q", "--bare", remote);
      const step = clone({ path, owner: user.name, url: remote, branch: undefined, why: "" });
      const refused = async (done: unknown, words: RegExp) =>
        await Promise.resolve(done).then(
          () => assert.unreachable(),
          ({ message }: Error) => assert.match(message, words),
        );
      await as("mkdir", path);
      assert.is(await step.look("/"), "make", "an empty folder makes room");
      await refused(step.perform("/"), /has no commits yet; push one/);
      const commit = "git init -q one; cd one; git -c user.name=a -c user.email=a@b commit -q";
      await as("sh", "-e", "-c", `cd; ${commit} --allow-empty -m one; git push -q ${remote} HEAD`);
      await as("touch", join(path, "notes"));
      await refused(
        step.look("/"),
        /checkout is there and is not a checkout of \S+: fatal: not a git .*; move it away/,
      );
      await refused(step.perform("/"), /rmdir/);
      await as("rm", join(path, "notes"));
      await step.perform("/");
      assert.is(await step.look("/"), "ready");
    });
  },
);

testUnless(test, needsRoot ?? needsSshd ?? needsCommand("ssh-keyscan"))(
  "a host's key gets a line of its own, also where known_hosts was edited and ends without a newline",
  async () => {
    await withUser(async (user) => {
      const sshd = await startSshd();
      try {
        const path = join(user.home, "known_hosts");
        await writeFile(path, "git.example.com ssh-ed25519 AAAA", { mode: 0o644 });
        await chown(path, user.uid, user.gid);
        const options = { path, owner: user.name, host: "127.0.0.1", port: sshd.port, why: "" };
        const step = hostKey(options);
        assert.is(await step.look("/"), "make");
        assert.match(JSON.stringify(await step.perform("/")), "compare it with what it publishes");
        const text = await readFile(path, "utf8");
        assert.is(text, `git.example.com ssh-ed25519 AAAA\n${sshd.hostLine}\n`);
        assert.is(await step.look("/"), "ready");
        assert.is((await lstat(path)).uid, user.uid);
      } finally {
        await sshd.stop();
      }
    });
  },
);

test("a person's file that is added to keeps its mode, and its owner", async () => {
  const path = join(tempDir(), "hooks.yml");
  await writeFile(path, "one\n", { mode: 0o600 });
  if (needsRoot === undefined) await chown(path, 12345, 12345);
  const before = await lstat(path);
  const change = (text: string) => (text.includes("two") ? text : `${text}two\n`);
  const back = { what: "two", change: (text: string) => text.replace("two\n", "") };
  const step = edit({ path, mode: 0o644, change, back, what: "two", why: "" });
  await step.perform("/");
  assert.is(await step.look("/"), "ready");
  assert.is(await readFile(path, "utf8"), "one\ntwo\n");
  await step.undo?.step.perform("/");
  assert.is(await readFile(path, "utf8"), "one\n");
  const { mode, uid, gid } = await lstat(path);
  assert.equal([mode, uid, gid], [before.mode, before.uid, before.gid]);
});

test("a file that root has linked elsewhere, as into a repository, is changed there, and the link stays", async () => {
  const [there, path] = [join(tempDir(), "hooks.yml"), join(tempDir(), "hooks.yml")];
  await writeFile(there, "one\n", { mode: 0o644 });
  await symlink(there, path);
  const change = (text: string) => (text.includes("two") ? text : `${text}two\n`);
  const step = edit({ path, mode: 0o644, change, what: "two", why: "" });
  assert.is(await step.look("/"), "make");
  await step.perform("/");
  assert.is(await readFile(there, "utf8"), "one\ntwo\n");
  assert.is(await readlink(path), there);
  assert.is(await step.look("/"), "ready");
});

test.run();
