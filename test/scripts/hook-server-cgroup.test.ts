// A run is ended with all that it started, however that detached itself: by its cgroup; and what can be done without one.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { noCgroups } from "../helpers/cgroups.ts";
import { type HookServer, logOf, makeYard, runScript, sha, startHooks } from "../helpers/hooks.ts";
import { runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const record = (server: HookServer, id: string) =>
  JSON.parse(readFileSync(join(server.state, "runs", id, "run.json"), "utf8"));

/** Seconds that no other process of this machine sleeps for: that tells ours. */
const forever = 10_000_000 + 10 * process.pid;

/** The commands of the processes that carry a number in their command line. */
async function carrying(number: number): Promise<string[]> {
  const { stdout } = await runCommand(["pgrep", "-a", "-f", `sleep ${number}|renamed ${number}`]);
  return stdout.split("\n").filter((line) => line !== "" && !line.includes("pgrep"));
}

/** Starts what is hard to find: by its session, its environment, its name, its parent. */
const hide = (number: number) => `
env -i /usr/bin/setsid /bin/sh -c '/usr/bin/setsid /bin/sh -c "exec /bin/sleep ${number}" & exit 0' &
env -i /usr/bin/setsid /bin/bash -c 'exec -a "renamed ${number}" /bin/sleep 4000' &
(env -i /usr/bin/setsid /bin/sh -c 'kill -STOP $$; /bin/sleep ${number}' &)
trap '' TERM`;

testUnless(test, noCgroups)(
  "a time-out ends what cleared its environment and forked twice, what is stopped, renamed, and what forks without end",
  async () => {
    const dir = await makeYard({
      repos: { "me/site": "timeout: 1s" },
      job: `${hide(forever + 1)}
cat >chain <<'EOF'
#!/bin/sh
echo x >>links
env -i /usr/bin/setsid "$0" &
EOF
chmod +x chain
cd "$PWD" && env -i /usr/bin/setsid "$PWD/chain"
sleep ${forever + 1}`,
    });
    const server = await startHooks(dir);
    const { body } = await server.push("me/site", sha(1));
    const [run] = await server.idle();
    assert.is(run?.state, "failed");
    assert.match(run?.reason ?? "", /took longer than 1\.0s and was ended/);
    assert.equal(await carrying(forever + 1), []);
    const links = readFileSync(join(dir, "co/links"), "utf8");
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.is(readFileSync(join(dir, "co/links"), "utf8"), links, "the chain of forks goes on");
    assert.ok(links.length > 20, "there was a chain");
    const { cgroup } = record(server, body.run);
    assert.ok(cgroup);
    assert.not(existsSync(cgroup), "the cgroup is removed");
    await server.stop();
  },
);

testUnless(test, noCgroups)(
  "a run that a killed server left is ended by the next one with all that it started",
  async () => {
    const dir = await makeYard({ job: `${hide(forever + 2)}\ntouch begun; sleep ${forever + 2}` });
    let server = await startHooks(dir);
    const { body } = await server.push("me/site", sha(1));
    await waitFor(() => existsSync(join(dir, "co/begun")));
    await server.kill();
    server = await startHooks(dir);
    assert.match(server.running.output(), "outlived the former server");
    assert.is((await server.local(`/runs/${body.run}/cancel`, "POST")).status, 202);
    assert.is((await server.idle())[0]?.state, "cancelled");
    assert.equal(await carrying(forever + 2), []);
    await server.stop();
  },
);

for (const when of ["before the next one starts", "once the next one has taken it over"])
  testUnless(test, noCgroups)(
    `a run of a killed server whose process is gone ${when} is ended with what it hid, before it runs again`,
    async () => {
      const dir = await makeYard({
        job: `test -e begun && exit 0\n${hide(forever + 3)}\necho $PPID >pid; mv pid begun; sleep ${forever + 3}`,
      });
      let server = await startHooks(dir);
      await server.push("me/site", sha(1));
      await waitFor(() => existsSync(join(dir, "co/begun")));
      // the shell around the run, which would note its exit code
      const shell = Number(readFileSync(join(dir, "co/begun"), "utf8"));
      const endShell = async () => {
        process.kill(shell, "SIGKILL");
        await waitFor(async () => !(await isAlive(shell)), { what: `the end of ${shell}` });
      };
      await server.kill();
      if (when.startsWith("before")) await endShell();
      server = await startHooks(dir);
      if (when.startsWith("once")) {
        assert.match(server.running.output(), "outlived the former server");
        await endShell();
      }
      const [run] = await server.idle();
      assert.equal([run?.state, run?.attempt], ["succeeded", 2]);
      assert.equal(await carrying(forever + 3), []);
      await server.stop();
    },
  );

testUnless(test, noCgroups)("a run that kills the shell around it is failed, and leaves nothing behind", async () => {
  const dir = await makeYard({
    job: `${hide(forever + 4)}\nkill -KILL $PPID; sleep ${forever + 4}`,
  });
  const server = await startHooks(dir);
  await server.push("me/site", sha(1));
  const [run] = await server.idle();
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", "its process was ended by SIGKILL");
  assert.equal(await carrying(forever + 4), []);
  await server.stop();
});

testUnless(test, noCgroups)(
  "what a run left behind on purpose is ended when it grows the log past its cap",
  async () => {
    const dir = await makeYard({
      top: "max_log: 100k",
      job: "(while ! test -e go; do sleep 0.05; done; echo stays; yes) & exit 0",
    });
    const server = await startHooks(dir);
    const { body } = await server.push("me/site", sha(1));
    assert.is((await server.idle())[0]?.state, "succeeded");
    const { cgroup } = record(server, body.run);
    assert.match(readFileSync(join(cgroup, "cgroup.events"), "utf8"), "populated 1");
    await runCommand(["touch", join(dir, "co/go")]);
    await waitFor(() => !existsSync(cgroup), { what: "what was left behind to be ended" });
    assert.ok(logOf(server, body.run).length <= 100 * 1024);
    await server.stop();
  },
);

testUnless(test, needsRoot)(
  "where no cgroup can be made a run is ended by its processes, and --check says what that cannot find",
  async () => {
    const dir = await makeYard({
      repos: { "me/site": "timeout: 500ms\nlimits: { memory: 1G }" },
      job: `trap '' TERM; (setsid sh -c 'sleep ${forever + 5} &' &); sleep ${forever + 5}`,
    });
    // a mount namespace of its own, in which the hierarchy is not to be seen
    const hidden = 'for each in $(mount -t cgroup2 | cut -d" " -f3); do umount -l "$each"; done; exec "$@"';
    const wrapped = (args: string[]) => [
      "unshare",
      "--mount",
      "sh",
      "-c",
      hidden,
      "sh",
      ...scriptArgv("hook-server"),
      ...args,
    ];
    const server = await startHooks(dir, { wrap: (args) => startCommand(wrapped(args)) });
    const { body } = await server.push("me/site", sha(1));
    const [run] = await server.idle();
    assert.match(run?.reason ?? "", /took longer than 0\.5s/);
    assert.equal(await carrying(forever + 5), []);
    assert.is(record(server, body.run).cgroup, undefined);
    assert.match(server.running.output(), "limits: cannot be set here");
    await server.stop();
    const check = await runCommand(wrapped(["--check", "--config", join(dir, "hooks.yml")]));
    assert.match(check.stdout, /ok {4}runs have no cgroups: there is no cgroup v2 here; what clears its environment/);
    assert.match(check.stdout, /ok {4}runs under way when the server ends run again/);
  },
);

test("limits that cannot be meant are refused with their place", async () => {
  for (const [limits, problem] of [
    ["limits: { memory: 2 }", /hooks\.yml:\d+:\d+: a run cannot start in less than 16M/],
    ["limits: { cpu: 150 }", /hooks\.yml:\d+:\d+: .*a percentage of one processor/],
    ["limits: { processes: 1 }", /hooks\.yml:\d+:\d+: .*at least 10/],
    ["limits: { ram: 2G }", /hooks\.yml:\d+:\d+: .*ram/],
  ] as const) {
    const dir = await makeYard({ repos: { "me/site": limits } });
    const { code, stderr } = await runScript("hook-server", ["--check", "--config", join(dir, "hooks.yml")]);
    assert.is(code, 2, limits);
    assert.match(stderr, problem);
  }
});

test.run();
