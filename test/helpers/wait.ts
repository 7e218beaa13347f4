// Tests wait for conditions, never for a length of time.
import { availableParallelism, loadavg } from "node:os";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * How many times longer than alone everything may take here and now: by the machine's load and by how many files the
 * runner has at work. Limits that only tell a hang from work are multiplied by it.
 */
export function slowness(jobs = Number(process.env["BOATYARD_TEST_JOBS"] ?? 1)): number {
  return Math.max(1, Math.max(jobs, loadavg()[0] ?? 0) / availableParallelism());
}

/**
 * Asks `condition` every few milliseconds until it gives something truthy, and returns that.
 * A condition that throws counts as not yet met; its last error is shown at the time-out.
 * `timeout` is in milliseconds of an idle machine, default 20,000.
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { timeout?: number; what?: string | (() => string) } = {},
): Promise<NonNullable<T>> {
  const { timeout = 20_000, what = "the condition" } = options;
  const started = performance.now();
  let pause = 5;
  for (;;) {
    let last = "";
    try {
      const value = await condition();
      if (value) return value as NonNullable<T>;
    } catch (error) {
      last = `: ${String(error)}`;
    }
    const waited = performance.now() - started;
    if (waited > timeout * slowness()) {
      const name = typeof what === "string" ? what : what();
      throw new Error(`waited ${Math.round(waited)} ms in vain for ${name}${last}`);
    }
    await sleep(pause);
    pause = Math.min(pause * 1.5, 100);
  }
}

/** Resolves when the clock shows another second: what is dated in whole seconds is newer then. */
export async function nextSecond(): Promise<void> {
  const second = () => Math.floor(Date.now() / 1000);
  const begun = second();
  await waitFor(() => second() > begun, { what: "the next second" });
}
