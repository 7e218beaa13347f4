// The pages typed in as they stand, in a Debian of their own that is booted; where none can be, on a machine of
// test/helpers/machine.ts, without systemd.
import process from "node:process";
import { test } from "uvu";
import { walks } from "../docs/walks.ts";
import {
  bootDebian,
  bringClone,
  debianNode,
  makeDebian,
  noBootedDebian,
} from "../helpers/debian.ts";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { testUnless } from "../helpers/skip.ts";
import { noWorld } from "../helpers/world.ts";

const boot = (suite: string) => async () => {
  const folder = await makeDebian(suite);
  await bringClone(folder, debianNode);
  return await bootDebian(folder);
};
const small = Number(process.env["SOAK_SCALE"] ?? 1) < 0.2 && "SOAK_SCALE of 0.2 or more";
const notAsked = process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
const places = {
  "on a machine without systemd": {
    start: startMachine,
    missing: noMachine ?? noWorld ?? (!noBootedDebian && "a booted bookworm does it"),
  },
  "on a booted bookworm": { start: boot("bookworm"), missing: noBootedDebian },
  "on a booted trixie": { start: boot("trixie"), missing: noBootedDebian ?? (small || notAsked) },
};

for (const [where, { start, missing }] of Object.entries(places))
  for (const [page, walk] of Object.entries(walks)) {
    // the suite types the others in, too, on a machine without systemd; this one has an upgrade and removals
    const again = page !== "operations.md" && small;
    testUnless(test, missing || again)(
      `docs/${page} ${where}: each command does what the page says`,
      async () => {
        const machine = await start();
        try {
          await walk(machine, start);
        } finally {
          await machine.stop();
        }
      },
    );
  }

test.run();
