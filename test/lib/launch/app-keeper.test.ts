import { test } from "uvu";
import * as assert from "uvu/assert";
import { planRestart, crashLoop, goodRun, type Restarts } from "../../../lib/launch/restarts.ts";

test("an app that keeps crashing is started after 1 s, 2 s, 4 s … 60 s, then given up with a reason", () => {
  let restarts: Restarts = { quick: 0, total: 0 };
  const pauses: number[] = [];
  for (;;) {
    const plan = planRestart(restarts, 500, "exit code 3");
    if (!plan.again) {
      assert.match(plan.reason, /crash loop: .* 11 times .* exit code 3/);
      break;
    }
    pauses.push(plan.pause / 1000);
    restarts = plan.restarts;
  }
  assert.equal(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
  assert.is(pauses.length, crashLoop);
  assert.is(restarts.total, crashLoop);
});

test("a good minute forgives the crashes before it", () => {
  const plan = planRestart({ quick: 9, total: 20 }, goodRun, "SIGSEGV");
  assert.equal(plan, { again: true, pause: 1000, restarts: { quick: 1, total: 21 } });
});

test.run();
