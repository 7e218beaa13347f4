import { test } from "uvu";
import * as assert from "uvu/assert";
import { afterExit, crashLoop, goodRun, type Restarts } from "../../../lib/launch/backoff.ts";

test("an app that keeps crashing is started after 1 s, 2 s, 4 s … 60 s, then given up with a reason", () => {
  let restarts: Restarts = { quick: 0, total: 0 };
  const pauses: number[] = [];
  for (;;) {
    const verdict = afterExit(restarts, 500, "exit code 3");
    if (!verdict.again) {
      assert.match(verdict.reason, /crash loop: .* 11 times .* exit code 3/);
      break;
    }
    pauses.push(verdict.pause / 1000);
    restarts = verdict.restarts;
  }
  assert.equal(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
  assert.is(pauses.length, crashLoop);
  assert.is(restarts.total, crashLoop);
});

test("a good minute forgives the crashes before it", () => {
  const verdict = afterExit({ quick: 9, total: 20 }, goodRun, "SIGSEGV");
  assert.equal(verdict, { again: true, pause: 1000, restarts: { quick: 1, total: 21 } });
});

test.run();
