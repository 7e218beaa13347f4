// docs/fleet.md to the letter. Its six slaves are one, under six names.
import * as assert from "uvu/assert";
import type { Machine } from "../helpers/machine.ts";
import { openPage } from "../helpers/pages.ts";
import { copied, furnish } from "../helpers/world.ts";

const slaves = [1, 2, 3, 4, 5, 6].map((number) => `slave${number}.example.com`);

export async function walkFleet(machine: Machine): Promise<void> {
  const { sh } = machine;
  const page = await openPage("fleet.md");
  await furnish(machine, { repos: ["me/site"], hosts: slaves });
  // what docs/server.md leaves behind
  await sh(`
    ${copied}
    node /usr/local/lib/boatyard/setup.mjs server --yes
    ${page.inline("setup server")} --yes
    setup repo me/site --yes`);

  assert.match((await sh(page.block("master.key.pub"))).stdout, /^ed25519:[\w-]{43}$/m);
  await sh(page.block("scp /etc/server-update/secret"));
  await sh(`cd clone\n${page.block("scp dist/")}`);
  const made = await sh(page.block("setup.mjs slave"));
  assert.match(made.stderr, "done  user slave, home /srv/slave");
  const settings = page.block("allow: [site]", {
    "name: slave1.example.com": `name: [${slaves.join(", ")}]`,
  });
  await sh("cat >/etc/boatyard/slave.yml", 0, settings);
  await sh(page.block("runuser -u slave"));
  const tree = "cat /srv/slave/repos/site/index.html";
  assert.is((await sh(`${tree}; stat -c %U /srv/slave/site.new`)).stdout, "one\nslave\n");

  // TLS: the template, with the certificate where certbot would have put it
  await sh(`
    mkdir -p /etc/letsencrypt/live/slave1.example.com; cd /etc/letsencrypt/live/slave1.example.com
    cp /etc/ssl/world.pem fullchain.pem; cp /etc/ssl/world.key privkey.pem; cp fullchain.pem ~/authority.pem
    cp ~/clone/templates/nginx-slave.conf /etc/nginx/conf.d/boatyard-slave.conf`);
  await sh(page.block("slave-server.socket.d"));
  await sh("nginx -s reload");
  await sh("cat >/etc/server-update/slavelist.txt", 0, page.block("[europe]"));
  const asked = await sh(page.block("--batch"));
  assert.match(asked.stdout, "6 slaves: 6 ok, 0 failed; at ");
  await sh("cd work/me/site; echo two >index.html; git commit -qam two; git push -q origin HEAD:main");
  const own = page.inline("server-update site --ca authority.pem");
  await sh(`${own} --wait --secret-file /etc/server-update/secret`);
  assert.is((await sh(tree)).stdout, "two\n");

  // every push reaches the fleet
  const entry = page.block("on_success: [server-update");
  const line = /on_success: .*/.exec(entry)?.[0] ?? "";
  await sh(
    `sed -i 's#^    secret_file: .*#&\\n    ${line}#' /etc/boatyard/hooks.d/*.yml; systemctl reload hook-server`,
  );
  await sh("pushed me/site /etc/boatyard/site.secret three");
  assert.is((await sh(tree)).stdout, "three\n");

  // the timer
  await sh(page.block("server-update.timer"));

  // day by day: a slave was off
  const off = "systemctl stop slave-server.socket slave-server.service";
  const on = "systemctl start slave-server.socket slave-server.service";
  const env = `export SERVER_UPDATE_SECRET_FILE=/etc/server-update/secret`;
  await sh(off);
  await sh("pushed me/site /etc/boatyard/site.secret four", 1);
  await sh(on);
  await sh(`${env}; ${page.inline("server-update --converge")}`);
  assert.is((await sh(tree)).stdout, "four\n");
  assert.match((await sh(`${env}; ${page.inline("server-update --status")}`)).stdout, "6 of 6 are as");

  // a bad commit
  const good = (await sh("git -C work/me/site rev-parse HEAD~1")).stdout.trim();
  await sh(`${env}; ${page.inline("server-update site --sha GOOD --wait", { GOOD: good })}`);
  assert.is((await sh(tree)).stdout, "three\n");
  await sh(page.inline("runuser -u slave -- slave-activate site --rollback"));
  assert.is((await sh(tree)).stdout, "four\n");

  // a new secret
  await sh("cd /etc/boatyard; openssl rand -hex 32 >new.secret; chown slave new.secret; chmod 600 new.secret");
  const both = page.inline("secret_file: [new.secret, slave.secret]");
  await sh(`sed -i 's#^secret_file:.*#${both}#' /etc/boatyard/slave.yml; systemctl restart slave-server`);
  await sh(`${env}; server-update site --wait`);
  await sh("cat /etc/boatyard/new.secret >/etc/server-update/secret");
  await sh(
    "sed -i 's#^secret_file:.*#secret_file: new.secret#' /etc/boatyard/slave.yml; systemctl restart slave-server",
  );
  await sh(`${env}; server-update site --wait`);

  // cron of a slave that cannot be told
  // cron runs what follows the five fields of time
  const cron = page.inline("*/15 * * * * slave-activate site >/dev/null").split(" ").slice(5).join(" ");
  assert.is((await sh(`runuser -u slave -- ${cron}`)).stdout, "");
  const keygen = page.inline("server-update keygen --out FILE", { FILE: "other.key" });
  assert.match((await sh(keygen)).stdout, /^ed25519:/);
  assert.equal(page.untyped(), []);
}
