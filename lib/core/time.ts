import process from "node:process";

/**
 * Milliseconds on a clock that never jumps, to measure with. The same as `performance.now()`, which
 * loads more of Node than a short run can afford.
 */
export function monotonic(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
