import { closeSync, openSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { userEnvironment } from "../../../lib/exec/as-user.ts";
import { Failure } from "../../../lib/core/errors.ts";
import { cleanEnvironment, run, shell, start } from "../../../lib/exec/exec.ts";
import { membersOf } from "../../../lib/exec/process-tree.ts";
import { currentUser, lookUpUser } from "../../../lib/exec/users.ts";
import { needsRoot, testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

test("a command gets its arguments as they are, whatever they hold", async () => {
  const odd = ["a b", "$(touch x)", "`id`", "-n", "'\"", "*", "ü\n"];
  const { stdout } = await run(["printf", "%s|", ...odd]);
  assert.is(stdout, `${odd.join("|")}|`);
});

test("a child sees only the listed variables of our environment", async () => {
  process.env["BOATYARD_TEST_SECRET"] = "do not show";
  const { stdout } = await run(["env"]);
  delete process.env["BOATYARD_TEST_SECRET"];
  assert.not.match(stdout, /do not show/);
  assert.match(stdout, /^PATH=/m);
  assert.match(stdout, /^SHLVL=1$/m);
  const own = (await run(["env"], { env: { ONLY: "this" } })).stdout.trim().split("\n");
  assert.equal(
    own.filter((line) => !line.startsWith("BOATYARD_COOKIE=")),
    ["ONLY=this"],
  );
});

test("a failure names the command, the exit code and its last words", async () => {
  const failed = run(["sh", "-c", "echo reading >&2; echo 'fatal: no such ref' >&2; exit 7"]);
  await failed.then(
    () => assert.unreachable(),
    (error: unknown) => {
      assert.instance(error, Failure);
      assert.match((error as Error).message, /^sh failed with exit code 7: fatal: no such ref$/);
    },
  );
  assert.is((await run(["false"], { check: false })).code, 1);
});

test("a command that is not there is an error in plain words", async () => {
  await run(["no-such-command"]).then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /cannot start no-such-command: not found/),
  );
});

test("a run is over when the command exits, though a grandchild keeps the pipe open", async () => {
  const { stdout, ms } = await run(["sh", "-c", "sleep 30 & echo done"]);
  assert.is(stdout, "done\n");
  assert.ok(ms < 20_000, "did not wait for the grandchild");
  // it was left alive on purpose: end it here
  for (const { pid } of await sleepers("30")) process.kill(pid, "SIGKILL");
});

/** The processes `sleep SECONDS`, by /proc: ps is not everywhere. */
async function sleepers(seconds: string): Promise<{ pid: number }[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const argv = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
      return argv === `sleep\0${seconds}\0` ? [{ pid: Number(pid) }] : [];
    }),
  );
  return found.flat();
}

test("a time-out ends the whole tree: who ignores TERM, left the session, forked twice", async () => {
  const script = `
    trap '' TERM
    sleep 4711.1 &
    setsid sleep 4711.2 &
    (setsid sh -c 'sleep 4711.3 & exit' &)
    sleep 4711.4; sleep 4711.5`;
  const started = start(["bash", "-c", script]);
  await waitFor(async () => (await membersOf(started)).length >= 5, { what: "the whole tree" });
  await started.end(200);
  const { signal } = await started.exited;
  assert.is(signal, "SIGKILL");
  for (const which of ["1", "2", "3", "4", "5"]) {
    assert.equal(await sleepers(`4711.${which}`), [], `sleep 4711.${which} is gone`);
  }
  const late = await run(["sleep", "60"], { timeout: 50, check: false });
  assert.ok(late.timedOut);
});

test("the output comes line by line, the last one without its end too", async () => {
  const lines: string[] = [];
  const onLine = (line: string) => lines.push(line);
  await run(["sh", "-c", "printf 'a\\nü\\n\\nlast'"], { output: { onLine } });
  assert.equal(lines, ["a", "ü", "", "last"]);
});

test("output straight into a file keeps the order of both streams", async () => {
  const file = join(tempDir(), "log");
  const fd = openSync(file, "a");
  await shell("echo 1; echo 2 >&2; echo 3", { output: { fd } });
  closeSync(fd);
  assert.is(readFileSync(file, "utf8"), "1\n2\n3\n");
});

test("input reaches the command, and a shell command gets data only by its environment", async () => {
  assert.is((await run(["cat"], { input: "hello" })).stdout, "hello");
  const env = cleanEnvironment({ NAME: "$(id)" });
  assert.is((await shell('echo "$NAME"', { env })).stdout, "$(id)\n");
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
  const env = userEnvironment(user);
  const { stdout } = await run(["sh", "-c", "id -un; id -Gn; grep CapBnd /proc/self/status"], {
    user,
    env,
    cwd: "/",
  });
  assert.match(stdout, /^nobody\nnogroup\nCapBnd:\s+0000000000000000\n$/);
});

test.run();
