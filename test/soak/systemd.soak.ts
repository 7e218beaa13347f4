// The real units under a real systemd: a Debian is booted, docs/server.md followed in it, then a slave and its master.
import { rename } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { tmpdir } from "node:os";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  bootDebian,
  bringClone,
  debianNode,
  makeDebian,
  noBootedDebian,
} from "../helpers/debian.ts";
import { shellBlocks } from "../helpers/pages.ts";
import { runCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

/** GitHub, as there is none: a bare repository under the same URL, which git's daemon serves too. */
const forge = `
git config --system safe.directory '*'
git config --system url."file:///srv/git/".insteadOf https://github.com/
git init -q --bare --initial-branch=main /srv/git/jostylr/site.git
git clone -q /srv/git/jostylr/site.git /root/work 2>/dev/null
cd /root/work
git config user.email ada@example.com; git config user.name Ada
printf 'stages: [pull, who]\\ncommands:\\n  who: id -un > who.txt; umask >> who.txt\\n' > build.yml
git add .; git commit -qm one; git push -q origin HEAD:main
systemd-run -q --unit=forge git daemon --export-all --base-path=/srv/git/jostylr /srv/git/jostylr`;

/** A signed delivery of main, sent to hook-server's own address. */
const deliver = `
sha=$(git -C /srv/git/jostylr/site.git rev-parse main)
body='{"ref":"refs/heads/main","before":"'$(printf %040d 0)'","after":"'$sha'","deleted":false,"repository":{"full_name":"jostylr/site","default_branch":"main"},"head_commit":{"id":"'$sha'"}}'
sig=$(printf %s "$body" | openssl dgst -sha256 -hmac "$(cat /etc/boatyard/site.secret)" -hex | sed 's/.* //')
curl -sS --max-time 20 -H content-type:application/json -H x-github-event:push -H "x-github-delivery: $RANDOM$RANDOM" \\
  -H "x-hub-signature-256: sha256=$sig" --data-binary "$body" http://127.0.0.1:3420/hook`;

for (const suite of ["bookworm", "trixie"]) {
  const other =
    suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, noBootedDebian || other)(
    `a booted ${suite}: the units do their work`,
    async () => {
      const folder = await makeDebian(suite);
      await bringClone(folder, debianNode);
      await rename(join(folder, "root/clone/dist"), join(folder, "root/boatyard"));
      const { sh, stop } = await bootDebian(folder);
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
        await sh(forge);
        for (const { tags, text } of await shellBlocks("server.md"))
          if (tags[0] === "server" && !text.startsWith("apt-get")) await sh(text);
        assert.is(await state("hook-server.service"), "active");
        // the network ends at this machine: the forge alone is missed
        const check = await sh("setup check", 1);
        assert.is(check.stdout.match(/^fix .*/gm)?.length, 1, check.stdout);
        const again = await sh("node /root/boatyard/setup.mjs server --yes");
        assert.match(again.stderr, "nothing was missing");

        // the server reads the repo's entry within a moment
        await waitFor(async () => (await sh(deliver)).stdout.includes('{"run":'));
        await waitFor(
          async () => (await sh("cat /home/site/site/who.txt || :")).stdout === "site\n0022\n",
        );
        // the socket wakes the server
        await sh("systemctl stop hook-server.service");
        assert.is(await state("hook-server.socket"), "active");
        assert.match((await sh(deliver)).stdout, '{"run":');
        assert.is(await state("hook-server.service"), "active");
        await succeeded(2);
        await sh("systemctl reload hook-server.service");
        // under the unit's fences too a run is ended with a child that left its session
        await sh(`cd work
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
        await sh(`cd work; git revert --no-edit HEAD >/dev/null; git push -q origin HEAD:main`);
        assert.match((await sh(deliver)).stdout, '{"run":');
        await succeeded(3);
        await sh("systemctl start logs-rotate@site.service build@site.service");
        await sh(
          "systemctl enable --now build@site.timer; systemctl is-active logs-rotate@site.timer",
        );

        // a slave on the same machine, and the circle: a push reaches it
        await sh(`setup slave --secret-file /etc/server-update/secret --yes
        sed -i 's#^base:.*#base: git://127.0.0.1/#' /etc/boatyard/slave.yml; systemctl restart slave-server`);
        await sh(`echo 127.0.0.1 name=$(uname -n) > /etc/server-update/slavelist.txt
        sed -i 's#^    dir: .*#&\\n    then: ["server-update site --wait --secret-file /etc/server-update/secret"]#' /etc/boatyard/hooks.yml
        systemctl reload hook-server; cd work; echo 2 > two.txt; git add .; git commit -qm two; git push -q origin HEAD:main`);
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
        await stop();
      }
    },
  );
}

test("nothing of a booted system is left over", async () => {
  // ours alone: others boot theirs beside
  const { stdout } = await runCommand(["pgrep", "-f", `systemd-nspawn .*${tmpdir()}/debian-.*-b`]);
  assert.is(stdout, "");
});

test.run();
