// The pages typed in as they stand, each on a booted Debian of its own. test/docs/pages.test.ts types some of them on a
// machine without systemd.
import process from "node:process";
import { test } from "uvu";
import { walks } from "../docs/walks.ts";
import { bootDebian, noBootedDebian } from "../helpers/debian.ts";
import { testUnless } from "../helpers/skip.ts";

for (const suite of ["bookworm", "trixie"]) {
  const other = suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  const boot = () => bootDebian(suite);
  for (const [page, walk] of Object.entries(walks))
    testUnless(test, noBootedDebian || other)(
      `docs/${page} on a booted ${suite}: each command does what the page says`,
      async () => {
        const machine = await boot();
        try {
          await walk(machine, boot);
        } finally {
          await machine.stop();
        }
      },
    );
}

test.run();
