// The configuration of a running server: secrets from the environment, and edits that are taken over.
import { existsSync, readFileSync } from "node:fs";
import { chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { filesBelow, http, makeYard, runScript, secret, sha, startHooks } from "../helpers/hooks.ts";
import { startCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { injected, needsStrace } from "../helpers/strace.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

test("where no hooks.yml is named and there is none, both places that were looked at are told", async () => {
  const central = "/etc/boatyard/hooks.yml";
  const cwd = tempDir();
  for (const args of [["--check"], ["list"]]) {
    const { code, stderr } = await runScript("hook-server", args, { cwd });
    assert.is(code, 2);
    if (existsSync(central)) continue;
    assert.match(stderr, `there is neither ${join(cwd, "hooks.yml")} nor ${central}; name the file by --config`);
  }
});

test("secrets of less than 16 characters fail the check, and every start warns of them", async () => {
  const dir = await makeYard({
    top: "status: { token_env: STATUS_TOKEN }",
    repos: { "me/site": "secret_env: SHORT", "me/other": "" },
  });
  const env = { SHORT: "fifteen letters", STATUS_TOKEN: "t0ken" };
  const config = join(dir, "hooks.yml");
  const { code, stdout } = await runScript("hook-server", ["--check", "--config", config], { env });
  assert.is(code, 2);
  assert.match(stdout, /fix +a secret of me\/site has 16 characters or more: make a longer one/);
  assert.match(stdout, /fix +the token of status: has 16/);
  assert.not.match(stdout, /secret of me\/other|fifteen letters/);
  const server = await startHooks(dir, { env });
  await server.running.until(/a secret of me\/site is shorter than 16 characters/);
  assert.match(server.running.output(), /the token of status: is shorter/);
  assert.not.match(server.running.output(), /secret of me\/other|fifteen letters/);
  await server.stop();
});

test("secrets and the token may come from the environment, and are found nowhere else", async () => {
  const [one, two, token] = ["planted-0ne/of+two", "planted-tw0-of-two", "planted-t0ken"];
  const secrets = { HOOK_SECRET_ONE: one, HOOK_SECRET_TWO: two, STATUS_TOKEN: token };
  // which certificates to trust is no secret, and holds for what runs
  const env = { ...secrets, SSL_CERT_DIR: "/etc/ssl/certs" };
  const dir = await makeYard({
    top: "status: { token_env: STATUS_TOKEN }",
    repos: {
      "me/site": `secret_env: [HOOK_SECRET_ONE, HOOK_SECRET_TWO]\nthen: 'env; echo then'`,
      "me/lab": "secret_env: HOOK_SECRET_TWO",
    },
    // what a build can find out of its server, and what a careless one prints
    job: `env; tr '\\0' '\\n' </proc/$PPID/environ; echo ${one}; printf %s ${two} | base64; echo ${token}`,
  });
  const server = await startHooks(dir, { env });
  const answers = [
    await server.push("me/site", sha(1), { key: one }),
    await server.push("me/site", sha(2), { key: two }),
    await server.push("me/lab", sha(3), { key: two }),
    await server.push("me/lab", sha(4), { key: one }),
    await server.push("me/site", sha(5), { key: secret }),
  ];
  assert.equal(
    answers.map(({ status }) => status),
    [202, 202, 202, 401, 401],
  );
  const runs = await server.idle();
  const log = (await server.local(`/runs/${runs.find((run) => run.repo === "me/site")?.id}/log`)).text;
  assert.match(log, /^HOOK_SHA=/m);
  assert.match(log, /^SSL_CERT_DIR=[^]*then: [^]*^SSL_CERT_DIR=[^]*^then$/m);
  assert.not.match(log, /HOOK_SECRET|STATUS_TOKEN/);
  const ask = (path: string, given: string) =>
    http({ port: server.port }, path, { headers: { authorization: `Bearer ${given}` } });
  for (const wrong of [one, token.slice(0, -1), `${token}1`]) assert.is((await ask("/runs", wrong)).status, 401, wrong);
  for (const path of ["/runs", `/runs/${runs[0]?.id}/log`, "/metrics", "/nothing"]) {
    const answer = await ask(path, token);
    assert.is(answer.status, path === "/nothing" ? 404 : 200);
    answers.push(answer);
  }
  await server.stop();
  const { stderr } = await runScript("hook-server", ["--config", join(dir, "hooks.yml")], {
    env: { ...env, HOOK_SECRET_TWO: undefined, STATUS_TOKEN: "" },
  });
  assert.match(stderr, /hooks\.yml:\d+:\d+: environment variable HOOK_SECRET_TWO is not set/);
  assert.match(stderr, /hooks\.yml:\d+:\d+: environment variable STATUS_TOKEN is not set/);
  const texts = [
    ...answers.map(({ text }) => text),
    stderr,
    server.running.output(),
    ...filesBelow(server.state).map((file) => readFileSync(file, "latin1")),
  ];
  for (const planted of [one, two, token]) {
    const base64 = Buffer.from(planted).toString("base64").slice(0, 14);
    for (const text of texts) {
      assert.not(text.includes(planted), text);
      assert.not(text.includes(base64), text);
    }
  }
});

/** Puts a text into the place of hooks.yml, as editors do. */
async function replace(dir: string, text: string): Promise<void> {
  await writeFile(join(dir, "hooks.new"), text);
  await rename(join(dir, "hooks.new"), join(dir, "hooks.yml"));
}

const readAgain = /was read again|was not taken over/g;

test("an edit in place or by a new file, and a secret's, is taken over once; what a refused one lacks is waited for", async () => {
  const dir = await makeYard();
  const text = readFileSync(join(dir, "hooks.yml"), "utf8");
  const server = await startHooks(dir);
  const count = () => server.running.output().match(readAgain)?.length ?? 0;
  const status = async (repo: string, key = secret) => (await server.push(repo, sha(1), { key })).status;
  // in one step: a file that is emptied first may be read while it is empty
  const inPlace = (name: string, longer: string) => writeFile(join(dir, name), longer, { flag: "r+" });
  await inPlace("hooks.yml", text.replace("me/site", "me/moved"));
  await waitFor(() => count() === 1);
  assert.equal([await status("me/moved"), await status("me/site")], [202, 404]);
  await replace(dir, text);
  await waitFor(() => count() === 2);
  assert.equal([await status("me/moved"), await status("me/site")], [404, 202]);
  await inPlace("secret", "another-planted-secret-of-the-forge\n");
  await waitFor(() => count() === 3);
  assert.equal([await status("me/site"), await status("me/site", "another-planted-secret-of-the-forge")], [401, 202]);
  // the secret is written after the file that names it, then its mode is corrected
  await replace(dir, text.replace("secret_file: secret", "secret_file: new"));
  await server.running.until(/taken over, the former configuration stays: .*new does not exist/);
  await writeFile(join(dir, "new"), "the-new-planted-one", { mode: 0o644 });
  await chmod(join(dir, "new"), 0o644);
  await server.running.until(/stays: .*new can be read by everybody; run: chmod 600/);
  assert.is(await status("me/site", "another-planted-secret-of-the-forge"), 202);
  await chmod(join(dir, "new"), 0o600);
  await waitFor(async () => (await status("me/site", "the-new-planted-one")) === 202);
  // a repo in a file of its own comes, and goes
  await mkdir(join(dir, "hooks.d"));
  await writeFile(join(dir, "hooks.d/own.yml"), "repos: { me/own: { dir: co, secret_file: new } }\n");
  await waitFor(async () => (await status("me/own", "the-new-planted-one")) === 202);
  await server.idle();
  const known = count();
  await rm(join(dir, "hooks.d/own.yml"));
  await waitFor(() => count() > known);
  assert.is(await status("me/own", "the-new-planted-one"), 404);
  await server.idle();
  // one reading after the other: any that was to come without an edit would come before
  const before = count();
  server.running.kill("SIGHUP");
  await waitFor(() => count() > before);
  assert.is(count(), before + 1);
  await server.stop();
});

testUnless(test, needsStrace)("where the kernel watches no more files, an edit is found by looking", async () => {
  const dir = await makeYard();
  const server = await startHooks(dir, {
    wrap: (args) => startCommand(injected("hook-server", args, "inotify_init1,inotify_add_watch", "error=ENOSPC")),
  });
  const text = readFileSync(join(dir, "hooks.yml"), "utf8");
  await replace(dir, text.replace("me/site", "me/moved"));
  await server.running.until(/was read again: 1 repos/);
  assert.is((await server.push("me/moved", sha(1))).status, 202);
  await server.idle();
  assert.not.match(server.running.output(), /ENOSPC|bug/);
  const { body } = await server.local("/runs");
  assert.is(body.runs.length, 1);
  // not strace is to be ended, but the server below it
  process.kill(JSON.parse(readFileSync(join(server.state, "lock"), "utf8")).pid);
  assert.is((await server.running.exited).code, 0);
});

test.run();
