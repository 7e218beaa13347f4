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
  ["rename", 3],
  ["symlink", 1],
  ["fsync", 4],
] as const) {
  traced(
    `killed at ${kind} number ${n}, the directory is as before or as after, and the same command completes it`,
    async () => {
      assert.ok(await killAt(kind, n), "the install was over before");
    },
  );
}

traced("an error from the disk at a rename is exit 1, and the old version stays", async () => {
  const result = await updateWithFault(changingCalls.rename, "error=ENOSPC:when=2");
  assert.is(result?.code, 1, result?.stderr);
  assert.match(result?.stderr ?? "", /ENOSPC|no space/i);
});

test.run();
