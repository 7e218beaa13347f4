// The pages typed in as they stand, in a Debian of their own that is booted; where none can be, on a machine of
// test/helpers/machine.ts, without systemd.
import { access } from "node:fs/promises";
import process from "node:process";
import { test } from "uvu";
import { walks } from "../docs/walks.ts";
import { bootDebian, bringClone, makeDebian } from "../helpers/debian.ts";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { noWorld } from "../helpers/world.ts";

const lacks = (file: string, what: string) =>
  access(file).then(
    () => undefined,
    () => what,
  );
const node = process.env["BOATYARD_SOAK_NODE"] ?? "/usr/bin/node";
const noDebian =
  needsRoot ??
  (await lacks("/usr/sbin/debootstrap", "needs debootstrap")) ??
  (await lacks("/usr/bin/systemd-nspawn", "needs systemd-nspawn (systemd-container)")) ??
  (await lacks(node, `no Node at ${node}`));

const boot = (suite: string) => async () => {
  const folder = await makeDebian(suite);
  await bringClone(folder, node);
  return await bootDebian(folder);
};
const small = Number(process.env["SOAK_SCALE"] ?? 1) < 0.2 && "SOAK_SCALE of 0.2 or more";
const notAsked = process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
const places = {
  "on a machine without systemd": {
    start: startMachine,
    missing: noMachine ?? noWorld ?? (!noDebian && !small && "a booted bookworm does it"),
  },
  "on a booted bookworm": { start: boot("bookworm"), missing: noDebian ?? small },
  "on a booted trixie": { start: boot("trixie"), missing: noDebian ?? (small || notAsked) },
};

for (const [where, { start, missing }] of Object.entries(places))
  for (const [page, walk] of Object.entries(walks)) {
    // the suite types app.md and copying.md in, too
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
