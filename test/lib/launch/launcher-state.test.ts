import { test } from "uvu";
import * as assert from "uvu/assert";
import { withFailed } from "../../../lib/launch/state.ts";
import { Mutex } from "../../../lib/core/mutex.ts";

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
