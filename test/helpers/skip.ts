// A test that cannot run here says why, and the run's summary repeats it.
import process from "node:process";
import type { Callback, Test } from "uvu";

/**
 * Registers the test, or, when `reason` is given, skips it and prints the reason:
 * `testUnless(test, isRoot ? undefined : "needs root")("a build is another user's", async () => …)`.
 */
export function testUnless(test: Test, reason: string | undefined | false) {
  return (name: string, body: Callback): void => {
    if (!reason) {
      test(name, body);
    } else {
      console.log(`SKIP ${name}: ${reason}`);
      test.skip(name, body);
    }
  };
}

export const isRoot = process.getuid?.() === 0;
export const needsRoot = isRoot ? undefined : "needs root";
