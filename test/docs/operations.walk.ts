// docs/operations.md to the letter: upgrade, what to do when something is wrong, backup, and the move to another machine.
import * as assert from "uvu/assert";
import type { Machine } from "../helpers/machine.ts";
import { answered, openPage } from "../helpers/pages.ts";
import { copied, furnish, installServer, makeApp, serve } from "../helpers/world.ts";

const secret = "/etc/boatyard/site.secret";
const mainPid = "systemctl show --property=MainPID --value hook-server.service";

export async function walkOperations(machine: Machine, another: () => Promise<Machine>): Promise<void> {
  const page = await openPage("operations.md");
  const { sh } = machine;
  const line = async (span: string, words: Record<string, string> = {}, expect = 0) =>
    await sh(page.inline(span, words), expect);
  /** A push whose run is not waited for; its id. */
  const push = async (command: string) => {
    const stages = `stages: [pull, it]\\ncommands: { it: "${command}" }\\n`;
    await sh(`cd work/jostylr/site; printf '${stages}' >build.yml; git commit -qam x; git push -q origin HEAD:main`);
    return /2\w+-\w+/.exec((await sh(`deliver jostylr/site ${secret}`)).stdout)?.[0] ?? "";
  };
  const ended = (run: string, state: string) =>
    sh(`for _ in $(seq 100); do hook-server show ${run} | grep -q ${state} && exit; sleep 0.1; done; exit 1`);

  await furnish(machine, { repos: ["jostylr/site"], hosts: ["hooks.example.com"] });
  await installServer(machine, "jostylr/site");
  await sh(answered("setup server"));
  await sh("setup slave --base https://github.com/jostylr/ --secret-file /etc/server-update/secret --yes");
  await sh("hostname >/etc/server-update/slavelist.txt; echo 127.0.0.1 $(hostname) >>/etc/hosts");
  await sh(`pushed jostylr/site ${secret} two`);

  // upgrading: newer files come into the clone by git, and by npm, which this machine does not have
  await sh(`cd clone
    for name in hook-server slave-server; do echo '// new' >>dist/$name.mjs; done
    git init -q -b main; git add templates; git commit -qm templates
    git init -q --bare /srv/git/boatyard.git; git remote add origin /srv/git/boatyard.git; git push -qu origin main`);
  await sh(`cd clone\n${page.block("git pull")}`);
  const before = (await sh(mainPid)).stdout;
  const upgraded = await sh(page.block("setup slave --yes"));
  assert.is.not((await sh(mainPid)).stdout, before, "the service runs the new file");
  assert.match(upgraded.stderr, /done +systemd: enable hook-server[^]*done +systemd: enable slave-server/);

  // builds
  assert.match((await line("hook-server list")).stdout, "succeeded");
  await line("hook-server list --ignored");
  const bad = await push("echo so bad; exit 7");
  await ended(bad, "failed");
  assert.match((await line("logs --failed /home/site/site")).stdout, "so bad");
  assert.match((await line("hook-server log RUN", { RUN: bad })).stdout, "so bad");
  const hanging = await push("sleep 98767");
  await ended(hanging, "running");
  await line("hook-server cancel RUN", { RUN: hanging });
  await ended(hanging, "cancelled");
  assert.is((await sh("pgrep -x sleep -a | grep 98767 || :")).stdout, "");
  await line("runuser -u site -- logs rotate /home/site/site --max-size 1k --keep 1");
  await ended(await push("true"), "succeeded");
  assert.is((await sh("stat -c %U /home/site/site/logs.txt")).stdout, "site\n");

  // a secret that leaked
  await sh("cd /etc/boatyard; umask 077; openssl rand -hex 32 >new.secret");
  const both = page.inline("secret_file: [new.secret, site.secret]");
  await sh(`sed -i 's#secret_file: .*#${both}#' /etc/boatyard/hooks.d/*.yml; systemctl reload hook-server`);
  await sh(`pushed jostylr/site ${secret} three`);
  await sh("pushed jostylr/site /etc/boatyard/new.secret four");
  await sh(
    "sed -i 's#secret_file: .*#secret_file: new.secret#; ' /etc/boatyard/hooks.d/*.yml; systemctl reload hook-server",
  );
  await sh("pushed jostylr/site /etc/boatyard/new.secret five");

  // slaves
  const signed =
    "export SERVER_UPDATE_SECRET_FILE=/etc/server-update/secret SERVER_UPDATE_BASE=https://github.com/jostylr/;";
  await sh(`${signed} ${page.inline("server-update site --wait")}`);
  const good = (await sh("git -C work/jostylr/site rev-parse HEAD~1")).stdout.trim();
  await sh(`${signed} ${page.inline("server-update site --sha GOOD --wait", { GOOD: good })}`);
  assert.match((await sh(`${signed} ${page.inline("server-update --status site")}`)).stdout, good.slice(0, 12));
  await line("runuser -u slave -- slave-activate site --rollback");
  assert.is((await sh("cat /srv/slave/repos/site/index.html")).stdout, "five\n");

  // releases
  await serve(machine, "example.com", "/srv/www");
  const { key, publish } = await makeApp(machine);
  await publish("1.0");
  await sh(`setup app my-app --server https://example.com/app-updates --key ${key} --yes`);
  await line("systemctl restart launchfit@my-app");
  await publish("1.1");
  const runs = "launchfit status --dir /srv/my-app";
  await sh("launchfit check --dir /srv/my-app");
  await line("launchfit rollback --dir /srv/my-app");
  assert.match((await sh(runs)).stdout, "1.0");
  await sh(`cd app; ${page.inline("release withdraw 1.1")}; ${page.inline("release refresh")}; uploads`);
  await sh("launchfit check --dir /srv/my-app");
  assert.match((await sh(runs)).stdout, "1.0");

  assert.match((await line("hook-server --check")).stdout, "its remote can be read");
  assert.not.match((await line("setup check")).stdout, /^fix/m);

  // the move
  await sh(page.block("tar czf"));
  const bytes = (await sh("base64 -w0 boatyard-backup.tgz")).stdout;
  await line("systemctl stop hook-server.socket hook-server.service");
  const other = await another();
  try {
    await furnish(other, { repos: ["jostylr/site"], hosts: ["hooks.example.com"] });
    await other.sh("base64 -d >boatyard-backup.tgz", 0, bytes);
    await other.sh(copied);
    const restored = await other.sh(page.block("tar xzf"));
    assert.match(restored.stdout, "hook-server is not started yet");
    assert.match(restored.stdout, "(as before, in /etc/boatyard/site.secret; setup repo");
    await other.sh("pushed jostylr/site /etc/boatyard/new.secret six");
    assert.is((await other.sh("cat /home/site/site/index.html")).stdout, "six\n");
  } finally {
    await other.stop();
  }

  await sh(`${page.inline("systemctl status boatyard-runs.slice")} || :`);
  await line("systemctl stop hook-server.socket hook-server.service boatyard-runs.slice");

  // taking it away
  const removed = await sh(page.block("setup remove repo"));
  assert.match(removed.stdout, "folder /home/site with all that is in it");
  await sh(answered(page.inline("setup remove app NAME", { NAME: "my-app" })));
  await sh(answered(page.inline("setup remove slave")));
  await sh(answered(page.inline("setup remove server")));
  const rest = await sh("ls /usr/local/bin /etc/systemd/system; ls -d /home/site/site/index.html");
  assert.not.match(rest.stdout, /boatyard|hook-server|slave-server|logs-rotate/);
  assert.match((await sh("cat /etc/boatyard/hooks.yml")).stdout, "repos: {}");

  assert.equal(page.untyped(), ["systemctl edit hook-server"], "only an editor is left out");
}
