// Tests wait for conditions, never for a length of time.
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Asks `condition` every few milliseconds until it gives something truthy, and returns that.
 * A condition that throws counts as not yet met; its last error is shown at the time-out.
 * `timeout` is in milliseconds, default 20,000.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { timeout?: number; what?: string | (() => string) } = {},
): Promise<NonNullable<T>> {
  const { timeout = 20_000, what = "the condition" } = options;
  const end = Date.now() + timeout;
  let pause = 5;
  for (;;) {
    let last = "";
    try {
      const value = await condition();
      if (value) return value as NonNullable<T>;
    } catch (error) {
      last = `: ${String(error)}`;
    }
    if (Date.now() > end) {
      const name = typeof what === "string" ? what : what();
      throw new Error(`waited ${timeout} ms in vain for ${name}${last}`);
    }
    await sleep(pause);
    pause = Math.min(pause * 1.5, 100);
  }
}
