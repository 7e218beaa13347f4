// setup, and each program that it starts, killed at every system call that changes something, on a machine of its own:
// run again it completes, and leaves what an undisturbed run leaves. SOAK_SCALE=0.1 takes every tenth.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noMachine } from "../helpers/machine.ts";
import { killAndRepeat, killCalls, killed } from "../helpers/setup-kill.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { noWorld } from "../helpers/world.ts";

const step = Math.max(1, Math.round(1 / Number(process.env["SOAK_SCALE"] ?? 1)));
const calls = Object.keys(killCalls) as (keyof typeof killCalls)[];

for (const what of Object.keys(killed)) {
  // the others need a forge or a release first, each time
  const small = step > 4 && what !== "slave" && "SOAK_SCALE of 0.25 or more";
  testUnless(test, noMachine ?? noWorld ?? needsStrace ?? small)(
    `setup ${what} killed at any step and run again completes`,
    async () => {
      let kills = 0;
      // each call begins elsewhere, so that small scales see different steps
      for (const [index, call] of calls.entries())
        for (let nth = 1 + (index % step); await killAndRepeat(what, call, nth); nth += step) kills += 1;
      console.log(`setup ${what}: ${kills} kills`);
      assert.ok(kills > 0);
    },
  );
}

test.run();
