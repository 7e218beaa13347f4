// boatyard up and boatyard app before they reach a server; with one: test/soak/up.soak.ts.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, makeRepo } from "../helpers/repos.ts";
import { runScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsSshd, startSshd } from "../helpers/sshd.ts";
import { tempDir } from "../helpers/tmp.ts";

const launchify = "app: { exec: node server.js }\nhost: app.example.com\n";

test("up says what is missing before it asks a server", async () => {
  const outside = await runScript("up", ["root@example.com"], { cwd: tempDir(), expect: 2 });
  assert.match(outside.stderr, "this folder is in no git repository");
  const { work: dir } = await makeRepo({ files: { "server.js": "" } });
  const up = (...words: string[]) => runScript("up", words, { cwd: dir });
  assert.match((await up()).stderr, "name the server: boatyard up root@example.com");
  assert.match((await up("-oProxyCommand=x", "--yes")).stderr, "unknown flag");
  assert.match((await up("a b")).stderr, '"a b" is not a server');
  const none = await up("root@example.com");
  assert.is(none.code, 2);
  assert.match(none.stderr, "HEAD has no launchify.yml; write it, and commit it:");
  assert.match(none.stderr, "host: example.com");
  writeFileSync(join(dir, "launchify.yml"), "app:\n  exce: x\n");
  await git(dir, "add", "-A");
  await git(dir, "commit", "-q", "-m", "app");
  const wrong = await up("root@example.com");
  assert.is(wrong.code, 2);
  assert.match(wrong.stderr, /^up: launchify.yml:2:3: unknown key "exce" \(did you mean "exec"\?\)/);
});

testUnless(test, needsSshd)(
  "up looks at a server by ssh, and changes nothing on one that it does not know",
  async () => {
    const sshd = await startSshd();
    const { work: dir } = await makeRepo({ files: { "server.js": "", "launchify.yml": launchify } });
    const bin = tempDir();
    // what up and git call, with what reaches that server
    const lines = ["#!/bin/sh", `exec /usr/bin/ssh ${sshd.sshOptions.map((each) => `'${each}'`).join(" ")} "$@"`, ""];
    writeFileSync(join(bin, "ssh"), lines.join("\n"), { mode: 0o755 });
    const env = { PATH: `${bin}:${process.env["PATH"]}` };
    const asked = await runScript("up", [`${sshd.user}@127.0.0.1`, "--dry-run"], { cwd: dir, env });
    assert.ok([0, 2].includes(asked.code ?? 1), asked.stderr);
    assert.match(
      asked.stdout + asked.stderr,
      /make {3}packages|is not root|not run by systemd|knows Debian|holds port|has no key/,
    );
    await sshd.stop();
    const gone = await runScript("up", [`${sshd.user}@127.0.0.1`, "--yes"], { cwd: dir, env, expect: 1 });
    assert.match(gone.stderr, /cannot be reached: .*(?:refused|closed)/i);
  },
);

test("app says what it needs, and secrets are not taken from a command line", async () => {
  const { work: dir } = await makeRepo({ files: { "server.js": "" } });
  const app = (...words: string[]) => runScript("app", words, { cwd: dir });
  assert.match((await app()).stderr, "say what: app logs, status");
  assert.match((await app("status")).stderr, "has no git remote boatyard");
  assert.match((await app("status", "--name", "no-such-app")).stderr, 'there is no app "no-such-app" on this machine');
  assert.match((await app("env", "set", "A=b")).stderr, "give the name alone");
  await git(dir, "remote", "add", "boatyard", "https://example.com/x.git");
  assert.match((await app("status")).stderr, "which boatyard up did not write");
  await git(dir, "remote", "set-url", "boatyard", "shop@example.com:shop.git");
  assert.match((await app("remove", "other")).stderr, "write app remove shop");
});

test.run();
