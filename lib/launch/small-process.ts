import { setFlagsFromString } from "node:v8";

/**
 * Keep this process small for the weeks in which it only watches (bench/launch.ts: 58 MB and steady, else 57
 * growing to 67): the optimizing compiler, whose code and threads make the difference, has nothing to do in a
 * supervisor. What is lost is speed in passing on an app's lines: 200,000 a second instead of 400,000.
 */
export function staySmall(): void {
  try {
    setFlagsFromString("--no-opt");
  } catch {
    // another runtime, or one that has no such flag: it works all the same
  }
}
