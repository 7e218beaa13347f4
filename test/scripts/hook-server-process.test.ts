// How the server starts and stops: addresses, precedence, users, signals.
import { existsSync, readFileSync } from "node:fs";
import { chown, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { filesBelow, http, logOf, makeYard, pushPayload, sha, sign, startHooks } from "../helpers/hooks.ts";
import { processesOf } from "../helpers/leftovers.ts";
import { runCommand, runScript, scriptArgv, startCommand, startScript } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { withUser } from "../helpers/users.ts";
import { waitFor } from "../helpers/wait.ts";

test("it listens on a Unix socket when told so, and flags and environment win over the file", async () => {
  const dir = await makeYard();
  const socketPath = join(dir, "web");
  const fromEnvironment = join(dir, "from-environment");
  const running = startScript("hook-server", ["--config", join(dir, "hooks.yml"), "--listen", `unix:${socketPath}`], {
    env: { BOATYARD_STATE: fromEnvironment },
  });
  await running.until(/listens on unix:/);
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const headers = {
    "content-type": "application/json",
    "x-github-event": "push",
    "x-hub-signature-256": `sha256=${sign(body)}`,
  };
  const answer = await http({ socketPath }, "/hook", { body, headers });
  assert.is(answer.status, 202, answer.text);
  assert.not.ok(existsSync(join(dir, "state")));
  const list = () => runScript("hook-server", ["list", "--state", fromEnvironment, "--json"]);
  await waitFor(async () => JSON.parse((await list()).stdout).runs[0].state === "succeeded");
  assert.is((await running.stop()).code, 0);
});

test("a new delivery of a commit that was built before is a new run", async () => {
  const server = await startHooks(await makeYard({ job: "echo $HOOK_RUN >>../built" }));
  const first = (await server.push("me/site", sha(1))).body.run;
  await server.idle();
  const second = (await server.push("me/site", sha(1))).body.run;
  await server.idle();
  assert.is(readFileSync(join(server.dir, "built"), "utf8"), `${first}\n${second}\n`);
  await server.stop();
});

test("SIGINT ends what is under way at once, and it runs again at the next start", async () => {
  const dir = await makeYard({ job: "test -e again || { touch again; setsid sleep 100; }" });
  let server = await startHooks(dir);
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/again")));
  server.running.kill("SIGINT");
  assert.is((await server.running.exited).code, 0);
  const left = (await processesOf(dir)).filter(({ command }) => command.includes("sleep"));
  assert.equal(left, []);
  server = await startHooks(dir);
  const [run] = await server.idle();
  assert.equal([run?.state, run?.attempt, run?.interrupted?.length], ["succeeded", 2, 1]);
  await server.stop();
});

test("a second SIGTERM ends the waiting for the runs under way", async () => {
  const dir = await makeYard({ job: "touch begun; sleep 100" });
  const server = await startHooks(dir);
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/begun")));
  server.running.kill("SIGTERM");
  await server.running.until(/SIGTERM: no new deliveries; waiting for 1 runs/);
  server.running.kill("SIGTERM");
  assert.is((await server.running.exited).code, 0);
  const left = (await processesOf(dir)).filter(({ command }) => command.includes("sleep"));
  assert.equal(left, []);
});

testUnless(test, needsStrace)(
  "a signal that comes as soon as a server says that it listens ends it in order",
  async () => {
    const dir = await makeYard();
    const servers: [name: string, args: string[]][] = [
      ["hook-server", ["--config", join(dir, "hooks.yml")]],
      ["slave-server", ["--insecure", "--listen", "127.0.0.1:0", "--repos", join(dir, "repos"), "--base", "file:///x"]],
    ];
    for (const [name, args] of servers) {
      const said = join(dir, `${name}.txt`);
      // each line that it says takes a while until it goes on
      const slow = "write,writev";
      const server = startCommand([
        ...["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", said, "-e", `trace=${slow}`],
        ...["-e", `inject=${slow}:delay_exit=200000`],
        ...["sh", "-c", `exec "$@" 2>'${said}'`, "sh", ...scriptArgv(name), ...args],
      ]);
      await waitFor(() => existsSync(said) && readFileSync(said, "utf8").includes("listens on"));
      process.kill(server.pid, "SIGTERM");
      assert.is((await server.exited).code, 0, name);
    }
  },
);

testUnless(test, needsRoot)(
  "as root a repo without a user is built as root, with a warning; then: runs as the server's user",
  async () => {
    await withUser(async (user) => {
      const dir = await makeYard({
        repos: {
          "me/mine": "",
          "me/site": `user: ${user.name}\nthen: 'id -un; echo then in $HOME, from $PWD'`,
        },
        job: "id -un",
      });
      // both have one checkout here
      await rm(join(dir, "co"), { recursive: true });
      await mkdir(join(dir, "co"));
      await chown(join(dir, "co"), user.uid, user.gid);
      const server = await startHooks(dir);
      const mine = (await server.push("me/mine", sha(1))).body.run;
      const site = (await server.push("me/site", sha(2))).body.run;
      await server.idle();
      await server.running.until(/me\/mine is built as root: name its user in .*hooks\.yml/);
      assert.not.match(server.running.output(), /me\/site is built as root/);
      assert.match(logOf(server, mine), /^root$/m);
      const log = logOf(server, site);
      assert.match(log, new RegExp(`^${user.name}\\n[^]*then: [^]*\\nroot\\nthen in /root, from /$`, "m"));
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)(
  "a build has its user's groups, and none of those that the server was started with",
  async () => {
    await withUser(async (user) => {
      const dir = await makeYard({
        repos: { "me/site": `user: ${user.name}` },
        job: "id -G; grep ^Cap /proc/self/status",
      });
      const server = await startHooks(dir, {
        // 4 is adm (the logs), 6 is disk
        wrap: (args) => startCommand(["setpriv", "--groups=4,6,0", ...scriptArgv("hook-server"), ...args]),
      });
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      assert.match(readFileSync(`/proc/${server.running.pid}/status`, "utf8"), /^Groups:\s+(?=.*\b4\b)(?=.*\b6\b)/m);
      const log = logOf(server, body.run);
      assert.match(log, new RegExp(`^${user.gid}$`, "m"));
      for (const set of ["Inh", "Prm", "Eff", "Bnd", "Amb"]) assert.match(log, new RegExp(`^Cap${set}:\\s+0+$`, "m"));
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)("a run's payload, log and record are closed to the users of other repos", async () => {
  await withUser(async (user) => {
    await withUser(async (other) => {
      const dir = await makeYard({
        repos: { "me/site": `user: ${user.name}`, "me/other": `user: ${other.name}` },
        job: "cat $HOOK_PAYLOAD",
      });
      const server = await startHooks(dir);
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      assert.match(logOf(server, body.run), sha(1), "its own copy can be read");
      const files = filesBelow(server.state);
      for (const name of ["runs.jsonl", `runs/${body.run}/hook-payload.json`, `runs/${body.run}/log`])
        assert.ok(files.includes(join(server.state, name)), name);
      const readable = await runCommand(
        [
          ...["setpriv", `--reuid=${other.uid}`, `--regid=${other.gid}`, "--clear-groups", "--"],
          ...["sh", "-c", 'for each; do cat "$each" >/dev/null 2>&1 && echo "$each"; done; true'],
          ...["sh", ...files, join(dir, "secret"), join(dir, "hooks.yml")],
        ],
        { expect: 0 },
      );
      assert.is(readable.stdout, `${join(dir, "hooks.yml")}\n`, "what all may read, alone");
      await server.stop();
    });
  });
});

test.run();
