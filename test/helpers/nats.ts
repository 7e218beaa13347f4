// A real nats-server with JetStream, configured by templates/nats.conf.
import type { KeyObject } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { keyOfSeed, newSeed, nkeyOf } from "../../lib/bus/nkey.ts";
import { type BusUser, formatUsers } from "../../lib/bus/users.ts";
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
  /** The seed file of a new key of a slave, which is let in. */
  addSlave: (name: string) => Promise<{ key: KeyObject; file: string }>;
  /** A key that is not let in yet, and what lets it in. */
  newKey: (name: string) => Promise<{ key: KeyObject; file: string }>;
  admit: (name: string, key: KeyObject) => Promise<void>;
  admitAll: (keys: ReadonlyMap<string, KeyObject>) => Promise<void>;
  start: () => Promise<void>;
  kill: () => Promise<void>;
  pid: () => number | undefined;
  /** Its files, and `master.seed`. */
  dir: string;
};

/** Start one; `addSlave` while it runs has it read its users anew. */
export async function startBus(tls?: Certificate): Promise<TestBus> {
  const dir = tempDir("nats-");
  const port = await freePort();
  const users: BusUser[] = [];
  let server: Running | undefined;
  const newKey = async (name: string) => {
    const seed = newSeed();
    const key = keyOfSeed(seed);
    if (!key) throw new Error("a seed that is none");
    const file = join(dir, `${name}.seed`);
    await writeFile(file, `${seed}\n`, { mode: 0o600 });
    return { key, file };
  };
  const master = (await newKey("master")).key;
  users.push({ name: "master", nkey: nkeyOf(master), role: "master" });
  const writeUsers = () => writeFile(join(dir, "nats-users.conf"), formatUsers(users));
  await mkdir(join(dir, "jetstream"));
  const conf = (await readFile(join(root, "templates/nats.conf"), "utf8"))
    .replace("0.0.0.0:4222", `127.0.0.1:${port}`)
    .replace("/var/lib/boatyard-bus", join(dir, "jetstream"))
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
      for (const [name, key] of keys) users.push({ name, nkey: nkeyOf(key), role: "slave" });
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
    pid: () => server?.pid,
    async kill() {
      await server?.stop("SIGKILL");
      server = undefined;
    },
  };
  await bus.start();
  return bus;
}

/** A way to a bus on which messages can be kept back. */
export type BusProxy = {
  port: number;
  /** Keep back what a client sends, by its subject and text, from the first that fits; `sent` resolves when there is one. */
  hold: (fits: (subject: string, text: string) => boolean) => {
    sent: Promise<void>;
    release: () => void;
  };
  close: () => void;
};

/** Start one, before a server without TLS. */
export async function startBusProxy(busUrl: string): Promise<BusProxy> {
  const { hostname, port } = new URL(busUrl);
  let fits: ((subject: string, text: string) => boolean) | undefined;
  let onSent = () => {};
  const held: (() => void)[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => [client, upstream].map((each) => each.destroy()));
    }
    upstream.pipe(client);
    let rest = Buffer.alloc(0);
    client.on("data", (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf("\r\n"); end >= 0; end = rest.indexOf("\r\n")) {
        // the last word of PUB and HPUB is the size of what follows the line
        const [, subject = "", size] = /^H?PUB (\S+) .*?(\d+)$/.exec(rest.toString("latin1", 0, end)) ?? [];
        const length = end + 2 + (size === undefined ? 0 : Number(size) + 2);
        if (rest.length < length) return;
        const message = rest.subarray(0, length);
        rest = rest.subarray(length);
        if (fits?.(subject, message.toString("latin1", end))) {
          held.push(() => upstream.write(message));
          onSent();
        } else upstream.write(message);
      }
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as AddressInfo).port,
    hold(which) {
      fits = which;
      const sent = new Promise<void>((resolve) => {
        onSent = resolve;
      });
      const release = () => {
        fits = undefined;
        for (const send of held.splice(0)) send();
      };
      return { sent, release };
    },
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
