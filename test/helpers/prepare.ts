import type { Test } from "uvu";

/** Work before the tests of a file. Of a hook that fails uvu says no more than that no test has passed. */
export function prepare(test: Pick<Test, "before">, work: () => Promise<unknown>): void {
  test.before(async () => {
    try {
      await work();
    } catch (error) {
      console.error("before the tests:", error);
      throw error;
    }
  });
}
