// Pages typed in as they stand, as root on a machine of its own. test/soak/docs.soak.ts types all of them under a real
// systemd.
import process from "node:process";
import { test } from "uvu";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { testUnless } from "../helpers/skip.ts";
import { noWorld } from "../helpers/world.ts";
import { walks } from "./walks.ts";

const dist = process.env["BOATYARD_TEST_DIST"] === "1";
const missing = noMachine ?? noWorld ?? (dist ? undefined : "the pages use the bundles: npm test");

for (const page of ["copying.md", "server.md"])
  testUnless(test, missing)(`docs/${page}: each command does what the page says`, async () => {
    const machine = await startMachine();
    try {
      await walks[page]?.(machine, startMachine);
    } finally {
      await machine.stop();
    }
  });

test.run();
