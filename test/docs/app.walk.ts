// docs/self-updating.md to the letter: a key, releases, an app by hand and as a service, and Boatyard shipped in the same way.
import * as assert from "uvu/assert";
import type { Machine } from "../helpers/machine.ts";
import { answered, openPage } from "../helpers/pages.ts";
import { copied, appServer, furnish, serve } from "../helpers/world.ts";

/** A command that goes on in a terminal of its own, and what it says. */
const inTerminal = (text: string) => `setsid bash -c '${text}' >terminal.txt 2>&1 &`;
const answer = "for _ in $(seq 100); do curl -sf 127.0.0.1:8080 && break; sleep 0.1; done";

export async function walkApp(machine: Machine): Promise<void> {
  const { sh } = machine;
  const page = await openPage("self-updating.md");
  await furnish(machine, { repos: ["me/my-app"], hosts: [] });
  await serve(machine, "example.com", "/srv/www");
  await sh(`
    ${copied}
    node /usr/local/lib/boatyard/setup.mjs server --yes
    ln -s /usr/local/lib/boatyard/launchfit.mjs /usr/local/bin/launchfit
    mkdir -p app/build
    printf 'from: upload\\nto: { web: { rsync: /srv/www/ } }\\n' >app/uploads.yml`);

  // the publisher
  const made = await sh(page.block("release keygen"));
  const key = /^[0-9A-F]{40}$/m.exec(made.stdout)?.[0] ?? "";
  await sh("cat >app/build/server.js", 0, appServer);
  await sh("cat >app/build/launchify.yml", 0, page.block("exec: node"));
  const publish = async (version: string) => {
    await sh(`echo ${version} >app/build/page.txt`);
    const text = page.block("release verify", { "--version 1.0": `--version ${version}` });
    return await sh(`cd app\n${text}`);
  };
  assert.match((await publish("1.0")).stdout, "my-app-1.0.tar.gz: good");
  await sh(`cd app; ${page.inline("release refresh")} --out upload/app-updates; uploads`);

  // by hand
  const reader = { "0123456789ABCDEF0123456789ABCDEF01234567": key };
  await sh(inTerminal(page.block("mkdir my-app", reader)));
  assert.is((await sh(answer)).stdout, "1.0\n");
  await publish("1.1");
  await sh("launchfit check --dir my-app");
  assert.is((await sh(answer)).stdout, "1.1\n");
  await sh("launchfit stop --dir my-app");

  // as a service
  const service = page.block("setup app", reader);
  assert.match((await sh(service, 2)).stderr, "there is no terminal to ask on; say --yes");
  await sh(answered(service));
  assert.is((await sh(answer)).stdout, "1.1\n");
  await sh("cat >/srv/my-app/launchify.yml", 0, page.block("every: 15m", reader));
  await sh(page.inline("systemctl restart launchfit@my-app"));
  await sh(answer);
  const held = "systemctl show -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax launchfit@my-app | sort | tr '\\n' ' '";
  await sh(answered(service));
  assert.is((await sh(held)).stdout, "CPUQuotaPerSecUSec=500ms MemoryMax=536870912 TasksMax=100 ");
  await sh(answer);
  const status = await sh(page.inline("launchfit status --dir /srv/my-app"));
  assert.match(status.stdout, "1.1");
  await publish("1.2");
  await sh(page.inline("launchfit check --dir /srv/my-app"));
  assert.is((await sh(`${answer}; stat -c %U /srv/my-app/current/page.txt`)).stdout, "1.2\nmy-app\n");
  await sh(page.inline("launchfit rollback --dir /srv/my-app"));
  assert.is((await sh(answer)).stdout, "1.1\n");
  const log = page.inline("launchfit log -f --dir /srv/my-app");
  await sh(`(timeout 20 ${log} 2>/dev/null &) | grep -m 1 1.2`);

  // Boatyard itself
  const ship = async (version: string) => {
    const text = page.block("npm run bundle", { "0.1.0": version });
    await sh(`cd clone\n${text}\ncp -r upload/boatyard /srv/www`);
  };
  await ship("0.1.0");
  await sh(page.block("launchfit https://example.com/boatyard --dir", reader));
  await sh("echo '// new' >>clone/dist/logs.mjs");
  await ship("0.1.1");
  const newer = await sh(page.block("launchfit check --once"));
  assert.match(newer.stdout, /replace +links in \/usr\/local\/bin/);
  assert.is((await sh("tail -n 1 $(readlink /usr/local/bin/logs)")).stdout, "// new\n");
  assert.match(
    (await sh("cat /etc/systemd/system/hook-server.service")).stdout,
    /^ExecStart=\/opt\/boatyard\/.*0\.1\.1\//m,
  );

  assert.equal(page.untyped(), []);
}
