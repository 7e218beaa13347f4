// A few of the instants at which an install can be killed; test/soak/release.soak.ts has them all.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { closeWeb, killAt, updateWithFault } from "../helpers/killed-install.ts";
import { testUnless } from "../helpers/skip.ts";
import { changingCalls, needsStrace } from "../helpers/strace.ts";

test.after(closeWeb);
const traced = testUnless(test, needsStrace);

for (const [kind, n] of [
  ["rename", 1],
  ["rename", 2],
  ["symlink", 1],
  ["fsync", 2],
] as const) {
  traced(
    `killed at ${kind} number ${n}, the directory is as before or as after, and the same command completes it`,
    async () => {
      const killed = await killAt(kind, n);
      // how many calls one thread makes is the runtime's own matter
      if (n === 1) assert.ok(killed, "the install was over before");
    },
  );
}

traced("an error from the disk at a rename is exit 1, and the old version stays", async () => {
  const result = await updateWithFault(changingCalls.rename, "error=ENOSPC:when=1");
  assert.is(result?.code, 1, result?.stderr);
  assert.match(result?.stderr ?? "", /ENOSPC|no space/i);
});

test.run();
