import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { cleanUp } from "../../../lib/core/at-exit.ts";
import { exitCodeOf } from "../../../lib/core/errors.ts";
import { $, cleanEnvironment, sh, timedOut } from "../../../lib/exec/exec.ts";
import { endTree, membersOf, newCookie, startTimeOf } from "../../../lib/exec/process-tree.ts";
import { as, currentUser, lookUpUser, userEnvironment } from "../../../lib/exec/users.ts";
import { needsRoot, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { locked, withUser } from "../../helpers/users.ts";
import { waitFor } from "../../helpers/wait.ts";

test("a command gets its arguments as they are, whatever they hold", async () => {
  const odd = ["a b", "$(touch x)", "`id`", "-n", "'\"", "*", "ü\n"];
  const { stdout } = await $`printf ${"%s|"} ${odd}`;
  assert.is(stdout, `${odd.join("|")}|`);
});

test("a child sees only the listed variables of our environment", async () => {
  process.env["BOATYARD_TEST_SECRET"] = "do not show";
  const { stdout } = await $`env`;
  delete process.env["BOATYARD_TEST_SECRET"];
  assert.not.match(stdout, /do not show/);
  assert.match(stdout, /^PATH=/m);
  assert.match(stdout, /^SHLVL=1$/m);
  const own = (await $({ env: { ONLY: "this" } })`env`).stdout.trim().split("\n");
  assert.equal(
    // bash adds PWD, SHLVL and _
    own.filter((line) => !/^(?:BOATYARD_COOKIE|PWD|SHLVL|_)=/.test(line)),
    ["ONLY=this"],
  );
});

test("a failure names the command, the exit code and its last words", async () => {
  const failed = $`sh -c ${"echo reading >&2; echo 'fatal: no such ref' >&2; exit 7"}`;
  await failed.then(
    () => assert.unreachable(),
    (error: unknown) => {
      assert.is(exitCodeOf(error), 1);
      assert.match((error as Error).message, /^sh failed with exit code 7: fatal: no such ref$/);
    },
  );
  assert.is((await $({ nothrow: true })`false`).exitCode, 1);
});

test("a command that is not there is an error in plain words", async () => {
  await $`no-such-command`.then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /cannot start no-such-command: not found/),
  );
});

test("a folder that is a file is an error in plain words", async () => {
  const { ok, exitCode, message } = await $({ cwd: "/etc/passwd", nothrow: true })`true`;
  assert.not.ok(ok);
  assert.is(exitCode, null);
  assert.match(message, /^cannot start true in \/etc\/passwd: not found/);
});

test("a run is over when the command exits, though a grandchild keeps the pipe open", async () => {
  const { stdout, duration } = await $`sh -c ${"sleep 30 & echo $!"}`;
  assert.match(stdout, /^\d+\n$/);
  assert.ok(duration < 20_000, "did not wait for the grandchild");
  // it was left alive on purpose: end it here
  process.kill(Number(stdout), "SIGKILL");
});

test("a time-out ends the whole tree: who ignores TERM, left the session, forked twice", async () => {
  const script = `
    trap '' TERM
    sleep 4711.1 &
    setsid sleep 4711.2 &
    (setsid sh -c 'sleep 4711.3 & exit' &)
    sleep 4711.4; sleep 4711.5`;
  const cookie = newCookie();
  const started = $({ cookie, grace: 200, nothrow: true })`bash -c ${script}`;
  const tree = { pid: started.pid, cookie };
  await waitFor(async () => (await membersOf(tree)).length >= 5, { what: "the whole tree" });
  await started.kill();
  assert.is((await started).signal, "SIGKILL");
  assert.equal(await membersOf(tree), []);
  assert.ok(timedOut(await $({ timeout: 50, nothrow: true })`sleep 60`));
});

test("what a process forks on its way out is asked to end, too, and not only killed after the grace", async () => {
  const cookie = newCookie();
  // no shell: what one forks loses a TERM that comes before its exec, while a trap is set
  const script = `process.on("SIGTERM", () => {
    require("node:child_process").spawn("sleep", ["4712"], { stdio: "ignore" });
    process.exit();
  });
  setInterval(() => {}, 1000);
  console.log("ready");`;
  let isReady = false;
  const onLine = () => (isReady = true);
  const started = $({ cookie, nothrow: true, onLine })`node -e ${script}`;
  const tree = { pid: started.pid, cookie };
  await waitFor(() => isReady);
  assert.is(await endTree(tree, { grace: 10_000 }), 0, "killed");
  assert.equal(await membersOf(tree), []);
  await started;
});

test("a pipe is written as a pipe: each part of it counts, and no value is read as code", async () => {
  assert.is((await $`printf %s ${"a | b"} | tr a c`).stdout, "c | b");
  await $`false | cat`.then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /^false cat failed with exit code 1$/),
  );
});

test("the first word is a program and no assignment, and options hold for their command alone", async () => {
  const failed = await $({ nothrow: true })`${"A=b"} true`;
  assert.match(failed.message, /^cannot start A=b: not found/);
  let nested: Promise<{ stdout: string }> | undefined;
  await $({ cwd: "/", onLine: () => void (nested = $`pwd`) })`echo`;
  assert.is((await nested)?.stdout, `${process.cwd()}\n`);
});

test("a command that prints without end is ended", async () => {
  await $`cat /dev/zero`.then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /^cat printed more than 64 MiB and was ended/),
  );
});

test("the output comes line by line, the last one without its end too", async () => {
  const lines: string[] = [];
  const onLine = (line: string) => lines.push(line);
  await $({ onLine })`sh -c ${"printf 'a\\nü\\n\\nlast'"}`;
  assert.equal(lines, ["a", "ü", "", "last"]);
});

test("output straight into a file keeps the order of both streams", async () => {
  const file = join(tempDir(), "log");
  const fd = openSync(file, "a");
  await sh("echo 1; echo 2 >&2; echo 3", { stdio: ["ignore", fd, fd] });
  closeSync(fd);
  assert.is(readFileSync(file, "utf8"), "1\n2\n3\n");
});

test("input reaches the command, and a shell command gets data only by its environment", async () => {
  assert.is((await $({ input: "hello" })`cat`).stdout, "hello");
  const env = cleanEnvironment({ NAME: "$(id)" });
  assert.is((await sh('echo "$NAME"', { env })).stdout, "$(id)\n");
});

test("a user that does not exist, or that is no name, is refused", async () => {
  for (const name of ["no-such-user-here", "-x", "a b", "../etc", ""]) {
    await lookUpUser(name).then(
      () => assert.unreachable(name),
      (error: Error) => assert.is(error.name, "UsageError"),
    );
  }
  assert.is((await lookUpUser(currentUser().name)).uid, process.getuid?.());
});

const rootTest = testUnless(test, needsRoot);

rootTest("root runs a command as another user, with its groups and no privilege", async () => {
  const user = await lookUpUser("nobody");
  const script = "id -un; id -Gn; grep CapBnd /proc/self/status";
  const { stdout } = await $(as(user))`sh -c ${script}`;
  assert.match(stdout, /^nobody\nnogroup\nCapBnd:\s+0000000000000000\n$/);
});

rootTest("a user whose shell is left out in /etc/passwd has that of passwd(5)", async () => {
  await withUser(async ({ name, home }) => {
    await locked(["usermod", "--shell", "", name]);
    const env = userEnvironment(await lookUpUser(name));
    assert.equal([env["SHELL"], env["HOME"]], ["/bin/sh", home]);
  });
});

test("what a command printed is not lost when the program is busy as it ends", async () => {
  const busy = (ms: number) => {
    const end = performance.now() + ms;
    while (performance.now() < end);
  };
  const started = performance.now();
  do {
    let going = true;
    // longer than the pipes are read after an exit: the timer is due before they are looked at
    const again = () => {
      if (!going) return;
      busy(60);
      setImmediate(again);
    };
    const results = Promise.all(Array.from({ length: 8 }, () => $`echo hi`));
    setImmediate(again);
    for (const { stdout } of await results.finally(() => (going = false))) assert.is(stdout, "hi\n");
  } while (performance.now() - started < 1000);
});

test("what may outlive the script is left when it ends, all else is ended; only what may ask stays in its session", async () => {
  const [stays, goes] = [$({ outlives: true, nothrow: true })`sleep 60`, $({ nothrow: true })`sleep 60`];
  await cleanUp();
  assert.is((await goes).signal, "SIGTERM");
  assert.ok(stays.pid && (await startTimeOf(stays.pid)));
  await endTree({ pid: stays.pid });
  const session = async (asks: boolean) => Number((await $({ asks })`ps -o sid= -p $$`).stdout);
  const own = Number((await $({ asks: true })`ps -o sid= -p ${process.pid}`).stdout);
  assert.is(await session(true), own);
  assert.is.not(await session(false), own);
});

test.run();
