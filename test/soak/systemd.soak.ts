// The real units under a real systemd: a Debian is booted and becomes a server, then a slave and its master too, then a bus.
import { readFile } from "node:fs/promises";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootDebian, noBootedDebian } from "../helpers/debian.ts";
import type { Machine } from "../helpers/machine.ts";
import { openPage } from "../helpers/pages.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";
import { furnish, installServer } from "../helpers/world.ts";

const entry = "/etc/boatyard/hooks.d/jostylr+site.yml";
const deliver = "deliver jostylr/site /etc/boatyard/site.secret";

/** docs/many-machines.md to the letter, all on one machine: Debian's nats-server becomes the bus of the slave there. */
async function walkBus({ sh }: Machine): Promise<void> {
  const page = await openPage("many-machines.md");
  await sh(`echo 127.0.0.1 bus.example.com >>/etc/hosts; useradd --system --user-group nats`);
  const hasAddress = await sh(
    "ip link add lan type veth && ip addr add 10.9.0.1/24 dev lan && ip link set lan up && echo yes || :",
  );
  // as its package leaves it
  for (const file of ["/usr/sbin/nats-server", "/lib/systemd/system/nats-server.service"])
    await sh(`base64 -d >${file}`, 0, (await readFile(file)).toString("base64"));
  await sh(`chmod 755 /usr/sbin/nats-server; echo port: 4222 >/etc/nats-server.conf
    systemctl enable --now nats-server`);
  const typed = (part: string, words = {}) => sh(page.block(part, words).replace(/^apt-get .*/, ""));
  const pid = async () => (await sh("systemctl show --property=MainPID --value boatyard-bus")).stdout.trim();

  await typed("apt-get install nats-server");
  await sh("systemctl is-active nats-server", 3);
  const bus = await pid();
  assert.is((await sh(`ps -o user= -p ${bus}`)).stdout, "nats\n");
  assert.match((await sh(`grep CapEff /proc/${bus}/status`)).stdout, /\b0{16}$/m);
  await sh("cp /etc/boatyard/bus.crt ."); // the others' copy
  const master = await typed("setup.mjs server --bus");
  const slave = await typed("setup.mjs slave --bus", {
    "ed25519:PUBLIC-KEY-OF-THE-MASTER": "$(cat /etc/server-update/master.key.pub)",
    "https://github.com/me/": "https://github.com/jostylr/",
  });
  const add = (told: string) => /^ +(setup bus add .+)$/m.exec(told)?.[1] ?? "no command";
  const name = (await sh("uname -n")).stdout.trim();
  for (const [told, theirs] of [
    [master.stdout, /master --nkey U[A-Z2-7]{55} --role master$/],
    [slave.stdout, new RegExp(`${name} --nkey U[A-Z2-7]{55}$`)],
  ] as const) {
    assert.match(add(told), theirs);
    await sh(`${add(told)} --yes`);
  }
  await sh(
    `echo '${page
      .block("bus://")
      .replace(/^slave1.*\n/m, "")
      .replace("web-17.example.com", name)}' >/etc/server-update/slavelist.txt`,
  );
  await sh("cd work/jostylr/site; echo bus > index.html; git commit -qam bus; git push -q origin HEAD:main");
  await typed("server-update site --wait", {
    "https://github.com/me/": "https://github.com/jostylr/",
  });
  assert.is((await sh("cat /srv/slave/repos/site/index.html")).stdout, "bus\n");
  // one more: nobody else is disturbed, and what was read is said to be so
  const other = (await sh("server-update keygen --bus --out other.seed 2>/dev/null")).stdout.trim();
  const log = async (unit: string) => (await sh(`journalctl --no-pager -o cat -u ${unit}`)).stdout;
  const before = (await log("slave-server")).length;
  await sh(`setup bus add web-18 --nkey ${other} --yes`);
  assert.match((await sh(`setup bus add web-18 --nkey ${other} --yes`)).stderr, "nothing was missing");
  assert.is(await pid(), bus);
  assert.not.match((await log("slave-server")).slice(before), "lost");
  if (hasAddress.stdout !== "") assert.not.match(await log("boatyard-bus"), /can not be resolved/);
  // a start that cannot succeed says why
  await sh("cp -p /etc/boatyard/bus.key kept; echo x >/etc/boatyard/bus.key");
  await sh("systemctl restart boatyard-bus", 1);
  assert.match(await log("boatyard-bus"), /tls|key/);
  await sh(`systemctl stop boatyard-bus; systemctl reset-failed boatyard-bus || :
    cp -p kept /etc/boatyard/bus.key; systemctl start boatyard-bus`);
  // and all of it is taken back
  await sh("setup remove slave --yes; setup remove bus --purge --yes");
  for (const unit of ["slave-server", "boatyard-bus"]) await sh(`systemctl is-active ${unit}`, 3);
}

for (const suite of ["bookworm", "trixie"]) {
  const other = suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, noBootedDebian || other)(`a booted ${suite}: the units do their work`, async () => {
    const machine = await bootDebian(suite);
    const { sh } = machine;
    const state = async (unit: string) => (await sh(`systemctl is-active ${unit} || :`)).stdout.trim();
    const succeeded = (count: number) =>
      waitFor(async () => (await sh("hook-server list")).stdout.split("succeeded").length > count, {
        timeout: 30_000,
        what: `${count} runs that succeeded`,
      });
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
      await waitFor(async () => (await sh("cat /home/site/site/hangs && echo || :")).stdout !== "");
      await sh(`hook-server cancel ${run}`);
      const left = "pgrep -f '^sleep 9876[56]$' || :";
      await waitFor(async () => (await sh(left)).stdout === "", {
        what: "all of the run to end",
      });
      await sh(`cd work/jostylr/site; git revert --no-edit HEAD >/dev/null; git push -q origin HEAD:main`);
      assert.match((await sh(deliver)).stdout, '{"run":');
      await succeeded(3);
      await sh("systemctl start logs-rotate@site.service build@site.service");
      await sh("systemctl enable --now build@site.timer; systemctl is-active logs-rotate@site.timer");

      // a slave on the same machine, and the circle: a push reaches it
      await sh(`setup slave --base https://git.example.com/me/ --secret-file /etc/server-update/secret --yes
        sed -i 's#^base:.*#base: https://github.com/jostylr/#' /etc/boatyard/slave.yml; systemctl restart slave-server`);
      await sh(`echo 127.0.0.1 name=$(uname -n) > /etc/server-update/slavelist.txt
        sed -i 's#^    dir: .*#&\\n    on_success: ["server-update site --wait --secret-file /etc/server-update/secret"]#' ${entry}
        systemctl reload hook-server; cd work/jostylr/site; echo 2 > two.txt; git add .; git commit -qm two; git push -q origin HEAD:main`);
      await sh(deliver);
      await waitFor(async () => (await sh("cat /srv/slave/repos/site/two.txt || :")).stdout === "2\n", {
        timeout: 30_000,
        what: "the push to reach the slave",
      });
      // a crash is made good
      for (const unit of ["hook-server", "slave-server"])
        await sh(`kill -9 $(systemctl show --property=MainPID --value ${unit}.service)`);
      for (const unit of ["hook-server", "slave-server"])
        await waitFor(async () => (await state(`${unit}.service`)) === "active", {
          timeout: 30_000,
          what: `${unit} to come back`,
        });
      // what does not come up is not ready, however often setup is run
      await sh(`sed -i s/dir:/dirr:/ ${entry}; systemctl restart hook-server`, 1);
      for (const _ of [1, 2])
        assert.match((await sh("setup server --yes", 1)).stderr, /systemctl enable --now[^]*unknown key "dirr"/);
      await sh(`sed -i s/dirr:/dir:/ ${entry}
          systemctl stop hook-server.service; systemctl reset-failed hook-server.service || :
          setup server --yes`);
      if (needsCommand("nats-server") === undefined) await walkBus(machine);
      assert.match((await sh("systemctl --failed")).stdout, "0 loaded units");
    } finally {
      await machine.stop();
    }
  });
}

test.run();
