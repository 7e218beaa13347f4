// What a build, its repo's remote and a payload can do to the server, and to the terminal of who looks at it.
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { logOf, makeYard, runScript, secret, sha, startHooks } from "../helpers/hooks.ts";
import { git } from "../helpers/repos.ts";
import { runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { withUser } from "../helpers/users.ts";
import { waitFor } from "../helpers/wait.ts";

const acting = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/;

test("descriptors that the server was started with, and its own, reach neither a run nor git, whatever their numbers", async () => {
  const dir = await makeYard({ repos: { "me/site": "poll: 1h" }, job: "ls -l /proc/self/fd" });
  // git starts what the repo's user has set
  await git(join(dir, "co"), "init", "--quiet");
  await git(join(dir, "co"), "remote", "add", "origin", "ssh://nobody.invalid/x");
  await git(join(dir, "co"), "config", "core.sshCommand", join(dir, "ssh"));
  const ssh = `#!/bin/sh\nls -l /proc/self/fd >${dir}/of-git; exit 1\n`;
  writeFileSync(join(dir, "ssh"), ssh, { mode: 0o755 });
  writeFileSync(join(dir, "of-the-parent"), "");
  const open = [5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 40, 200]
    .map((fd) => `exec ${fd}<${dir}/of-the-parent`)
    .join("; ");
  const server = await startHooks(dir, {
    wrap: (args) => startCommand(["bash", "-c", `${open}; exec "$@"`, "bash", ...scriptArgv("hook-server"), ...args]),
  });
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const log = logOf(server, body.run);
  assert.match(log, / 2 -> /);
  const foreign = /of-the-parent|socket:|state\/lock/;
  assert.not.match(log, foreign);
  await server.running.until(/cannot look for missed pushes/);
  // git's own stderr may be a socket that Node made for it
  const ofGit = readFileSync(join(dir, "of-git"), "utf8").replace(/ 2 -> .*/, "");
  assert.match(ofGit, / 0 -> /);
  assert.not.match(ofGit, foreign);
  await server.stop();
});

testUnless(test, needsRoot)(
  "a build of another user cannot hold the server's lock, also where a former version made it readable",
  async () => {
    await withUser(async (user) => {
      const dir = await makeYard({
        repos: { "me/site": `user: ${user.name}` },
        job: "flock -n ../state/lock true && echo had the lock; exit 0",
      });
      mkdirSync(join(dir, "state"), { mode: 0o711 });
      writeFileSync(join(dir, "state/lock"), "", { mode: 0o644 });
      chmodSync(join(dir, "state/lock"), 0o644);
      const server = await startHooks(dir);
      assert.is(statSync(join(server.state, "lock")).mode & 0o777, 0o600);
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      await server.stop();
      const log = logOf(server, body.run);
      assert.match(log, /lock/);
      assert.not.match(log, /had the lock/);
    });
  },
);

test("the log of a run that goes on shows no half of a secret, and none that begins with another one", async () => {
  const longer = `${secret}-and-its-tail`;
  const dir = await makeYard({
    repos: { "me/site": "secret_file: [secret, longer]" },
    job: `head -c 300000 /dev/zero | tr '\\0' x; printf %s '${secret}'; touch first
      until test -e next; do sleep 0.02; done
      head -c 5000 /dev/zero | tr '\\0' y; printf '%s\\nsecond %.20s' '${longer}' '${longer}'; touch second
      until test -e go; do sleep 0.02; done; echo`,
  });
  await writeFile(join(dir, "longer"), longer, { mode: 0o600 });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const log = async () => (await server.local(`/runs/${body.run}/log`)).text;
  await waitFor(() => existsSync(join(dir, "co/first")));
  assert.not.match(await log(), secret.slice(0, 6));
  writeFileSync(join(dir, "co/next"), "");
  await waitFor(() => existsSync(join(dir, "co/second")));
  const running = await log();
  assert.match(running, /x\*\*\*y/);
  assert.match(running, /y\*\*\*\n$/);
  assert.not.match(running, /tail|planted/);
  writeFileSync(join(dir, "co/go"), "");
  await server.idle();
  assert.match(await log(), /second planted/, "what is no whole secret is shown at the end");
  await server.stop();
});

test("what a remote, a command and a payload print does not act on a terminal", async () => {
  const evil = "\u001b]0;title\u0007\u001b[2Jevil\u009b31m\u202egnp";
  const dir = await makeYard({
    repos: { "me/site": "poll: 1h\nrefs: [main, 'refs/tags/*']" },
    job: 'printf "\\033[31mred\\033[0m \\033]0;title\\007\\033[2J\\302\\2332J\\342\\200\\256moved\\n"; exit 1',
  });
  await git(join(dir, "co"), "init", "--quiet");
  await git(join(dir, "co"), "remote", "add", "origin", "ssh://nobody.invalid/x");
  writeFileSync(join(dir, "ssh"), `#!/bin/sh\necho 'fatal: ${evil}' >&2; exit 1\n`, {
    mode: 0o755,
  });
  await git(join(dir, "co"), "config", "core.sshCommand", join(dir, "ssh"));
  const server = await startHooks(dir);
  await server.running.until(/cannot look for missed pushes of me\/site: git ls-remote .*evil/);
  const payload = {
    action: "published",
    release: { tag_name: "v1", name: evil, html_url: evil },
    repository: { full_name: "me/site" },
  };
  const { body } = await server.send({ event: "release", payload });
  // git takes these in a name
  await server.push("me/site", sha(1), { ref: "refs/tags/\u202egnp\u009b2J" });
  await server.idle();
  const state = ["--state", server.state];
  const shown = async (...args: string[]) => (await runScript("hook-server", [...args, ...state])).stdout;
  const texts = {
    // Deno tells what it loads in colours of its own
    "its log": server.running.stderr().replace(/^.*Download.*\n/gm, ""),
    list: await shown("list"),
    show: await shown("show", body.run),
    "show --json": await shown("show", "--json", body.run),
    log: await shown("log", body.run),
  };
  for (const [name, text] of Object.entries(texts)) assert.not.match(text, acting, `${name}: ${JSON.stringify(text)}`);
  assert.is(JSON.parse(texts["show --json"]).release.url, evil.replace(/\p{Cc}+/gu, " "));
  assert.match(texts.list, / tag <202e>gnp /);
  assert.match(texts.log, /red .*moved/);
  const { code, stderr } = await runScript("hook-server", ["--check", "--config", join(dir, "hooks.yml")]);
  assert.is(code, 2, stderr);
  await server.stop();
});

test("on a terminal a run's log keeps its colours, and nothing else that acts on it", async () => {
  const dir = await makeYard({
    job: 'printf "\\033[31mred\\033[0m\\033[2J\\033]0;title\\007 end\\n"',
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const argv = [...scriptArgv("hook-server"), "log", body.run, "--state", server.state];
  const quoted = argv.map((word) => `'${word}'`).join(" ");
  const { stdout } = await runCommand(["script", "-qec", quoted, "/dev/null"], {
    env: { TERM: "xterm" },
  });
  assert.match(stdout, "\u001b[31mred\u001b[0m end");
  assert.not.match(stdout, "\u001b[2J");
  await server.stop();
});

test.run();
