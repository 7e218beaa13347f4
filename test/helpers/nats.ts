// A real nats-server with JetStream, configured by templates/nats.conf and templates/nats-users.conf.
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { nameOnBus } from "../../lib/bus/address.ts";
import { nkeyOf } from "../../lib/bus/nkey.ts";
import { freePort } from "./ports.ts";
import { type Running, startCommand } from "./run.ts";
import { root } from "./runtime.ts";
import { needsCommand } from "./skip.ts";
import { tempDir } from "./tmp.ts";
import { type Certificate } from "./tls.ts";

export const needsNats = needsCommand("nats-server");

export type TestBus = {
  url: string;
  /** Who knows this key is the master. */
  master: KeyObject;
  /** The PEM file of a new key of a slave, which is let in. */
  addSlave: (name: string) => Promise<{ key: KeyObject; file: string }>;
  /** A key that is not let in yet, and what lets it in. */
  newKey: (name: string) => Promise<{ key: KeyObject; file: string }>;
  admit: (name: string, key: KeyObject) => Promise<void>;
  admitAll: (keys: ReadonlyMap<string, KeyObject>) => Promise<void>;
  start: () => Promise<void>;
  kill: () => Promise<void>;
  /** Its files, and `master.key`. */
  dir: string;
};

/** Start one; `addSlave` while it runs has it read its users anew. */
export async function startBus(tls?: Certificate): Promise<TestBus> {
  const dir = tempDir("nats-");
  const port = await freePort();
  const users = await readFile(join(root, "templates/nats-users.conf"), "utf8");
  const slaves: [name: string, nkey: string][] = [];
  let server: Running | undefined;
  const newKey = async (name: string) => {
    const key = generateKeyPairSync("ed25519").privateKey;
    const file = join(dir, `${name}.key`);
    await writeFile(file, key.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 });
    return { key, file };
  };
  const master = (await newKey("master")).key;
  const template = /^ *\{ nkey: USLAVE[\s\S]*?^ {2}\} \}\n/m;
  const writeUsers = async () => {
    const slave = template.exec(users)?.[0] ?? "";
    const blocks = slaves.map(([name, nkey]) =>
      slave.replace("USLAVE", nkey).replaceAll("NAME", () => nameOnBus(name)),
    );
    const text = users.replace("UMASTER", nkeyOf(master)).replace(template, () => blocks.join(""));
    await writeFile(join(dir, "nats-users.conf"), text);
  };
  await mkdir(join(dir, "jetstream"));
  const conf = (await readFile(join(root, "templates/nats.conf"), "utf8"))
    .replace("0.0.0.0:4222", `127.0.0.1:${port}`)
    .replace("/var/lib/nats", join(dir, "jetstream"))
    .replace("/etc/boatyard/bus.crt", tls?.cert ?? "")
    .replace("/etc/boatyard/bus.key", tls?.key ?? "");
  await writeFile(join(dir, "nats.conf"), tls ? conf : conf.replace(/^tls \{[\s\S]*?^\}$/m, ""));
  await writeUsers();
  const bus: TestBus = {
    url: tls ? `tls://localhost:${port}` : `nats://127.0.0.1:${port}`,
    ...{ master, dir },
    newKey,
    admit: (name, key) => bus.admitAll(new Map([[name, key]])),
    async admitAll(keys) {
      for (const [name, key] of keys) slaves.push([name, nkeyOf(key)]);
      await writeUsers();
      if (!server) return;
      const count = (text: string) => text.split("Reloaded server configuration").length;
      const before = count(server.output());
      server.kill("SIGHUP");
      await server.until((text) => count(text) > before);
    },
    async addSlave(name) {
      const made = await newKey(name);
      await bus.admit(name, made.key);
      return made;
    },
    async start() {
      server = startCommand(["nats-server", "-c", join(dir, "nats.conf")]);
      await server.until(/Server is ready/);
    },
    async kill() {
      await server?.stop("SIGKILL");
      server = undefined;
    },
  };
  await bus.start();
  return bus;
}
