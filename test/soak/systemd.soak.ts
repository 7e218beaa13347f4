// The real units under a real systemd: a Debian is booted and becomes a server, then a slave and its master too.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootDebian, noBootedDebian } from "../helpers/debian.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";
import { furnish, installServer } from "../helpers/world.ts";

const deliver = "deliver jostylr/site /etc/boatyard/site.secret";

for (const suite of ["bookworm", "trixie"]) {
  const other =
    suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, noBootedDebian || other)(
    `a booted ${suite}: the units do their work`,
    async () => {
      const machine = await bootDebian(suite);
      const { sh } = machine;
      const state = async (unit: string) =>
        (await sh(`systemctl is-active ${unit} || :`)).stdout.trim();
      const succeeded = (count: number) =>
        waitFor(
          async () => (await sh("hook-server list")).stdout.split("succeeded").length > count,
          {
            timeout: 30_000,
            what: `${count} runs that succeeded`,
          },
        );
      try {
        await furnish(machine, { repos: ["jostylr/site"], hosts: [] });
        await installServer(machine, "jostylr/site");
        assert.is(await state("hook-server.service"), "active");
        await succeeded(1);
        assert.is((await sh("cat /home/site/site/who.txt")).stdout, "site\n0022\n");
        // the socket wakes the server
        await sh("systemctl stop hook-server.service");
        assert.is(await state("hook-server.socket"), "active");
        assert.match((await sh(deliver)).stdout, '{"run":');
        assert.is(await state("hook-server.service"), "active");
        await succeeded(2);
        await sh("systemctl reload hook-server.service");
        // under the unit's fences too a run is ended with a child that left its session
        await sh(`cd work/jostylr/site
        printf 'stages: [pull, hang]\\ncommands:\\n  hang: setsid sleep 98765 & touch hangs; sleep 98766\\n' > build.yml
        git commit -qam hang; git push -q origin HEAD:main`);
        const run = /"run":"([^"]+)"/.exec((await sh(deliver)).stdout)?.[1] ?? "";
        await waitFor(
          async () => (await sh("cat /home/site/site/hangs && echo || :")).stdout !== "",
        );
        await sh(`hook-server cancel ${run}`);
        const left = "pgrep -f '^sleep 9876[56]$' || :";
        await waitFor(async () => (await sh(left)).stdout === "", {
          what: "all of the run to end",
        });
        await sh(
          `cd work/jostylr/site; git revert --no-edit HEAD >/dev/null; git push -q origin HEAD:main`,
        );
        assert.match((await sh(deliver)).stdout, '{"run":');
        await succeeded(3);
        await sh("systemctl start logs-rotate@site.service build@site.service");
        await sh(
          "systemctl enable --now build@site.timer; systemctl is-active logs-rotate@site.timer",
        );

        // a slave on the same machine, and the circle: a push reaches it
        await sh(`setup slave --secret-file /etc/server-update/secret --yes
        sed -i 's#^base:.*#base: https://github.com/jostylr/#' /etc/boatyard/slave.yml; systemctl restart slave-server`);
        await sh(`echo 127.0.0.1 name=$(uname -n) > /etc/server-update/slavelist.txt
        sed -i 's#^    dir: .*#&\\n    then: ["server-update site --wait --secret-file /etc/server-update/secret"]#' /etc/boatyard/hooks.yml
        systemctl reload hook-server; cd work/jostylr/site; echo 2 > two.txt; git add .; git commit -qm two; git push -q origin HEAD:main`);
        await sh(deliver);
        await waitFor(
          async () => (await sh("cat /srv/slave/repos/site/two.txt || :")).stdout === "2\n",
          {
            timeout: 30_000,
            what: "the push to reach the slave",
          },
        );
        // a crash is made good
        for (const unit of ["hook-server", "slave-server"])
          await sh(`kill -9 $(systemctl show --property=MainPID --value ${unit}.service)`);
        for (const unit of ["hook-server", "slave-server"])
          await waitFor(async () => (await state(`${unit}.service`)) === "active", {
            timeout: 30_000,
            what: `${unit} to come back`,
          });
        assert.match((await sh("systemctl --failed")).stdout, "0 loaded units");
      } finally {
        await machine.stop();
      }
    },
  );
}

test.run();
