// The bus as a cluster of three real servers: what is written is on all of them, and one may be killed; SOAK_SCALE=1: each in turn.
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator } from "@nats-io/transport-node";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { connectBus } from "../../lib/bus/bus.ts";
import { keyOfSeed, newSeed, nkeyOf } from "../../lib/bus/nkey.ts";
import { makeBuilders, watchedJob } from "../helpers/builders.ts";
import { sha } from "../helpers/hooks.ts";
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
        if (there?.text !== `${round + 1}`) await bucket.put("claim", `${round + 1}`, there?.revision ?? 0);
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

testUnless(test, needsNats)(
  "builders on a cluster of three go on while the server that leads is killed: what runs ends once, what waits is run",
  async () => {
    const repos = ["me/a", "me/b"];
    const builders = await makeBuilders(["first", "second"], {
      job: watchedJob,
      cluster: names,
      // longer than the cluster takes to choose another leader
      lease: "40s",
      repos: Object.fromEntries(repos.map((repo) => [repo, ""])),
    });
    const { dir, bus, events, start, url } = builders;
    try {
      const [first, second] = [await start("first"), await start("second")];
      const key = (await readFile(join(dir, "first/bus.seed"), "utf8")).trim();
      const authenticator = nkeyAuthenticator(new TextEncoder().encode(key));
      // else a lease is waited for, in which the claims would be written that a new bus does not have
      const access = { servers: [url], key: keyOfSeed(key), name: "test", timeout: 5000 };
      const other = await connectBus(access as Parameters<typeof connectBus>[0]);
      await waitFor(() =>
        other
          .bucket("builds")
          .put("bucket", "old")
          .catch(() => undefined),
      );
      await other.close();
      const leader = async () => {
        const raw = await connect({ servers: url.replace("nats://", ""), authenticator });
        const { cluster, config } = await (await jetstreamManager(raw)).streams.info("KV_builds");
        await raw.close();
        assert.is(config.num_replicas, 3);
        return cluster?.leader;
      };
      const seen = async (line: string) =>
        await waitFor(async () => (await events()).some((each) => each.startsWith(line)), {
          timeout: 90_000,
          what: line,
        });
      for (let round = 0; round < killed; round++) {
        for (const repo of repos) await writeFile(join(dir, `hold-${repo.replace("/", "_")}`), "");
        const [runs, waits] = [sha(2 * round + 1), sha(2 * round + 2)];
        const push = async (server: typeof first, repo: string, commit: string) =>
          await waitFor(async () => (await server.push(repo, commit)).status === 202, {
            timeout: 60_000,
            what: `${repo} to be accepted`,
          });
        for (const repo of repos) await push(first, repo, runs);
        for (const repo of repos) await seen(`begin ${repo} ${runs}`);
        const name = await leader();
        assert.ok(name !== undefined && names.includes(name), `the leader is ${name}`);
        await bus.kill(name);
        for (const repo of repos) await push(second, repo, waits);
        for (const repo of repos) await rm(join(dir, `hold-${repo.replace("/", "_")}`));
        for (const repo of repos) await seen(`end ${repo} ${waits}`);
        await bus.start(name);
      }
      await second.idle(60_000);
      const all = await events();
      assert.equal(
        all.filter((line) => line.startsWith("overlap")),
        [],
      );
      const ends = all.filter((line) => line.startsWith("end ")).map((line) => line.split(" ")[2]);
      assert.is(ends.length, 2 * repos.length * killed, "each was run once");
    } finally {
      await builders.end();
    }
  },
);

test.run();
