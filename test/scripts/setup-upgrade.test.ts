// setup upgrade on a whole machine with a server, a repo and a slave: from a folder, from a signed web folder, killed.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { furnish, noWorld } from "../helpers/world.ts";

const dist = process.env["BOATYARD_TEST_DIST"] === "1";
const missing = noMachine ?? noWorld ?? needsStrace ?? (dist ? undefined : "a machine has the bundles: npm test");

const installed = "/usr/local/lib/boatyard";
/** A folder with the bundles of another build, as their second line tells. */
const build = (folder: string, date: string) => `
  mkdir ${folder}
  cp clone/dist/*.mjs ${folder}
  sed -i '2s/.*/\\/\\/ Boatyard 0.2.0 (commit ${"f".repeat(12)} of ${date}T00:00:00Z)/' ${folder}/*.mjs`;
const sums = `cd ${installed}; sha256sum *.mjs`;
const pids = "systemctl show --property=MainPID --value hook-server.service slave-server.service";

testUnless(test, missing)(
  "newer scripts are tried, replaced in one step each, and what runs older ones is restarted; nothing else is touched",
  async () => {
    const { sh, stop } = await startMachine();
    const unchanged = async (command: string, code: number, words: string | RegExp) => {
      const before = (await sh(`${sums}; ${pids}`)).stdout;
      assert.match((await sh(command, code)).stderr, words, command);
      assert.is((await sh(`${sums}; ${pids}`)).stdout, before, command);
    };
    try {
      await furnish({ sh, stop, init: "" }, { repos: ["jostylr/site"], hosts: ["hooks.example.com"] });
      await sh(`node clone/dist/setup.mjs server --yes
        setup repo jostylr/site --yes
        setup slave --base https://git.example.com/me/ --yes
        systemctl stop slave-server.service slave-server.socket
        ${build("new", "2099-01-01")}
        ${build("broken", "2099-01-01")}
        head -c 5000 new/downloads.mjs >broken/downloads.mjs`);

      // what its user puts in the place of the key is not read by root
      const shown = await sh(`cd /home/site/.ssh; mv id_ed25519.pub kept; ln -s /etc/shadow id_ed25519.pub
        setup repo jostylr/site --yes; mv -f kept id_ed25519.pub`);
      assert.not.match(shown.stdout, /root:/);

      await unchanged("setup upgrade --yes", 2, "these are the scripts that are installed");
      await unchanged("setup upgrade --yes --from clone", 2, "has no setup.mjs");
      await sh("chmod 777 broken");
      await unchanged("setup upgrade --yes --from broken", 4, "broken can be written by everybody");
      await sh("chmod 755 broken; chmod 666 broken/logs.mjs");
      await unchanged("setup upgrade --yes --from broken", 4, "broken/logs.mjs can be written by");
      await sh("chmod 644 broken/logs.mjs");
      await unchanged(
        "setup upgrade --yes --from broken",
        1,
        /broken\/downloads\.mjs does not run: .*; nothing was replaced/,
      );
      await sh("sed -i s/dir:/dirr:/ /etc/boatyard/hooks.yml");
      await unchanged(
        "setup upgrade --yes --from new",
        1,
        /does not accept \/etc\/boatyard\/hooks\.yml: .*unknown key "dirr"/,
      );
      await sh("sed -i s/dirr:/dir:/ /etc/boatyard/hooks.yml");
      const old = (await sh(sums)).stdout;
      const { stdout } = await sh("setup upgrade --from new --dry-run");
      assert.is((await sh(sums)).stdout, old);
      assert.match(stdout, /^Boatyard 0\.2\.0 \(commit f+ of 2099-01-01T00:00:00Z\), over \d+\.\d+\.\d+ \(commit /);
      assert.not.match(stdout, /systemd: enable|slavelist\.txt|user site/);

      // killed between two files, and run again
      const inject = "strace -f -qq -o /dev/null -e trace=rename -e inject=rename:signal=KILL:when=2";
      await sh(`UV_THREADPOOL_SIZE=1 ${inject} node new/setup.mjs upgrade --yes >cut.txt 2>&1 || :`);
      const mixed = (
        await sh(`cd ${installed}; for each in *.mjs; do
        cmp -s $each ~/new/$each && echo new || { cmp $each ~/clone/dist/$each && echo old; }; done`)
      ).stdout;
      assert.match(mixed, /^(?:new\n)+(?:old\n)+$/);
      const before = (await sh(pids)).stdout.split("\n");
      const done = await sh("node new/setup.mjs upgrade --yes");
      assert.match(done.stderr, "done  systemd: restart hook-server.service");
      assert.not.match(done.stderr, "let site read", "the folder it was brought in stays root's");
      await sh(`cd ${installed}; for each in *.mjs; do cmp $each ~/new/$each; done`);
      const after = (await sh(pids)).stdout.split("\n");
      assert.is.not(after[0], before[0], "the server runs the new file");
      assert.match((await sh("systemctl is-active slave-server", 3)).stdout, "inactive");
      assert.match((await sh("setup upgrade --yes --from new")).stderr, "nothing was older");
      await unchanged("setup upgrade --yes --from clone/dist", 4, "what is installed is newer");

      // from a signed web folder
      const made = await sh(`${build("newer", "2099-02-02")}
        release keygen --out key.asc
        release pack --app boatyard --version 0.2.1 --from newer --out web --key key.asc >&2`);
      const key = /^[0-9A-F]{40}$/m.exec(made.stdout)?.[0] ?? "";
      const upgrade = "setup upgrade --yes --from file:///root/web";
      await unchanged(upgrade, 4, "no key is pinned");
      await unchanged(`${upgrade} --key ${"0".repeat(40)}`, 4, "no key with the fingerprint");
      await sh("cp -r web good; printf x >>$(echo web/*.tar.gz)");
      await unchanged(`${upgrade} --key ${key}`, 4, /boatyard-0\.2\.1\.tar\.gz/);
      await sh("rm -r web; cp -r good web; sed -i '1s/0[.]2[.]1/0.2.2/' web/VERSION");
      await unchanged(`${upgrade} --key ${key}`, 4, "VERSION.sig");
      await sh("rm -r web; cp -r good web");
      // --dry-run remembers neither the key nor what it has seen
      assert.match((await sh(`${upgrade} --key ${key} --dry-run`)).stdout, "of 2099-02-02");
      await unchanged(upgrade, 4, "no key is pinned");
      assert.match((await sh(`${upgrade} --key ${key}`)).stdout, "of 2099-02-02");
      await sh(`cd ${installed}; for each in *.mjs; do cmp $each ~/newer/$each; done`);
      // the key is remembered, and nothing is left of what was fetched
      assert.match((await sh(upgrade)).stderr, "nothing was older");
      assert.is((await sh("ls /var/lib/boatyard-upgrades")).stdout, "accepted.json\nkeys\n");

      // while a person is asked, nobody changes what the plan was made of
      await sh(`(sleep 1000 | script --quiet --flush --command 'setup repo jostylr/one' /dev/null) >shown.txt 2>&1 &
        until grep -q 'Do it' shown.txt; do sleep 0.05; done`);
      const other = "setup repo ada/one --yes --url file:///srv/git/jostylr/site.git";
      assert.match((await sh(other, 3)).stderr, "boatyard-setup.lock is locked by process");
      // nor can anybody else hold it
      assert.is((await sh("stat -c %a /run/boatyard-setup.lock")).stdout, "600\n");
    } finally {
      await stop();
    }
  },
);

testUnless(test, missing ?? needsCommand("dpkg-deb"))(
  "what a package manager installed is left to it, with the command to type",
  async () => {
    const { sh, stop } = await startMachine();
    const refused = async (words: string) => {
      const { stderr } = await sh("setup upgrade --yes --from new", 4);
      assert.match(stderr, words);
    };
    try {
      await sh(build("new", "2099-01-01"));
      await sh(`npm=/usr/local/lib/node_modules/boatyard
        mkdir -p $npm; cp -r clone/dist $npm
        for each in setup hook-server; do ln -s $npm/dist/$each.mjs /usr/local/bin/$each; done`);
      await refused("nothing was replaced; type: npm install --global boatyard@latest");
      await sh("rm -r /usr/local/lib/node_modules/boatyard /usr/local/bin/{setup,hook-server}");

      // the machine has a package database of its own: what is written lies over this machine's files
      await sh(`mkdir -p deb/DEBIAN deb/usr/bin deb/usr/lib/yard
        cp clone/dist/*.mjs deb/usr/lib/yard; ln -s ../lib/yard/setup.mjs deb/usr/bin/setup
        printf '%s\n' 'Package: yard-scripts' 'Version: 0.1.0' 'Architecture: all' 'Maintainer: Ada <ada@example.com>' \
          'Description: scripts of ours' >deb/DEBIAN/control
        dpkg-deb --root-owner-group --build deb yard.deb && dpkg --install yard.deb`);
      await refused(
        "/usr/lib/yard/setup.mjs is of the Debian package yard-scripts; nothing was replaced; type: apt-get update && apt-get install --only-upgrade yard-scripts",
      );
      await sh("for each in /usr/lib/yard/*.mjs; do cmp $each clone/dist/${each##*/}; done");
      await sh("[ ! -e /usr/local/lib/boatyard ]");
    } finally {
      await stop();
    }
  },
);

test.run();
