// What a build cannot do to its log, its payload and the server's files, and where `then` commands run.
import { existsSync, readFileSync, statSync } from "node:fs";
import { chmod, chown, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type HookServer, logOf, makeYard, runScript, sha, startHooks } from "../helpers/hooks.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { type TestUser, withUser } from "../helpers/users.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const fileOf = (server: HookServer, run: string, name: string) => join(server.state, "runs", run, name);

/** A yard whose checkout and build are another user's. */
async function yardOf(user: TestUser, job: string, more = "", top = ""): Promise<string> {
  const dir = await makeYard({ repos: { "me/site": `user: ${user.name}\n${more}` }, job, top });
  await chown(join(dir, "co"), user.uid, user.gid);
  return dir;
}

test("a log that is grown at the very end of a run is cut, and its end takes no time", async () => {
  const dir = await makeYard({
    top: "max_log: 200k",
    job: "echo the first line; truncate --size 20G /proc/self/fd/1",
  });
  const server = await startHooks(dir);
  const before = Date.now();
  const { body } = await server.push("me/site", sha(1));
  const [run] = await server.idle();
  assert.ok(Date.now() - before < 5000 * slowness(), "it ends at once");
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /wrote more than 200 kB of log/);
  assert.ok(statSync(fileOf(server, body.run, "log")).size < 201 * 1024);
  const log = logOf(server, body.run);
  assert.match(log, "the first line");
  assert.match(log.slice(-200), /failed: wrote more than 200 kB of log/);
  await server.stop();
});

testUnless(test, needsRoot)(
  "what a build makes of its payload reaches neither a rerun nor another repo's user",
  async () => {
    await withUser(async (user) => {
      const dir = await yardOf(
        user,
        'wc -c <"$HOOK_PAYLOAD"; chmod u+w "$HOOK_PAYLOAD"; truncate --size 3G "$HOOK_PAYLOAD"; rm -f "$HOOK_PAYLOAD"; ls "$(dirname "$HOOK_PAYLOAD")"',
      );
      const server = await startHooks(dir);
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      const kept = statSync(fileOf(server, body.run, "hook-payload.json"));
      assert.equal([kept.uid, kept.gid, kept.mode & 0o777], [0, user.gid, 0o440]);
      assert.match(logOf(server, body.run), /^\d{3}\n/);
      const again = (await server.local(`/runs/${body.run}/rerun`, "POST")).body.run;
      await server.idle();
      const size = (run: string) => /^(\d+)\n/.exec(logOf(server, run))?.[1];
      assert.is(size(again), size(body.run), "the rerun has the payload that came");
      await server.stop();
    });
  },
);

test("a payload that is no file, or larger than any forge sends, is not read for a rerun", async () => {
  const dir = await makeYard({
    job: 'kept="$HOOK_PAYLOAD"; chmod u+w "$kept"; truncate --size 3G "$kept"; test -e pipe && { rm "$kept"; mkfifo "$kept"; }; touch pipe',
  });
  const server = await startHooks(dir);
  for (const commit of [sha(1), sha(2)]) {
    const { body } = await server.push("me/site", commit);
    await server.idle();
    const answer = await server.local(`/runs/${body.run}/rerun`, "POST");
    assert.is(answer.status, 410);
  }
  await server.stop();
});

test("a build of the server's own user that puts something else in place of its log or its folder, or removes that, holds nothing up", async () => {
  const dir = await makeYard({
    repos: { "me/site": "then: [echo then]" },
    job: `log="$(dirname "$HOOK_PAYLOAD")/log"
case $(cat count 2>/dev/null || echo 0) in
0) rm "$log"; mkfifo "$log";;
1) ln -sf "$PWD/../secret" "$log";;
2) rm -r "$(dirname "$HOOK_PAYLOAD")";;
3) rm "$log"; mkdir "$log";;
4) rm -r "\${log%/log}"; touch "\${log%/log}";;
esac
echo $(($(cat count 2>/dev/null || echo 0) + 1)) >count`,
  });
  const server = await startHooks(dir);
  const secret = readFileSync(join(dir, "secret"), "utf8");
  for (let n = 0; n < 6; n++) {
    const { body } = await server.push("me/site", sha(n));
    const runs = await server.idle();
    // without a folder its then command cannot start
    const state = n === 4 ? "failed" : "succeeded";
    assert.is(runs.find((run) => run.id === body.run)?.state, state, String(n));
    const log = await server.local(`/runs/${body.run}/log`);
    assert.is(log.status, 200);
    assert.match(log.text, n === 4 ? "the log cannot be read" : state, String(n));
  }
  assert.is(readFileSync(join(dir, "secret"), "utf8"), secret);
  await server.stop();
});

testUnless(test, needsRoot)(
  "then commands run in / when the checkout is another user's, and HOOK_DIR names it; --check and the first start say so",
  async () => {
    await withUser(async (user) => {
      const dir = await yardOf(
        user,
        'echo "run in $PWD, $HOOK_DIR"; printf "#!/bin/sh\\necho taken\\n" >ls; chmod +x ls; echo . >BASH_ENV',
        'then: ["echo then in $PWD, $HOOK_DIR, $(id -un); env", "grep -q $BOATYARD_COOKIE $(dirname $HOOK_PAYLOAD)/../../runs.jsonl && echo the cookie was known"]',
      );
      let server = await startHooks(dir);
      const said =
        /me\/site: its on_success, on_failure and on_change commands run as root in \/, as .*co is .*'s; HOOK_DIR names it/;
      await waitFor(() => said.test(server.running.output()));
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      const log = logOf(server, body.run);
      assert.match(log, `run in ${dir}/co, ${dir}/co`);
      assert.match(log, `then in /, ${dir}/co, root`);
      assert.match(log, "the cookie was known");
      assert.not.match(log, /NOTIFY_SOCKET|LISTEN_|WATCHDOG_|INVOCATION_ID/);
      await server.stop();
      server = await startHooks(dir);
      await server.push("me/site", sha(2));
      await server.idle();
      assert.not.match(server.running.output(), said);
      await server.stop();
      const file = join(dir, "hooks.yml");
      const check = () => runScript("hook-server", ["--check", "--config", file]);
      assert.match((await check()).stdout, said);
      await writeFile(file, (await readFile(file, "utf8")).replace("then:", "on_failure:"));
      assert.match((await check()).stdout, said);
    });
  },
);

test("a server that was killed during a then command goes on with those after it", async () => {
  const dir = await makeYard({
    repos: {
      "me/site": 'then: ["echo one >>order; touch waits; while ! test -e go; do sleep 0.05; done", "echo two >>order"]',
    },
    job: "echo run >>order",
  });
  let server = await startHooks(dir);
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/waits")));
  await server.kill();
  server = await startHooks(dir);
  await writeFile(join(dir, "co/go"), "");
  assert.equal((await server.idle())[0]?.state, "succeeded");
  assert.is(readFileSync(join(dir, "co/order"), "utf8"), "run\none\ntwo\n");
  await server.stop();
});

testUnless(test, needsRoot)(
  "a build of another user has no way to the server's files, its shell, or systemd",
  async () => {
    await withUser(async (user) => {
      const dir = await yardOf(
        user,
        `run="$(dirname "$HOOK_PAYLOAD")"
for each in log exit hook-payload.json x; do echo evil >"$run/$each" && echo "wrote $each"; rm "$run/$each" && echo "removed $each"; ln -sf /etc/passwd "$run/$each" && echo "linked $each"; done 2>/dev/null
rm -rf "$run" 2>/dev/null
ls "$run/.." 2>/dev/null && echo "listed"
cat "$run/../../runs.jsonl" /proc/$PPID/environ /proc/$PPID/mem 2>/dev/null && echo "read"
kill -KILL $PPID 2>/dev/null && echo "killed the shell"
for each in /proc/$PPID/fd/*; do echo evil >"$each"; done 2>/dev/null
for each in $(mount -t cgroup2 | cut -d' ' -f3); do echo $$ >"$each/cgroup.procs"; done 2>/dev/null && echo "left the cgroup"
env | grep -E '^(NOTIFY_SOCKET|LISTEN_|WATCHDOG_|INVOCATION_ID|BOATYARD_)' | grep -v ^BOATYARD_STAGES=
exit 5`,
      );
      await mkdir(join(dir, "state"), { mode: 0o711 });
      await chmod(join(dir, "state"), 0o711);
      process.env["NOTIFY_SOCKET"] = "/run/nobody-there";
      const server = await startHooks(dir, { env: { LISTEN_FDNAMES: "x", WATCHDOG_PID: "1" } });
      delete process.env["NOTIFY_SOCKET"];
      const { body } = await server.push("me/site", sha(1));
      const [run] = await server.idle();
      assert.equal([run?.state, run?.exit], ["failed", 5]);
      const log = logOf(server, body.run);
      assert.match(log, /^BOATYARD_COOKIE=[0-9a-f]+\n[^\n]* failed: exit code 5 \(.*\)\n$/, log);
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)(
  "a checkout that is a link into a folder closed to its user does not open that folder to a build",
  async () => {
    await withUser(async (user) => {
      const dir = await yardOf(user, 'echo "in $PWD"; cat ./open-file');
      await mkdir(join(dir, "closed/inner"), { recursive: true });
      await writeFile(join(dir, "closed/inner/open-file"), "what root keeps");
      await chmod(join(dir, "closed"), 0o700);
      await rm(join(dir, "co"), { recursive: true });
      await symlink(join(dir, "closed/inner"), join(dir, "co"));
      const server = await startHooks(dir);
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      const log = logOf(server, body.run);
      assert.match(log, "in /\n");
      assert.not.match(log, "what root keeps");
      await server.stop();
    });
  },
);

test.run();
