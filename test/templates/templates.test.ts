// Everything in templates/ is read by what it is for.
import { access, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readBuildConfig } from "../../lib/build/config.ts";
import { parseList } from "../../lib/fleet/list.ts";
import { readSettings } from "../../lib/fleet/settings.ts";
import { emptyList } from "../../lib/setup/plan-server.ts";
import { templates } from "../../lib/setup/templates.ts";
import { freePort } from "../helpers/ports.ts";
import { runCommand, runScript, startCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const folder = join(root, "templates");
const names = (await readdir(folder)).sort();
const read = (name: string) => readFile(join(folder, name), "utf8");
const lacks = (file: string) =>
  access(file).then(
    () => undefined,
    () => `needs ${file}`,
  );

test("setup carries the templates as they are in templates/", async () => {
  for (const [name, text] of Object.entries(templates))
    assert.fixture(text, await read(name), `${name}: run npm run templates`);
});

test("every template says in its first line what it is", async () => {
  for (const name of names) {
    const text = await read(name);
    assert.match(text, /^(?:#|\/\/|#!\/bin\/sh[^\n]*\n#) ?\S.{15,}/, name);
  }
});

const units = names.filter((name) => /\.(?:service|socket|timer)$/.test(name));
const services = units.filter((name) => name.endsWith(".service"));
const noAnalyze = await lacks("/usr/bin/systemd-analyze");

/** The units as an instance `x` would have them, with programs that exist here. */
async function unitFolder(): Promise<string> {
  const dir = tempDir("units-");
  for (const name of units) {
    const text = (await read(name)).replaceAll(
      /^(ExecStart=)\/usr\/local\/bin\/\S+/gm,
      "$1/bin/true",
    );
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

test("services call scripts that there are, with flags that there are", async () => {
  for (const name of services) {
    for (const [, line = ""] of (await read(name)).matchAll(
      /^ExecStart=(?:\/usr\/bin\/env )?(.+)$/gm,
    )) {
      const [script = "", ...words] = line.split(" ");
      const own = script.replace("/usr/local/bin/", "");
      const sub = own === "logs" ? words.slice(0, 1) : [];
      const { stdout } = await runScript(own, [...sub, "--help"], { expect: 0 });
      for (const flag of words.filter((word) => word.startsWith("--")))
        assert.match(stdout, new RegExp(`^ .*${flag}\\b`, "m"), `${name}: ${flag}`);
    }
  }
});

const nginx = "/usr/sbin/nginx";
testUnless(test, await lacks(nginx))(
  "nginx takes the snippets, and hands a webhook over as it came",
  async () => {
    const dir = tempDir("nginx-");
    const { createServer } = await import("node:http");
    const got: { url?: string; body: string; host?: string }[] = [];
    const behind = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8").on("data", (text: string) => (body += text));
      request.on("end", () => {
        got.push({ url: request.url ?? "", body, host: request.headers.host ?? "" });
        response.writeHead(202).end('{"run":"1"}\n');
      });
    });
    const [hooks, slave, front, tls] = await Promise.all([
      freePort(),
      freePort(),
      freePort(),
      freePort(),
    ]);
    await new Promise<void>((resolve) => behind.listen(hooks, "127.0.0.1", resolve));
    const certificate = [
      "openssl",
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-keyout",
      join(dir, "key.pem"),
      "-out",
      join(dir, "cert.pem"),
      "-days",
      "2",
      "-subj",
      "/CN=localhost",
    ];
    await runCommand(certificate, { expect: 0 });
    await mkdir(join(dir, "www/app-updates"), { recursive: true });
    await writeFile(join(dir, "www/app-updates/VERSION"), "CURRENT 1 a-1.tar.gz\n");
    const mended = async (name: string) =>
      (await read(name))
        .replaceAll("127.0.0.1:3420", `127.0.0.1:${hooks}`)
        .replaceAll("127.0.0.1:9998", `127.0.0.1:${hooks}`)
        .replace(/listen 9999 ssl/, `listen 127.0.0.1:${tls} ssl`)
        .replaceAll(/\/etc\/letsencrypt\/\S+\/fullchain\.pem/g, join(dir, "cert.pem"))
        .replaceAll(/\/etc\/letsencrypt\/\S+\/privkey\.pem/g, join(dir, "key.pem"))
        .replaceAll("/srv/www", join(dir, "www"));
    for (const name of ["nginx-hooks.conf", "nginx-slave.conf", "nginx-releases.conf"])
      await writeFile(join(dir, name), await mended(name));
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${join(dir, name)};`)
      .join(" ");
    await writeFile(
      join(dir, "nginx.conf"),
      `daemon off; pid ${join(dir, "pid")}; error_log ${join(dir, "error.log")}; events {}
http { access_log off; ${temporary}
  include ${join(dir, "nginx-slave.conf")};
  server { listen 127.0.0.1:${front}; include ${join(dir, "nginx-hooks.conf")}; include ${join(dir, "nginx-releases.conf")}; } }\n`,
    );
    void slave;
    const argv = [nginx, "-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf")];
    await runCommand([...argv, "-t"], { expect: 0 });
    const server = startCommand(argv);
    try {
      const url = `http://127.0.0.1:${front}`;
      await waitFor(() => fetch(`${url}/none`).then((answer) => answer.status === 404), {
        what: "nginx",
      });
      const body = `{"é":"${"x".repeat(100_000)}"}`;
      for (const path of ["/hook", "/github/callback"]) {
        const answer = await fetch(url + path, { method: "POST", body });
        assert.is(answer.status, 202);
        assert.is(got.at(-1)?.url, path);
        assert.is(got.at(-1)?.body, body, "byte for byte");
      }
      assert.is((await fetch(`${url}/hookah`)).status, 404);
      const large = Buffer.alloc(26 * 1024 * 1024);
      assert.is((await fetch(`${url}/hook`, { method: "POST", body: large })).status, 413);
      const version = await fetch(`${url}/app-updates/VERSION`);
      assert.is(version.headers.get("cache-control"), "no-cache");
      assert.is(await version.text(), "CURRENT 1 a-1.tar.gz\n");
      const secure = ["curl", "-sk", `https://127.0.0.1:${tls}/get/?repo=a&sha=1`];
      assert.match((await runCommand(secure, { expect: 0 })).stdout, "run");
      assert.is(got.at(-1)?.url, "/get/?repo=a&sha=1", "what is signed is passed on as it came");
    } finally {
      await server.stop("SIGQUIT");
      behind.close();
      behind.closeAllConnections();
    }
  },
);

testUnless(test, await lacks("/usr/bin/caddy"))("Caddy takes the Caddyfile", async () => {
  const file = join(folder, "Caddyfile");
  await runCommand(["caddy", "validate", "--adapter", "caddyfile", "--config", file], {
    expect: 0,
  });
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
  assert.is(settings.values.base, "https://github.com/aiegoo/");
  const dir = tempDir();
  await writeFile(join(dir, "build.yml"), await read("build.yml"));
  assert.ok(await readBuildConfig(dir));
  const { targets, duplicates } = parseList(await read("slavelist.txt"), "slavelist.txt");
  assert.ok(targets.length > 3);
  assert.equal(duplicates, []);
  const fresh = emptyList(await read("slavelist.txt"));
  assert.is(parseList(fresh, "slavelist.txt").targets.length, 0, "a fresh server tells nobody");
});

testUnless(test, await lacks("/usr/bin/shellcheck"))(
  "shellcheck finds no fault with what a shell runs",
  async () => {
    const files = names.filter((name) => name.endsWith(".sh")).map((name) => join(folder, name));
    files.push(
      ...(await readdir(join(root, "hooks")))
        .filter((name) => !name.endsWith(".md"))
        .map((name) => join(root, "hooks", name)),
    );
    await runCommand(["shellcheck", ...files], { expect: 0 });
  },
);

test("the crontab's lines call scripts that there are, with flags that there are", async () => {
  const lines = (await read("crontab"))
    .split("\n")
    .filter((line) => /^(?:# )?[*\d]\S* \S+ \S+ \S+ \S+ /.test(line));
  assert.ok(lines.length >= 4);
  for (const line of lines) {
    const [script = "", sub = "", ...rest] = line.replace(/^# /, "").split(" ").slice(5);
    const under = /^[a-z]+$/.test(sub) ? [sub] : [];
    const { stdout } = await runScript(script, [...under, "--help"], { expect: 0 });
    for (const word of rest.filter((each) => each.startsWith("--")))
      assert.match(stdout, `${word}`, line);
  }
});

test.run();
