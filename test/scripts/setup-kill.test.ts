// A few of the kills of test/soak/setup-kill.soak.ts.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noMachine } from "../helpers/machine.ts";
import { killAndRepeat } from "../helpers/setup-kill.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { noWorld } from "../helpers/world.ts";

const dist = process.env["BOATYARD_TEST_DIST"] === "1";
const missing = noMachine ?? noWorld ?? needsStrace ?? (dist ? undefined : "a machine has the bundles: npm test");

testUnless(test, missing)(
  "a setup that was killed between two programs, or in the middle of systemd-sysusers, completes when it is run again",
  async () => {
    assert.ok(await killAndRepeat("slave", "start", 4));
    assert.ok(await killAndRepeat("slave", "rename", 6));
    assert.ok(await killAndRepeat("slave", "end", 3));
    assert.ok(await killAndRepeat("removal", "unlink", 3));
  },
);

test.run();
