// The bus as a cluster of three real servers: what is written is on all of them, and one may be killed; SOAK_SCALE=1: each in turn.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { connectBus } from "../../lib/bus/bus.ts";
import { keyOfSeed, newSeed, nkeyOf } from "../../lib/bus/nkey.ts";
import { needsNats } from "../helpers/nats.ts";
import { freePort } from "../helpers/ports.ts";
import { type Running, startCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const names = ["one", "two", "three"];
const killed = Math.max(1, Math.round(names.length * Number(process.env["SOAK_SCALE"] ?? 1)));

testUnless(test, needsNats)(
  "a cluster of three keeps each value three times, and takes and gives them while one of it is killed",
  async () => {
    const dir = tempDir();
    const seed = newSeed();
    const key = keyOfSeed(seed);
    assert.ok(key);
    const ports: number[] = [];
    const routes: number[] = [];
    for (const _ of names) {
      ports.push(await freePort());
      routes.push(await freePort());
    }
    const servers = new Map<string, Running>();
    const start = async (name: string) => {
      const at = names.indexOf(name);
      const file = join(dir, `${name}.conf`);
      await writeFile(
        file,
        `listen: "127.0.0.1:${ports[at]}"
server_name: ${name}
jetstream { store_dir: "${dir}/${name}", max_file_store: 16G }
authorization { users: [{ nkey: ${nkeyOf(key)} }] }
cluster {
  name: boatyard
  listen: "127.0.0.1:${routes[at]}"
  routes: [${routes.map((port) => `"nats://127.0.0.1:${port}"`).join(", ")}]
}
`,
      );
      servers.set(name, startCommand(["nats-server", "-c", file]));
    };
    for (const name of names) await start(name);
    for (const server of servers.values()) await server.until(/Server is ready/);
    const urls = ports.map((port) => `nats://127.0.0.1:${port}`);
    const bus = await connectBus({ servers: urls, key, name: "builder-one", timeout: 2000 });
    const tried = async <T>(work: () => Promise<T>) =>
      await waitFor(async () => ({ value: await work().catch(() => undefined) }).value, {
        what: "the cluster to answer",
      });
    // it has a leader after a moment
    await tried(async () => (await bus.makeBucket("builds"), true));
    const objects = await tried(() => bus.objects("payloads"));
    const authenticator = nkeyAuthenticator(new TextEncoder().encode(seed));
    const raw = await connect({ servers: `127.0.0.1:${ports[0]}`, authenticator });
    const manager = await jetstreamManager(raw);
    for (const stream of ["KV_builds", "OBJ_payloads"])
      assert.is((await manager.streams.info(stream)).config.num_replicas, 3, stream);
    await raw.close();

    const bucket = bus.bucket("builds");
    await tried(() => objects.put("log", Buffer.from("text")).then(() => true));
    let revision = await tried(() => bucket.put("claim", "0", 0));
    for (const [round, name] of names.slice(0, killed).entries()) {
      await servers.get(name)?.stop("SIGKILL");
      // whoever asks again after no answer sees what came through
      await tried(async () => {
        const there = await bucket.get("claim");
        if (there?.text !== `${round + 1}`)
          await bucket.put("claim", `${round + 1}`, there?.revision ?? 0);
        return (await bucket.get("claim"))?.text === `${round + 1}`;
      });
      const now = await tried(() => bucket.get("claim"));
      assert.ok(now.revision > revision, "revisions grow");
      assert.is(await bucket.put("claim", "stale", revision), undefined);
      revision = now.revision;
      assert.is(String(await tried(() => objects.get("log"))), "text");
      await start(name);
      await servers.get(name)?.until(/Server is ready/);
    }
    await bus.close();
    for (const server of servers.values()) await server.stop("SIGKILL");
  },
);

test.run();
