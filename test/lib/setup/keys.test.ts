// Keys and checkouts in homes, whose users may have put links there.
import { chown, lstat, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { clone, hostKey, readInHome, sshKey } from "../../../lib/setup/keys.ts";
import { runCommand } from "../../helpers/run.ts";
import { needsCommand, needsRoot, testUnless } from "../../helpers/skip.ts";
import { needsSshd, startSshd } from "../../helpers/sshd.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { withUser } from "../../helpers/users.ts";

testUnless(test, needsRoot ?? needsCommand("ssh-keygen"))(
  "a link or a pipe in a home leads root to nothing that is closed to the home's user, and holds nobody up",
  async () => {
    await withUser(async (user) => {
      const closed = join(tempDir(), "closed");
      await mkdir(closed, { mode: 0o700 });
      const published = { url: "", host: "github.com", sshPort: 22 };
      const itemIn = (path: string) => {
        const [item] = hostKey(published, { path, user: user.name, why: "", live: [] });
        if (!item) throw new Error("there is no item");
        return item;
      };
      await symlink(closed, join(user.home, ".ssh"));
      await writeFile(join(closed, "known_hosts"), "closed\n", { mode: 0o600 });
      const through = join(user.home, ".ssh/known_hosts");
      assert.is(await readInHome(user.name, through), undefined);
      assert.is(await itemIn(through).look("/"), "make");
      const failed = await Promise.resolve(itemIn(through).make("/")).then(
        () => false,
        () => true,
      );
      assert.ok(failed, "it was not written");
      assert.is(await readFile(join(closed, "known_hosts"), "utf8"), "closed\n");
      const pipe = join(user.home, "known_hosts");
      await runCommand(["mkfifo", "-m", "666", pipe, `${pipe}.new`], { expect: 0 });
      assert.is(await readInHome(user.name, pipe), undefined);
      await itemIn(pipe).make("/");
      assert.match(await readFile(pipe, "utf8"), /^github\.com ssh-ed25519 /);
    });
  },
);

testUnless(test, needsRoot ?? needsCommand("ssh-keygen"))(
  "a private key that a person has stays, and gets its public half; one that tells none is left alone",
  async () => {
    await withUser(async (user) => {
      const path = join(user.home, "id_ed25519");
      const step = sshKey({ path, user: user.name, comment: "ada@host", why: "", live: [] });
      await step.make("/");
      assert.is(await step.look("/"), "ready");
      const [own, half] = [await readFile(path, "utf8"), await readFile(`${path}.pub`, "utf8")];
      assert.match(half, /^ssh-ed25519 \S+ ada@host\n$/);
      await rm(`${path}.pub`);
      assert.is(await step.look("/"), "make");
      await step.make("/");
      assert.is(await readFile(path, "utf8"), own);
      assert.is(await readFile(`${path}.pub`, "utf8"), half);
      await rm(`${path}.pub`);
      await writeFile(path, "half a key");
      await Promise.resolve(step.make("/")).then(
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
      const step = clone({ path, user: user.name, url: remote, branch: undefined, why: "", live: [], isOurs: true });
      const refused = async (done: unknown, words: RegExp) =>
        await Promise.resolve(done).then(
          () => assert.unreachable(),
          ({ message }: Error) => assert.match(message, words),
        );
      await as("mkdir", path);
      assert.is(await step.look("/"), "make", "an empty folder makes room");
      await refused(step.make("/"), /has no commits yet; push one/);
      const commit = "git init -q one; cd one; git -c user.name=a -c user.email=a@b commit -q";
      await as("sh", "-e", "-c", `cd; ${commit} --allow-empty -m one; git push -q ${remote} HEAD`);
      await as("touch", join(path, "notes"));
      await refused(
        step.look("/"),
        /checkout is there and is not a checkout of \S+: fatal: not a git .*; move it away/,
      );
      await refused(step.make("/"), /rmdir/);
      await as("rm", join(path, "notes"));
      await step.make("/");
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
        const remote = { url: "", host: "127.0.0.1", sshPort: sshd.port };
        const [step] = hostKey(remote, { path, user: user.name, why: "", live: [] });
        if (!step) throw new Error("there is no item");
        assert.is(await step.look("/"), "make");
        assert.match(JSON.stringify(await step.make("/")), "compare it with what it publishes");
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

test.run();
