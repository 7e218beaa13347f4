// The walk of docs/many-machines.md, as root types it: a bus, a master and slaves, here on one machine of its own.
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Machine, noMachine, startMachine } from "../helpers/machine.ts";
import { needsNats } from "../helpers/nats.ts";
import { runScript } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const test = suite("setup bus");
let machine: Machine | undefined;
test.after.each(async () => {
  await machine?.stop();
  machine = undefined;
});

const noWalk = noMachine ?? needsNats ?? needsCommand("openssl");

testUnless(test, noWalk)("a bus, its users, a slave without a port, and all taken away", async () => {
  machine = await startMachine();
  const { sh } = machine;
  await sh("hostname web-17");
  const setup = "node /usr/local/lib/boatyard/setup.mjs";
  const url = "tls://localhost:4222";
  const shown = await sh(`${setup} bus --address localhost --dry-run`);
  assert.match(shown.stdout, /make +certificate \/etc\/boatyard\/bus\.crt for localhost/);
  assert.match((await sh(`${setup} bus add web-1 --nkey x`, 2)).stderr, "no bus is set up here");
  const made = await sh(`${setup} bus --address localhost --yes`);
  assert.match(made.stdout, "setup slave --bus tls://localhost:4222 --ca bus.crt");
  // nobody gets in before somebody was added
  const users = await sh("cat /etc/boatyard/nats-users.conf");
  assert.match(users.stdout, /nkey: U[A-Z2-7]{55},.*deny: \[">"\]/);
  assert.is((await sh(`${setup} bus --address localhost --yes`)).stderr.trim(), "nothing was missing");
  await sh("systemctl is-active boatyard-bus.service");
  // its certificate is for that name, and for no other
  const otherName = await sh(`${setup} bus --address bus.example.com --yes`, 4);
  assert.match(otherName.stderr, "is for localhost, not for bus.example.com; name that by --address");
  await sh("cd /etc/boatyard; cp bus.crt /root/kept.crt; echo damaged >bus.crt");
  const damaged = await sh(`${setup} bus --address localhost --yes`, 4);
  assert.match(damaged.stderr, "bus.crt is not a certificate; put it right, or remove it");
  await sh("cat /root/kept.crt >/etc/boatyard/bus.crt");

  // the master, and what it says is typed on the machine of the bus
  const type = async (told: string) => {
    const line = /^ +(setup bus add .+)$/m.exec(told)?.[1] ?? "no command";
    const typed = await sh(line.replace("setup", `${setup}`).concat(" --yes"));
    assert.match(typed.stderr, "3 steps done");
    const again = await sh(line.replace("setup", `${setup}`).concat(" --yes"));
    assert.match(again.stderr, "nothing was missing");
  };
  await sh("cp /etc/boatyard/bus.crt .");
  const master = await sh(`${setup} server --bus ${url} --ca bus.crt --yes`);
  await type(master.stdout);
  await sh("systemctl is-enabled server-update.timer");
  const refused = await sh(`${setup} slave --bus ${url} --ca bus.crt --base git://127.0.0.1/ --yes`, 2);
  assert.match(refused.stderr, "--bus needs --master-key");
  await sh(`git init -q --bare -b main /srv/site.git; git clone -q /srv/site.git work 2>/dev/null; cd work
    git config user.name a; git config user.email a@b; echo one >index.html
    git add .; git commit -qm one; git push -q origin HEAD:main
    git daemon --base-path=/srv --export-all --listen=127.0.0.1 --detach`);
  const key = "$(cat /etc/server-update/master.key.pub)";
  const flags = `--bus ${url} --ca bus.crt --master-key ${key} --base git://127.0.0.1/`;
  const slave = await sh(`${setup} slave ${flags} --yes`);
  assert.match(slave.stdout, "slavelist.txt: bus://web-17");
  await type(slave.stdout);
  await sh("printf '[web]\\nbus://web-17\\n' >/etc/server-update/slavelist.txt");
  const update = `server-update site --wait --base git://127.0.0.1/`;
  assert.match((await sh(update)).stdout, "1 slave: 1 ok");
  assert.is((await sh("cat /srv/slave/repos/site/index.html")).stdout, "one\n");
  // it opens no port, and what setup made is well; only the forge cannot be reached here
  assert.not.match((await sh("ss -Hltn")).stdout, ":9999");
  const { findings } = JSON.parse((await sh(`${setup} check --json || true`)).stdout) as {
    findings: { what: string; fix?: string }[];
  };
  const about = findings.filter(({ what }) => /bus|slave/.test(what));
  assert.ok(about.some(({ what }) => what.includes("certificate of the bus is good for 36")));
  assert.equal(
    about.filter(({ fix }) => fix !== undefined),
    [],
  );

  // one more is let in, and the first one's connection stays; then the first one's is cut
  const log = "/run/units/slave-server.service.log";
  const seed = (await sh("server-update keygen --bus --out other.seed 2>/dev/null")).stdout.trim();
  const before = (await sh(`cat ${log}`)).stdout.length;
  await sh(`${setup} bus add web-18 --nkey ${seed} --yes`);
  assert.match((await sh(`${setup} bus add web-19 --nkey ${seed} --yes`, 2)).stderr, "web-18 has that key");
  assert.match((await sh(`${setup} bus add master --nkey ${seed} --yes`, 2)).stderr, "cannot be called");
  await sh(update);
  assert.not.match((await sh(`cat ${log}`)).stdout.slice(before), /lost|does not let/);
  await sh(`${setup} bus remove web-17 --yes`);
  await waitFor(async () => /is lost/.test((await sh(`cat ${log}`)).stdout.slice(before)));
  assert.match((await sh(`${setup} bus remove web-17 --yes`, 2)).stderr, "the bus knows no web-17");

  // settings that nats-server would not take are not loaded
  await sh("echo 'accounts: [' >>/etc/boatyard/nats.conf");
  const broken = await sh(`${setup} bus --address localhost --yes`, 1);
  assert.match(broken.stderr, "nats-server does not accept /etc/boatyard/nats.conf");
  await sh("systemctl is-active boatyard-bus.service");

  for (const what of ["slave", "server"]) await sh(`${setup} remove ${what} --purge --yes`);
  assert.match((await sh(`${setup} remove bus --yes`)).stdout, /Kept;[^]*nats-users.conf/);
  await sh(`${setup} remove bus --purge --yes`);
  const left = "ls -d /etc/boatyard /etc/server-update /var/lib/boatyard-bus /usr/local/bin/setup";
  assert.is((await sh(`${left} 2>/dev/null || true`)).stdout, "");
  await sh("systemctl is-active boatyard-bus.service", 3);
});

testUnless(test, needsNats)("under another root the files are made, and the rest is listed", async () => {
  const root = tempDir("root-");
  const { stdout } = await runScript("setup", ["bus", "--yes", "--root", root], { expect: 0 });
  assert.match(stdout, "systemctl enable --now boatyard-bus.service");
});

test.run();
