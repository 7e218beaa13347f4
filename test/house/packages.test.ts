// What npm run package makes: small, complete, and installed it works. On a machine of its own: soak/package.
import { existsSync } from "node:fs";
import { lstat, mkdir, readdir, readFile, readlink, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../lib/core/version.ts";
import { prepare } from "../helpers/prepare.ts";
import { runCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const lacks = (program: string, name: string) =>
  !(process.env["PATH"] ?? "").split(":").some((each) => existsSync(join(each, program))) &&
  `needs ${program} (apt install ${name})`;
const noDpkg = lacks("dpkg-deb", "dpkg-dev");

const folder = tempDir("packages-");
const made = {
  npm: join(folder, `boatyard-${version}.tgz`),
  deb: join(folder, `boatyard_${version}_all.deb`),
};
prepare(test, async () => {
  const argv = ["node", "--import", "tsx", "tools/ship/package.ts", folder];
  const env = { npm_config_cache: join(folder, "cache") };
  await runCommand(argv, { cwd: root, env, expect: 0, timeout: 120_000 });
});

test("npm installs one package without dependencies, of at most 6 MB, with every command and page", async () => {
  const prefix = join(folder, "prefix");
  const npm = ["npm", "install", "--global", "--offline", "--no-audit", "--prefix", prefix];
  const env = { npm_config_cache: join(folder, "cache") };
  const { stdout } = await runCommand([...npm, made.npm], { env, expect: 0, timeout: 60_000 });
  assert.match(stdout, /added 1 package/);
  const module = join(prefix, "lib/node_modules/boatyard");
  const { stdout: size } = await runCommand(["du", "-sk", "--apparent-size", module], {
    expect: 0,
  });
  assert.ok(Number.parseInt(size, 10) <= 6 * 1024, size);
  assert.not.ok(existsSync(join(module, "node_modules")));
  const { bin } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  assert.equal((await readdir(join(prefix, "bin"))).sort(), Object.keys(bin).sort());
  for (const name of ["build", "boatyard"]) {
    const shown = await runCommand([join(prefix, "bin", name), "-V"], { expect: 0 });
    assert.match(shown.stdout, `${name} ${version}`);
  }
  assert.ok(existsSync(join(prefix, "share/man/man1/boatyard-build.1")));
  // services start what is there; nothing is copied, since a script has its modules beside it
  const server = join(folder, "root");
  await mkdir(server);
  const argv = [join(prefix, "bin/setup"), "server", "--yes", "--root", server];
  await runCommand(argv, { expect: 0 });
  assert.not.ok(existsSync(join(server, "usr/local/lib/boatyard")));
  const unit = await readFile(join(server, "etc/systemd/system/hook-server.service"), "utf8");
  assert.match(unit, `ExecStart=${module}/dist/hook-server.mjs `);
  const helped = await runCommand([join(prefix, "bin/boatyard"), "help", "logs"], { expect: 0 });
  assert.match(helped.stdout, /^logs: /);
});

test("every package that a packaged script loads when it needs it has the names that are taken from it", async () => {
  const lib = join(folder, "prefix/lib/node_modules/boatyard/dist/lib");
  const taken: string[] = [];
  for (const file of (await readdir(lib)).filter((name) => name.endsWith(".mjs"))) {
    const text = await readFile(join(lib, file), "utf8");
    for (const [, names = "", from = ""] of text.matchAll(/const \{([\w\s,:]+)\} = await import\("(\.[^"]+)"\)/g)) {
      const module = (await import(join(lib, from))) as Record<string, unknown>;
      for (const name of names.split(",").map((each) => each.split(":")[0]?.trim() ?? "")) {
        assert.is.not(module[name], undefined, `${file} takes ${name} of ${from}`);
        taken.push(name);
      }
    }
  }
  for (const name of ["connect", "jetstream", "Kvm", "createTransport", "parseDocument", "default"])
    assert.ok(taken.includes(name), `${name} is loaded nowhere`);
});

test("npm leaves the names off PATH when it is told so, and setup's units start the files", async () => {
  const prefix = join(folder, "no-links");
  const npm = ["npm", "install", "--global", "--no-bin-links", "--offline", "--no-audit"];
  const env = { npm_config_cache: join(folder, "cache") };
  await runCommand([...npm, "--prefix", prefix, made.npm], { env, expect: 0, timeout: 60_000 });
  assert.not(existsSync(join(prefix, "bin")));
  const dist = join(prefix, "lib/node_modules/boatyard/dist");
  const server = join(folder, "no-links-root");
  await mkdir(server);
  const argv = ["node", join(dist, "boatyard.mjs"), "setup", "server", "--yes", "--root", server];
  await runCommand(argv, { expect: 0 });
  const unit = await readFile(join(server, "etc/systemd/system/hook-server.service"), "utf8");
  assert.match(unit, `${dist}/hook-server.mjs `);
});

testUnless(test, noDpkg)(
  "Debian's general names stay off PATH by the lines of docs/install.md, and boatyard still has them",
  async () => {
    const page = await readFile(join(root, "docs/install.md"), "utf8");
    const lines = [...page.matchAll(/^path-exclude=\S+$/gm)].map(([line]) => `--${line}`);
    assert.ok(lines.length > 0);
    const place = join(folder, "excluded");
    await mkdir(join(place, "var/lib/dpkg/info"), { recursive: true });
    await mkdir(join(place, "var/lib/dpkg/updates"));
    await writeFile(join(place, "var/lib/dpkg/status"), "");
    const dpkg = ["dpkg", `--root=${place}`, "--force-not-root", "--force-depends", "--no-triggers"];
    // where dpkg finds its programs, which are not on an ordinary user's PATH
    const env = { PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` };
    await runCommand([...dpkg, ...lines, "--unpack", made.deb], { env, expect: 0 });
    const names = await readdir(join(place, "usr/bin"));
    for (const line of lines) assert.not(names.includes(line.split("/").at(-1) ?? ""));
    assert.ok(names.includes("boatyard") && names.includes("hook-server"));
    const argv = [join(place, "usr/bin/boatyard"), "build", "-V"];
    assert.match((await runCommand(argv, { expect: 0 })).stdout, `build ${version}`);
    // what the units start is there all the same
    const units = join(place, "usr/lib/systemd/system");
    for (const name of await readdir(units)) {
      const text = await readFile(join(units, name), "utf8");
      for (const [, program = ""] of text.matchAll(/^Exec\w+=[-+!]*(\S*boatyard\S*|\/usr\/bin\/\S+)/gm))
        assert.ok(await lstat(join(place, program)), `${name}: ${program}`);
    }
  },
);

testUnless(test, noDpkg)(
  "the Debian package has every script, page, completion and unit, and no file of the admin's",
  async () => {
    const root = join(folder, "debian");
    await runCommand(["dpkg-deb", "--extract", made.deb, root], { expect: 0 });
    await runCommand(["dpkg-deb", "--control", made.deb, join(root, "DEBIAN")], { expect: 0 });
    const names = (await readdir(join(root, "usr/lib/boatyard"))).filter((name) => name.endsWith(".mjs"));
    assert.equal((await readdir(join(root, "usr/bin"))).sort(), names.map((name) => name.slice(0, -4)).sort());
    assert.is(await readlink(join(root, "usr/bin/logs")), "../lib/boatyard/logs.mjs");
    assert.is((await stat(join(root, "usr/lib/boatyard/logs.mjs"))).mode & 0o777, 0o755);
    assert.not.ok(existsSync(join(root, "etc")));
    assert.not.ok(existsSync(join(root, "DEBIAN/conffiles")));
    for (const path of [
      "usr/share/man/man1/boatyard-build.1.gz",
      "usr/share/man/man5/hooks.yml.5.gz",
      "usr/share/bash-completion/completions/setup",
      "usr/share/zsh/vendor-completions/_boatyard-setup",
      "usr/share/fish/vendor_completions.d/setup.fish",
      "usr/lib/sysusers.d/boatyard.conf",
      "usr/share/doc/boatyard/schemas/hooks.json",
      "usr/share/doc/boatyard/templates/hooks.yml",
    ])
      assert.ok(existsSync(join(root, path)), path);
    const unit = await readFile(join(root, "usr/lib/systemd/system/hook-server.service"), "utf8");
    assert.match(unit, "ExecStart=/usr/bin/hook-server ");
    // what is extracted works where it lies; setup leaves scripts and units to the package
    const server = join(folder, "installed");
    await mkdir(server);
    const argv = ["node", join(root, "usr/lib/boatyard/setup.mjs")];
    const { stdout } = await runCommand([...argv, "server", "--dry-run", "--root", server], {
      expect: 0,
    });
    assert.match(stdout, "/etc/boatyard/hooks.yml");
    assert.not.match(stdout, "/usr/local/");
    const key = ["--server", "file:///srv/web", "--key", "0".repeat(40)];
    const app = [...argv, "app", "my-app", ...key, "--dry-run", "--root", server];
    assert.match((await runCommand(app, { expect: 0 })).stdout, "/usr/lib/boatyard/launchfit.mjs file:");
  },
);

test.run();
