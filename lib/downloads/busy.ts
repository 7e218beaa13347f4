import { performance } from "node:perf_hooks";

/** Milliseconds that an answer holds: over less of them the share says nothing. */
const holds = 20;

/**
 * Tells whether this process has lately been computing nearly all the time. Where a runtime does not measure that
 * (Deno gives zeros), the answer is no.
 */
export function busyMeter(): () => boolean {
  let last = performance.eventLoopUtilization();
  let isBusy = true;
  return () => {
    const now = performance.eventLoopUtilization();
    const { active, idle, utilization } = performance.eventLoopUtilization(now, last);
    if (active + idle > 0 && active + idle < holds) return isBusy;
    last = now;
    isBusy = utilization > 0.9;
    return isBusy;
  };
}
