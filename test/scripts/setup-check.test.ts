// setup check on a whole machine with a server, a repo and a slave, with something wrong of each kind.
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { testUnless } from "../helpers/skip.ts";
import { furnish, noWorld } from "../helpers/world.ts";

const dist = process.env["BOATYARD_TEST_DIST"] === "1";
const missing = noMachine ?? noWorld ?? (dist ? undefined : "a machine has the bundles: npm test");

const entry = "/etc/boatyard/hooks.d/jostylr+site.yml";
/** What is done, what setup check then says, and how it is made good again. */
const faults: [string, RegExp, string][] = [
  [
    `cp ${entry} good; sed -i s/dir:/dirr:/ ${entry}`,
    /hook-server accepts \S+hooks\.yml: \/etc\/\S+:\d+:\d+: unknown key "dirr" \(did you mean "dir"\?\)/,
    `cp good ${entry}`,
  ],
  [
    "chmod 755 /home/site; chmod 644 /etc/boatyard/site.secret",
    /\/home\/site 0700 of site: has another owner or mode; run: setup repo[^]*site\.secret 0600: has another/,
    "setup repo jostylr/site --yes",
  ],
  [
    "systemctl stop slave-server.service; chown root /etc/boatyard/slave.secret",
    /slave\.secret 0600 of slave: has another owner[^]*slave-server\.service[^\n]*: is missing; run: setup slave/,
    "setup slave --yes",
  ],
  [
    "mv /srv/git/jostylr /srv/git/away",
    /its remote can be read: fatal: .*; give site a key or token/,
    "mv /srv/git/away /srv/git/jostylr",
  ],
  [
    "runuser -u site -- git -C /home/site/site switch -q --detach",
    /jostylr\/site: its checkout is on a branch: \S+ is on none: runuser -u site -- git -C \S+ switch/,
    "runuser -u site -- git -C /home/site/site switch -q main",
  ],
  [
    "runuser -u two -- git -C /home/two/two switch -qc other",
    /jostylr\/two: its checkout is on a branch that refs name: \S+ is on other, and refs in \S+ name deploy; add other/,
    "runuser -u two -- git -C /home/two/two switch -q deploy",
  ],
  [
    "sed -i s/^RestartSec=.*/RestartSec=9s/ /etc/systemd/system/hook-server.service",
    /system\/hook-server\.service 0644: differs; run: setup server/,
    "setup server --yes",
  ],
  [
    // what Caddy does on that port where its configuration names no other
    `node -e 'require("http").createServer((_, answer) => answer.end("{}")).listen(2019, "localhost")' >/dev/null 2>&1 & echo $! >caddy.pid
      until curl -s localhost:2019; do sleep 0.1; done`,
    /Caddy takes its configuration from root alone: any user or build here[^]*admin unix\/\/var[^]*\d+ checked, \d+ to fix\n$/,
    "kill $(cat caddy.pid)",
  ],
  ["userdel --force site", /user site, home \S+: is missing; run: setup repo jostylr\/site/, ":"],
];

testUnless(test, missing)("each thing that is wrong is named, with the command that fixes it", async () => {
  const { sh, stop } = await startMachine();
  try {
    await furnish({ sh, stop, init: "" }, { repos: ["jostylr/site", "jostylr/two"], hosts: ["hooks.example.com"] });
    await sh(`node /usr/local/lib/boatyard/setup.mjs server --yes
      setup repo jostylr/site --yes
      setup slave --base https://git.example.com/me/ --yes`);
    // a branch that is not the forge's default, on a server that runs: only its pushes are built
    await sh("cd work/jostylr/two; git push -q origin HEAD:deploy");
    await sh("setup repo jostylr/two --branch deploy --yes");
    await sh("until hook-server status --json | grep -q '\"jostylr/two\"'; do sleep 0.1; done");
    const main = await sh("deliver jostylr/two /etc/boatyard/two.secret");
    assert.match(main.stdout, '"run":null');
    assert.is((await sh("runuser -u two -- git -C /home/two/two branch --show-current")).stdout, "deploy\n");
    // root's own folder is not what the slave serves
    const wrong = await sh("slave-activate site", 2);
    assert.match(wrong.stderr, "are those of slave, and this is root; type: runuser -u slave -- slave-activate");
    // what is closed to a user is there all the same
    const closed = await sh("runuser -u site -- build /root/work", 2);
    assert.match(closed.stderr, "/root/work is closed to this user; build as its owner");
    const config = await sh("runuser -u site -- hook-server --config /root/hooks.yml", 2);
    assert.match(config.stderr, "/root/hooks.yml: this user may not read it; type the command");
    // the secret that setup made lies beside the list
    await sh("echo 127.0.0.1 name=$(hostname) >/etc/server-update/slavelist.txt");
    // from root's folder, which is closed to others
    await sh("runuser -u site -- build /home/site/site");
    await sh("cat /etc/boatyard/slave.secret >/etc/server-update/secret");
    // beside the master's own key the secret is named, as setup says it
    const status = await sh("server-update --status site --secret-file /etc/server-update/secret || :");
    assert.not.match(`${status.stdout}${status.stderr}`, "answers 401");
    const failed = await sh("setup repo jostylr/none --url /srv/git/jostylr/none.git --yes", 1);
    assert.match(failed.stderr, "check that none can read it, and correct --url");
    assert.not.match((await sh("ls /etc/boatyard/hooks.d")).stdout, "jostylr+none");
    const forge = "setup check --forge http://127.0.0.1:9999/healthz";
    assert.not.match((await sh(forge)).stdout, /^fix/m);
    for (const [harm, said, repair] of faults) {
      await sh(harm);
      assert.match((await sh(forge, 1)).stdout, said, harm);
      await sh(repair);
    }
  } finally {
    await stop();
  }
});

testUnless(test, missing)(
  "scripts that npm installed below /usr are where the units start them, and setup check finds those units right",
  async () => {
    const { sh, stop } = await startMachine();
    try {
      await sh(`folder=/usr/lib/node_modules/boatyard
      mkdir -p $folder; cp -r clone/dist $folder
      for each in $folder/dist/*.mjs; do name=\${each##*/}; ln -sf $each /usr/bin/\${name%.mjs}; done
      setup server --yes`);
      assert.match((await sh("systemctl is-active hook-server")).stdout, "active");
      await sh(
        "grep ^ExecStart=/usr/lib/node_modules/boatyard/dist/hook-server.mjs /etc/systemd/system/hook-server.service",
      );
      await sh("[ ! -e /usr/local/bin/build ]");
      // what came by hand before the package hides its commands
      await sh("ln -s /usr/local/lib/boatyard/build.mjs /usr/local/bin/build");
      const hidden = await sh("setup check", 1);
      assert.match(
        hidden.stdout,
        "nothing hides the package's commands: remove what is older: rm /usr/local/bin/build\n",
      );
      await sh("rm /usr/local/bin/build");
      // a service runs nothing that others can change, or cannot read
      const odd = "cp -r clone/dist odd; node odd/setup.mjs server --yes";
      assert.match((await sh(odd, 2)).stderr, "put the scripts where only root can write");
      assert.match((await sh("setup server --yes")).stderr, "nothing was missing");
      // su without - leaves out where useradd is
      await sh("PATH=/usr/local/bin:/usr/bin:/bin setup slave --base https://git.example.com/me/ --yes; id slave");
      const check = "setup check --forge http://127.0.0.1:9999/healthz";
      assert.not.match((await sh(check)).stdout, /^fix/m);
    } finally {
      await stop();
    }
  },
);

testUnless(test, missing)(
  "where no systemd runs, files are put there, and what it would do is left to people",
  async () => {
    const { sh, stop } = await startMachine();
    try {
      await sh("rmdir /run/systemd/system");
      const { stdout } = await sh("node /usr/local/lib/boatyard/setup.mjs server --yes");
      assert.match(stdout, /^Once systemd runs:?\n[^]*systemctl enable --now hook-server\.socket/m);
      await sh("[ -e /etc/systemd/system/hook-server.service ]; hook-server --version");
      assert.is((await sh("systemctl is-active hook-server.socket", 3)).stdout, "inactive\n");
    } finally {
      await stop();
    }
  },
);

test.run();
