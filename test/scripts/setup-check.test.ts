// setup check on a whole machine with a server, a repo and a slave, with something wrong of each kind.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { testUnless } from "../helpers/skip.ts";
import { furnish, noWorld } from "../helpers/world.ts";

const dist = process.env["BOATYARD_TEST_DIST"] === "1";
const missing = noMachine ?? noWorld ?? (dist ? undefined : "a machine has the bundles: npm test");

const hooks = "/etc/boatyard/hooks.yml";
/** What is done, what setup check then says, and how it is made good again. */
const faults: [string, RegExp, string][] = [
  [
    `cp ${hooks} good; sed -i s/dir:/dirr:/ ${hooks}`,
    /hook-server accepts \S+hooks\.yml: \/etc\/\S+:\d+:\d+: unknown key "dirr" \(did you mean "dir"\?\)/,
    `cp good ${hooks}`,
  ],
  [
    "chmod 755 /home/site; chmod 644 /etc/boatyard/site.secret",
    /closed to others: it has mode 755; chmod 700 \/home\/site\nfix|mode 644; chmod 600 \/etc/,
    "chmod 700 /home/site; chmod 600 /etc/boatyard/site.secret",
  ],
  [
    "systemctl stop slave-server.service; chown root /etc/boatyard/slave.secret",
    /slave-server\.service is active and enabled: it is inactive[^]*slave can read \S+slave\.secret: chown slave/,
    "chown slave /etc/boatyard/slave.secret; systemctl start slave-server",
  ],
  [
    "mv /srv/git/jostylr /srv/git/away",
    /its remote can be read: fatal: .*; give site a key or token/,
    "mv /srv/git/away /srv/git/jostylr",
  ],
  ["userdel site", /jostylr\/site: there is an account site: setup repo jostylr\/site/, ":"],
];

testUnless(test, missing)(
  "each thing that is wrong is named, with the command that fixes it",
  async () => {
    const { sh, stop } = await startMachine();
    try {
      await furnish(
        { sh, stop, init: "" },
        { repos: ["jostylr/site"], hosts: ["hooks.example.com"] },
      );
      await sh(`node clone/dist/setup.mjs server --yes
      setup repo jostylr/site --yes
      setup slave --yes`);
      const forge = "setup check --forge http://127.0.0.1:3420/healthz";
      assert.not.match((await sh(forge)).stdout, /^fix/m);
      for (const [harm, said, repair] of faults) {
        await sh(harm);
        assert.match((await sh(forge, 1)).stdout, said, harm);
        await sh(repair);
      }
    } finally {
      await stop();
    }
  },
);

test.run();
