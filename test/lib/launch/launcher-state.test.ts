import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type LauncherState, withFailed } from "../../../lib/launch/state.ts";
import { Mutex } from "../../../lib/core/mutex.ts";
import { StateFile } from "../../../lib/launch/state.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("changes saved at once are written one after the other, and the file ends as the last one left it", async () => {
  const path = join(tempDir(), "launcher.json");
  const state = new StateFile<LauncherState>(path, {});
  const saves = Array.from({ length: 40 }, (_, n) =>
    state.save({ stopped: { at: `${n}`, reason: "x".repeat(n % 2 ? 10 : 200_000) } }),
  );
  await Promise.all(saves);
  const onDisk = JSON.parse(readFileSync(path, "utf8")) as typeof state.value;
  assert.is(onDisk.stopped?.at, "39");
});

test("what cannot be written is told and remembered, and the next save brings it along", async () => {
  const folder = join(tempDir(), "gone");
  const state = new StateFile<LauncherState>(join(folder, "launcher.json"), {});
  const told: string[] = [];
  await state.note({ stopped: { at: "1", reason: "full" } }, (line) => told.push(line));
  assert.match(told.join("\n"), /cannot note that in .*launcher\.json: /);
  mkdirSync(folder);
  await state.save({ lastCheck: { at: "2", result: "up to date", ok: true } });
  assert.is((await new StateFile<LauncherState>(join(folder, "launcher.json"), {}).load()).stopped?.reason, "full");
  rmSync(folder, { recursive: true });
});

test("of many versions that failed the newest fifty are remembered", () => {
  let failed: ReturnType<typeof withFailed> = {};
  for (let n = 0; n < 120; n++) {
    failed = withFailed(failed, `1.${n}`, { reason: "it ended" });
    const entry = failed[`1.${n}`];
    if (entry) entry.at = new Date(n * 1000).toISOString();
  }
  assert.is(Object.keys(failed).length, 50);
  assert.ok(failed["1.119"] && failed["1.70"]);
  assert.not.ok(failed["1.69"]);
});

test("a mutex: one after the other, also when one fails, and idle waits for those that come meanwhile", async () => {
  const mutex = new Mutex();
  const order: string[] = [];
  const step = (name: string, more?: () => void) => async () => {
    order.push(`${name} starts`);
    await new Promise((resolve) => setTimeout(resolve, 2));
    more?.();
    order.push(`${name} is over`);
  };
  void mutex.run(step("a", () => void mutex.run(step("c"))));
  const failing = mutex.run(async () => {
    throw new Error("b fails");
  });
  await failing.then(
    () => assert.unreachable(),
    (error: Error) => assert.is(error.message, "b fails"),
  );
  await mutex.idle();
  assert.equal(order, ["a starts", "a is over", "c starts", "c is over"]);
});

test.run();
