// docs/server.md to the letter, but for what comes from elsewhere: Node, a certificate, a page of the forge.
import * as assert from "uvu/assert";
import type { Machine } from "../helpers/machine.ts";
import { openPage } from "../helpers/pages.ts";
import { furnish } from "../helpers/world.ts";

export async function walkServer(machine: Machine): Promise<void> {
  const { sh } = machine;
  const page = await openPage("server.md");
  await furnish(machine, { repos: ["jostylr/site"], hosts: ["hooks.example.com"] });

  // the second time, too: newer files take the place of the older ones
  const copy = page.block("scp dist/*.mjs");
  await sh(`cd clone\n${copy}`);
  await sh(`cd clone\necho '// new' >>dist/logs.mjs\n${copy}`);
  assert.is((await sh("tail -n 1 /usr/local/lib/boatyard/logs.mjs")).stdout.split("\n").at(-2), "// new");
  await sh(page.block("apt-get install --yes git"));

  const server = page.block("node /usr/local/lib/boatyard/setup.mjs server");
  assert.match((await sh(server)).stdout, /^make +links in \/usr\/local\/bin to \/usr\/local\/lib\/boatyard: build /m);
  assert.match((await sh(server)).stderr, "nothing was missing");
  const repo = await sh(page.block("setup repo jostylr/site --address"));
  const secret = /^ {2}Secret +([0-9a-f]{64})$/m.exec(repo.stdout)?.[1];
  assert.is((await sh("cat /etc/boatyard/site.secret")).stdout.trim(), secret);
  assert.match((await sh("ls /etc/nginx/snippets")).stdout, "boatyard-hooks.conf");
  const include = page.inline("include snippets/boatyard-hooks.conf;");
  await sh(`echo 'server { listen 443 ssl; server_name hooks.example.com; ${include} }' >/etc/nginx/conf.d/site.conf`);
  await sh(page.inline("nginx -t"));
  await sh(page.inline("systemctl reload nginx"));
  const check = await sh(page.block("setup check\n"));
  assert.not.match(check.stdout, /^fix/m);

  await sh("pushed jostylr/site /etc/boatyard/site.secret two");
  const seen = await sh(page.block("hook-server list"));
  assert.match(seen.stdout, "succeeded");
  assert.match(seen.stdout, "who");
  await sh(`timeout 1 ${page.inline("hook-server log -f")} || [ $? = 124 ]`);
  const poll = page.inline("poll: 1m");
  await sh(`echo '    ${poll}' | tee -a /etc/boatyard/hooks.d/*.yml; hook-server --check`);

  const left = page.untyped().map((text) => text.split("\n")[0]);
  assert.equal(left, [
    // no package archive can be reached here, and Node is there
    "apt-get install --yes nodejs npm",
    "apt-get install --yes curl ca-certificates",
    // names of commands, in sentences about them; no Caddy runs in this walk
    "setup repo",
    "systemctl restart caddy",
    "setup server",
    "hook-server list",
    "logs -f",
  ]);
}
