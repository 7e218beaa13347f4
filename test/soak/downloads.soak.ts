// The full sizes: SOAK_SCALE=1 kills a run of 200 files at 50 random instants.
import process from "node:process";
import { test } from "uvu";
import { killAtRandom } from "../helpers/downloads-kill.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);

test("200 files with version changes survive kill -9 at 50 random instants", async () => {
  await killAtRandom({ kills: Math.ceil(50 * scale), files: 200 });
});

test.run();
