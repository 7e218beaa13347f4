// A test that cannot run here says why, and the run's summary repeats it.
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
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

/** The reason to skip what needs a command that is not on PATH. */
export function needsCommand(name: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  return folders.some((folder) => existsSync(join(folder, name))) ? undefined : `needs ${name}`;
}
