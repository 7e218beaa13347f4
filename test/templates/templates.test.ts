// Everything in templates/ is read by what it is for.
import { access, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readBuildConfig } from "../../lib/builder/config.ts";
import { parseList } from "../../lib/fleet/master/list.ts";
import { readSettings } from "../../lib/fleet/settings.ts";
import { emptyList } from "../../lib/setup/plan-server.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { isRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const folder = join(root, "templates");
const names = (await readdir(folder)).sort();
const read = (name: string) => readFile(join(folder, name), "utf8");
const lacks = (file: string) =>
  access(file).then(
    () => undefined,
    () => `needs ${file}`,
  );

test("every template says in its first line what it is", async () => {
  for (const name of names) {
    const text = await read(name);
    assert.match(text, /^(?:#|\/\/|#!\/bin\/sh[^\n]*\n#) ?\S.{15,}/, name);
  }
});

const units = names.filter((name) => /\.(?:service|socket|timer)$/.test(name));

const services = units.filter((name) => name.endsWith(".service"));
const noAnalyze = (await lacks("/usr/bin/systemd-analyze")) ?? (isRoot ? undefined : await lacks("/run/systemd"));

/** The units as an instance `x` would have them, with programs that exist here. */
async function unitFolder(): Promise<string> {
  const dir = tempDir("units-");
  for (const name of units) {
    const text = (await read(name)).replaceAll(/^(Exec(?:Start|StartPre|Reload)=[-+!@:]*)\/\S+/gm, "$1/bin/true");
    await writeFile(join(dir, name.replace("@.", "@x.")), text);
  }
  return dir;
}

testUnless(test, noAnalyze)("systemd finds no fault with the units", async () => {
  const dir = await unitFolder();
  const files = (await readdir(dir)).map((name) => join(dir, name));
  const { stdout, stderr } = await runCommand(["systemd-analyze", "verify", "--man=no", ...files], {
    env: { SYSTEMD_UNIT_PATH: `${dir}:/lib/systemd/system` },
    expect: 0,
  });
  assert.is(stdout + stderr, "");
});

/** Ten times systemd's exposure level. hook-server's job is to become other users: that alone is above 3. */
const mostExposed = (name: string) => (name === "hook-server.service" ? 36 : 30);

for (const name of services) {
  testUnless(test, noAnalyze)(`${name} is fenced in`, async () => {
    const file = join(await unitFolder(), name.replace("@.", "@x."));
    const threshold = `--threshold=${mostExposed(name)}`;
    await runCommand(["systemd-analyze", "security", "--offline=true", threshold, file], {
      expect: 0,
    });
  });
}

/** Its program is Debian's. */
const bus = "boatyard-bus.service";

test("units run nothing that the smallest Debian lacks, and a call outside their filter is an error, not a death", async () => {
  for (const name of services) {
    const text = await read(name);
    for (const [, file = ""] of text.matchAll(/^Exec\w+=(\S+)/gm))
      assert.match(
        file,
        name === bus ? /^\/(?:usr\/sbin\/nats-server|bin\/kill)$/ : /^(?:\/usr\/local\/bin\/|\/bin\/sh$)/,
        name,
      );
    assert.match(text, /^SystemCallErrorNumber=EPERM$/m, name);
  }
});

test("services call scripts that there are, with flags that there are", async () => {
  for (const name of services.filter((each) => each !== bus)) {
    for (const [, line = ""] of (await read(name)).matchAll(/^ExecStart=(?:\/usr\/bin\/env )?(.+)$/gm)) {
      const [script = "", ...words] = line.split(" ");
      const own = script.replace("/usr/local/bin/", "");
      const sub = own === "logs" ? words.slice(0, 1) : [];
      const { stdout } = await runScript(own, [...sub, "--help"], { expect: 0 });
      for (const flag of words.filter((word) => word.startsWith("--")))
        assert.match(stdout, new RegExp(`^ .*${flag}\\b`, "m"), `${name}: ${flag}`);
    }
  }
});

test("hook-server reads hooks.yml, and finds only what this machine lacks", async () => {
  const dir = tempDir();
  await writeFile(join(dir, "secret"), "secret\n", { mode: 0o600 });
  const text = (await read("hooks.yml"))
    .replace(/user: site .*/, "")
    .replace("/home/site/site", dir)
    .replace("/etc/boatyard/site.secret", join(dir, "secret"))
    .replace("/var/lib/boatyard", join(dir, "state"));
  await writeFile(join(dir, "hooks.yml"), text);
  const args = ["--check", "--json", "--config", join(dir, "hooks.yml")];
  const { stdout, stderr } = await runScript("hook-server", args);
  assert.is(stderr, "");
  assert.match(stdout, "jostylr/site");
});

test("slave.yml, build.yml and slavelist.txt are read by their scripts", async () => {
  const settings = await readSettings(join(folder, "slave.yml"));
  assert.is(settings.values.each?.["app-other"]?.base, "https://github.com/me/");
  const dir = tempDir();
  await writeFile(join(dir, "build.yml"), await read("build.yml"));
  assert.ok(await readBuildConfig(dir));
  const { targets, duplicates } = parseList(await read("slavelist.txt"), "slavelist.txt");
  assert.ok(targets.length > 3);
  assert.equal(duplicates, []);
  const fresh = emptyList(await read("slavelist.txt"));
  assert.is(parseList(fresh, "slavelist.txt").targets.length, 0, "a fresh server tells nobody");
});

testUnless(test, await lacks("/usr/bin/shellcheck"))("shellcheck finds no fault with what a shell runs", async () => {
  const files = names.filter((name) => name.endsWith(".sh")).map((name) => join(folder, name));
  files.push(
    ...(await readdir(join(root, "hooks")))
      .filter((name) => !name.endsWith(".md"))
      .map((name) => join(root, "hooks", name)),
  );
  await runCommand(["shellcheck", ...files], { expect: 0 });
});

test("the crontab's lines call scripts that there are, with flags that there are", async () => {
  const lines = (await read("crontab")).split("\n").filter((line) => /^(?:# )?[*\d]\S* \S+ \S+ \S+ \S+ /.test(line));
  assert.ok(lines.length >= 4);
  for (const line of lines) {
    const [script = "", sub = "", ...rest] = line.replace(/^# /, "").split(" ").slice(5);
    const under = /^[a-z]+$/.test(sub) ? [sub] : [];
    const { stdout } = await runScript(script, [...under, "--help"], { expect: 0 });
    for (const word of rest.filter((each) => each.startsWith("--"))) assert.match(stdout, `${word}`, line);
  }
});

test.run();
