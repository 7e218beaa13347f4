import { existsSync, readFileSync, renameSync, statSync } from "node:fs";
import { rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Busy, Failure } from "../../../lib/core/errors.ts";
import { acquireLock } from "../../../lib/files/lock.ts";
import { startCommand } from "../../helpers/run.ts";
import { current, root } from "../../helpers/runtime.ts";
import { testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

const holder = (lock: string) => startCommand([...current.argv(join(root, "test/helpers/hold-lock.ts")), lock]);

test("a second process is told who holds the lock, and gets it when that one is killed -9", async () => {
  const lock = join(tempDir(), "state", "build.lock");
  const first = holder(lock);
  await first.until(/held/);
  await acquireLock(lock, { what: "second" }).then(
    () => assert.unreachable("the lock is held"),
    (error: unknown) => {
      assert.instance(error, Busy);
      const message = (error as Error).message;
      assert.match(message, new RegExp(`locked by process ${first.pid} \\(holding, since 20`));
    },
  );
  const waiting = acquireLock(lock, { what: "waiting", wait: true });
  first.kill("SIGKILL");
  (await waiting).release();
});

test("a link in the place of the lock is not followed: what it names stays as it is", async () => {
  const folder = tempDir();
  const [lock, precious] = [join(folder, "x.lock"), join(folder, "precious")];
  await writeFile(precious, "mine\n");
  for (const target of [precious, join(folder, "none")]) {
    await rm(lock, { force: true });
    await symlink(target, lock);
    await acquireLock(lock, { what: "first" }).then(
      () => assert.unreachable(),
      (error: unknown) => assert.match((error as Error).message, "x.lock is a link; remove it"),
    );
  }
  assert.is(readFileSync(precious, "utf8"), "mine\n");
  assert.not(existsSync(join(folder, "none")));
});

test("a place where no lock can be made is named in one line, and is no bug's stack", async () => {
  const file = join(tempDir(), "file");
  await writeFile(file, "");
  await acquireLock(join(file, "x.lock"), { what: "first" }).then(
    () => assert.unreachable(),
    (error: unknown) => {
      assert.instance(error, Failure);
      assert.match((error as Error).message, /file\/x\.lock cannot be written: E\w+; whose is/);
    },
  );
});

test("waiting ends after the time that was given", async () => {
  const lock = join(tempDir(), "x.lock");
  const held = await acquireLock(lock, { what: "first" });
  await acquireLock(lock, { what: "second", wait: 50 }).then(
    () => assert.unreachable(),
    (error: unknown) => assert.instance(error, Busy),
  );
  held.release();
  (await acquireLock(lock, { what: "third" })).release();
});

/** Whether /proc/locks has a lock of this file whose line begins so (proc_locks(5)). */
const isListed = (file: string, begin: string) =>
  new RegExp(`${begin} .*:${statSync(file).ino} `).test(readFileSync("/proc/locks", "utf8"));

const probe = join(tempDir(), "probe.lock");
const probed = await acquireLock(probe, { what: "probe" });
const noList = isListed(probe, "FLOCK") ? undefined : "needs /proc/locks, which a container hides";
probed.release();

testUnless(test, noList)("who waits for a replaced lock file waits for the new one", async () => {
  const lock = join(tempDir(), "x.lock");
  const isWaitedFor = () => isListed(lock, "-> FLOCK");
  const first = await acquireLock(lock, { what: "first" });
  let taken = false;
  const waiting = acquireLock(lock, { what: "waiting", wait: true }).then((held) => {
    taken = true;
    return held;
  });
  await waitFor(isWaitedFor);
  renameSync(lock, `${lock}.old`);
  const second = await acquireLock(lock, { what: "second" });
  first.release();
  await waitFor(() => taken || isWaitedFor());
  assert.not(taken, "two hold the lock");
  second.release();
  (await waiting).release();
});

test("of many at once, one at a time holds it", async () => {
  const lock = join(tempDir(), "x.lock");
  let inside = 0;
  let most = 0;
  await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      const held = await acquireLock(lock, { what: `number ${index}`, wait: true });
      inside += 1;
      most = Math.max(most, inside);
      await new Promise((resolve) => setImmediate(resolve));
      inside -= 1;
      held.release();
    }),
  );
  assert.is(most, 1);
});

test.run();
