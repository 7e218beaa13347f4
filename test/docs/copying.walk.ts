// docs/copying.md to the letter.
import * as assert from "uvu/assert";
import type { Machine } from "../helpers/machine.ts";
import { openPage } from "../helpers/pages.ts";
import { furnish } from "../helpers/world.ts";

export async function walkCopying(machine: Machine): Promise<void> {
  const { sh } = machine;
  const page = await openPage("copying.md");
  await furnish(machine, { repos: ["jostylr/site", "me/site"], hosts: ["server", "slave"] });
  const clone = (text: string) => sh(`cd clone\n${text}`);

  const help = await clone(page.block("scp dist/build.mjs server:/usr/local/bin/build\nssh"));
  assert.match(help.stdout, /^build: bring a checkout up to date/);

  await clone(page.block("hook-server.socket server:"));
  const checked = await sh(page.block("hook-server --check"));
  assert.match(checked.stdout, "ok    jostylr/site: its remote can be read");
  await sh("pushed jostylr/site /etc/boatyard/site.secret two");
  const built = await sh("cat /home/site/site/index.html /home/site/site/who.txt");
  assert.is(built.stdout, "two\nsite\n0022\n");
  assert.match((await sh("logs --list /home/site/site")).stdout, "ok");

  // "everything runs as an ordinary user too": cron's line
  const changed = `runuser -u site -- ${page.inline("build --if-changed")} /home/site/site`;
  assert.match((await sh(`${changed} 2>&1`)).stdout, "nothing new");

  await clone(page.block("slave:/bin/slave-activate"));
  await sh("umask 077; openssl rand -hex 32 > slave.secret");
  await sh(page.block("install --owner=slave"));
  assert.is((await sh("cat /srv/slave/repos/site/index.html")).stdout, "one\n");
  await sh(
    "grep -q one /srv/slave/repos/site/index.html; cd work/me/site; echo two >index.html; git commit -qam 2; git push -q origin HEAD:main",
  );
  await sh(
    "echo slave name=$(hostname) > list; node clone/dist/server-update.mjs site --wait --list list --base https://github.com/me/ --secret-file slave.secret",
  );
  assert.is((await sh("cat /srv/slave/repos/site/index.html")).stdout, "two\n");

  assert.equal(page.untyped(), []);
}
