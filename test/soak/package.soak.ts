// The packages of npm run package on machines of their own: Debian's, installed, upgraded, removed and purged on a booted
// one, also over what an earlier setup has left; npm's, from which the demo runs.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, readFile, realpath, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../lib/core/version.ts";
import { bootDebian, debianNode, noBootedDebian } from "../helpers/debian.ts";
import { prepare } from "../helpers/prepare.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { makeApp } from "../helpers/world.ts";

const folder = tempDir("package-");
const older = "0.0.9";
const deb = (of: string) => `boatyard_${of}_all.deb`;

/** Makes the packages under that umask, the Debian one of that version. */
async function pack(out: string, umask: string, of = version): Promise<void> {
  const argv = ["node", "--import", "tsx", "tools/ship/package.ts", out, of];
  await runCommand(["sh", "-c", `umask ${umask}; exec "$@"`, "sh", ...argv], {
    ...{ cwd: root, expect: 0, timeout: 300_000 },
  });
}

const sums = async (out: string) =>
  Object.fromEntries(
    await Promise.all(
      (await readdir(out)).map(
        async (name) =>
          [
            name,
            createHash("sha256")
              .update(await readFile(join(out, name)))
              .digest("hex"),
          ] as const,
      ),
    ),
  );

prepare(test, async () => {
  await pack(join(folder, "one"), "022");
});

test("the same commit gives the same packages, whatever the umask", async () => {
  await pack(join(folder, "two"), "077");
  assert.equal(await sums(join(folder, "two")), await sums(join(folder, "one")));
});

testUnless(test, needsCommand("lintian"))("lintian finds no error", async () => {
  const argv = ["lintian", "--allow-root", join(folder, "one", deb(version))];
  const { stdout } = await runCommand(argv, {
    env: { TMPDIR: tempDir() },
    timeout: 300_000,
  });
  assert.not.match(stdout, /^E:/m);
});

test("npx boatyard demo runs from the npm package alone", async () => {
  const file = join(folder, "one", `boatyard-${version}.tgz`);
  const argv = ["npx", "--yes", "--offline", `--package=${file}`, "boatyard", "demo"];
  const { stdout } = await runCommand(argv, {
    cwd: tempDir(),
    env: { npm_config_cache: tempDir() },
    expect: 0,
    timeout: 240_000,
  });
  assert.match(stdout, "says: 3 ships in harbour: Argo, Beagle, Calypso\n");
  assert.match(stdout, /done in [\d.]+ s/);
});

/** A package `nodejs` around a Node, where the Debian has none that is new enough, or no network. */
async function packNode(out: string): Promise<void> {
  const tree = join(out, "nodejs");
  await mkdir(join(tree, "usr/bin"), { recursive: true });
  await mkdir(join(tree, "DEBIAN"), { recursive: true });
  await copyFile(await realpath(debianNode), join(tree, "usr/bin/node"));
  const number = (await runCommand([debianNode, "--version"])).stdout.trim().slice(1);
  await writeFile(
    join(tree, "DEBIAN/control"),
    `Package: nodejs\nVersion: ${number}-1test\nArchitecture: all\nMaintainer: tests <tests@boatyard.invalid>\nDescription: Node for a test\n`,
  );
  await runCommand(["dpkg-deb", "-Znone", "--build", tree, join(out, "nodejs.deb")], { expect: 0 });
}

for (const suite of ["bookworm", "trixie"]) {
  const other = suite === "trixie" && process.env["SOAK_TRIXIE"] !== "1" && "set SOAK_TRIXIE=1 for it";
  testUnless(test, noBootedDebian || needsCommand("dpkg-deb") || other)(
    `a booted ${suite}: the package is installed, upgraded, removed and purged`,
    async () => {
      await pack(join(folder, "older"), "022", older);
      await packNode(folder);
      const machine = await bootDebian(suite);
      const { sh } = machine;
      const bring = async (file: string, to: string) =>
        await sh(`base64 -d > ${to}`, 0, (await readFile(file)).toString("base64"));
      const on = async (unit: string) =>
        (await sh(`systemctl is-enabled ${unit} || :; systemctl is-active ${unit} || :`)).stdout
          .trim()
          .replace("\n", " ");
      const units = ["hook-server.socket", "hook-server.service", "slave-server.service"];
      try {
        await bring(join(folder, "nodejs.deb"), "/root/nodejs.deb");
        await bring(join(folder, "older", deb(older)), "/root/older.deb");
        await bring(join(folder, "one", deb(version)), "/root/newer.deb");
        // what came by hand before
        await sh(`mkdir -p /usr/local/lib/boatyard; cp /root/clone/dist/*.mjs /usr/local/lib/boatyard/
          node /usr/local/lib/boatyard/setup.mjs server --yes`);
        const { key, publish } = await makeApp(machine);
        await publish("1.0.0");
        await sh(`setup app my-app --server file:///srv/www/app-updates --key ${key} --yes
          systemctl enable --now logs-rotate@site.timer`);
        await sh("dpkg -i /root/nodejs.deb");
        assert.is(await on("hook-server.service"), "enabled active");

        // the package comes beside it: nothing of the admin's changes, what was left wins and is named
        const hooks = (await sh("sha256sum /etc/boatyard/hooks.yml")).stdout;
        await sh("dpkg -i /root/older.deb");
        const checked = await sh("/usr/bin/boatyard setup check --json || :");
        const { findings } = JSON.parse(checked.stdout) as { findings: { fix?: string }[] };
        const fix = findings.find((each) => each.fix?.startsWith("remove what is older: "))?.fix ?? "";
        assert.match(fix, "rm /usr/local/bin/");
        await sh(`${fix.replace("remove what is older: ", "")}
          cd /etc/systemd/system; rm hook-server.* build@.* logs-rotate@.* server-update.* launchfit@.service
          systemctl daemon-reload; /usr/bin/boatyard setup server --yes
          systemctl reenable hook-server.socket hook-server.service logs-rotate@site.timer launchfit@my-app; systemctl restart launchfit@my-app`);
        assert.match(
          (await sh("hash -r; command -v build; ls /usr/local/bin /etc/systemd/system")).stdout,
          /^\/usr\/bin\/build\n(?![\s\S]*hook-server\.service\n)/,
        );
        assert.is(await on("hook-server.service"), "enabled active");
        for (const unit of ["hook-server", "launchfit@my-app"]) {
          const pid = `$(systemctl show --property=MainPID --value ${unit})`;
          const running = await sh(`tr '\\0' ' ' < /proc/${pid}/cmdline`);
          const name = unit.replace(/@.*/, "");
          assert.match(running.stdout, new RegExp(`/usr/(?:lib/boatyard|bin)/${name}`));
        }
        // what is on is on by the package's files, and what was off is not begun
        assert.is((await sh("find /etc/systemd/system -xtype l")).stdout, "");
        assert.is(await on("logs-rotate@site.timer"), "enabled active");
        assert.match((await sh("journalctl --unit=server-update.service")).stdout, "No entries");
        assert.not.match((await sh("boatyard setup check --json || :")).stdout, "what is older");
        // again: setup server finds all there
        await sh("boatyard setup server --yes");
        assert.not.match((await sh("ls /usr/local/bin /etc/systemd/system")).stdout, /build|hook-server\.service\n/);

        // an upgrade restarts what runs, and leaves the rest off
        const pid = () => sh("systemctl show --property=MainPID --value hook-server.service");
        const before = (await pid()).stdout;
        await sh("dpkg -i /root/newer.deb");
        assert.is(await on("hook-server.service"), "enabled active");
        assert.is(await on("slave-server.service"), "disabled inactive");
        assert.is.not((await pid()).stdout, before);
        assert.match((await sh("dpkg-query --showformat='${Version}' --show boatyard")).stdout, version);
        assert.match((await sh("getent passwd slave")).stdout, "/srv/slave");

        // removed, purged: what is the admin's stays
        await sh("dpkg --remove boatyard");
        for (const unit of units) assert.match(await on(unit), /inactive/);
        assert.not.match((await sh("ls /usr/bin")).stdout, "hook-server");
        await sh("dpkg --purge boatyard");
        assert.is((await sh("sha256sum /etc/boatyard/hooks.yml")).stdout, hooks);

        // on a machine without any of it no service is switched on
        await sh("rm -rf /etc/boatyard; dpkg -i /root/newer.deb");
        for (const unit of units) assert.is(await on(unit), "disabled inactive");
        await sh("boatyard setup server --yes");
        assert.is(await on("hook-server.service"), "enabled active");
      } finally {
        await machine.stop();
      }
    },
  );
}

test.run();
