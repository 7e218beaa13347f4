// Many slaves on one bus, three of them real: an order reaches all, also when the bus is killed in the middle, and
// when half of them were off. The others are slaves of the product whose updates take no time.
import type { KeyObject } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { keyOfSeed, newSeed } from "../../lib/bus/nkey.ts";
import { parsePublicKey, writeKey } from "../../lib/fleet/keys.ts";
import { followBus } from "../../lib/fleet/slave/bus-transport.ts";
import { Slave } from "../../lib/fleet/slave/slave.ts";
import { needsNats, startBus } from "../helpers/nats.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const count = Math.max(20, Math.round(1000 * scale));
/** Seconds until all are current; what a machine under load takes more is no fault. */
const limit = 5 * slowness();

const test = suite("bus");
testUnless(test, needsNats)(`an order reaches ${count} slaves`, async () => {
  const dir = tempDir("bus-");
  const bus = await startBus();
  const { publicKey } = await writeKey(join(dir, "order.key"));
  const repo = await makeRepo({ files: { "index.html": "0" } });
  const base = `file://${dirname(repo.bare)}`;
  const names = Array.from({ length: count }, (_, index) => `web-${index}`);
  const keys = new Map(names.map((name) => [name, keyOfSeed(newSeed()) as KeyObject] as const));
  const made = await Promise.all(names.slice(0, 3).map((name) => bus.newKey(name)));
  for (const [index, { key }] of made.entries()) keys.set(names[index] ?? "", key);
  await bus.admitAll(keys);
  const real = await Promise.all(
    names.slice(0, 3).map(async (name) => {
      const [config, file] = [join(dir, `${name}.yml`), join(bus.dir, `${name}.seed`)];
      const part = `bus: { url: "${bus.url}", seed_file: ${file} }`;
      await writeFile(config, `name: ${name}\nmaster_key: ${publicKey}\nbase: ${base}\n${part}\n`);
      const server = startScript("slave-server", [...["--config", config, "--repos", join(dir, name)]]);
      await server.until(/connected to the bus/);
      return server;
    }),
  );
  const start = (name: string) => follow(name);
  let others = await Promise.all(names.slice(3).map(start));
  await writeFile(join(dir, "list"), names.map((name) => `bus://${name}\n`).join(""));
  await writeFile(join(dir, "bus.yml"), `url: ${bus.url}\nseed_file: ${join(bus.dir, "master.seed")}\n`);

  // a new bus has no buckets, and nobody has reported there, before a master came
  await waitFor(async () => /\b0 are not/.test((await update("--status")).stdout));
  const first = await update("--timeout", "60s");
  assert.is(first.code, 0, first.stdout.slice(-500));
  tell("all current", first.seconds);
  assert.ok(first.seconds <= limit, `${first.seconds} s`);

  await repo.push({ "index.html": "1" });
  const running = update("--timeout", "60s");
  await bus.kill();
  // so long it is away
  await new Promise((resolve) => setTimeout(resolve, 3000));
  await bus.start();
  const back = performance.now();
  const second = await running;
  assert.is(second.code, 0, second.stdout.slice(-500));
  tell("the bus killed for 3 s: all current after its return", (performance.now() - back) / 1000);

  const half = others.splice(0, Math.floor(others.length / 2));
  await Promise.all(half.map(({ close }) => close()));
  const newest = await repo.push({ "index.html": "2" });
  await update("--timeout", "1s");
  const returned = performance.now();
  others = [...others, ...(await Promise.all(half.map(({ name }) => start(name))))];
  const ready = performance.now();
  await Promise.all(others.map(({ serves }) => serves(newest)));
  tell("half of them were off: connected again after", (ready - returned) / 1000);
  tell("and current after", (performance.now() - ready) / 1000);
  assert.ok(performance.now() - ready <= 2000 * slowness());
  for (const name of names.slice(0, 3)) assert.is(await readFile(join(dir, name, "site/index.html"), "utf8"), "2");

  await Promise.all(others.map(({ close }) => close()));
  for (const server of real) assert.is((await server.stop()).code, 0);
  await bus.kill();

  /** A slave in this process. */
  async function follow(name: string) {
    const key = keys.get(name);
    if (!key) throw new Error("a slave without a key");
    let sha = "";
    let [connected, changed] = [() => {}, () => {}];
    const slave = new Slave({
      settings: { file: undefined, values: {}, where: () => "" },
      ...{ repos: join(dir, "none"), state: join(dir, `${name}.state`), allow: [], names: [name] },
      ...{ jobs: 1, identity: undefined },
      keys: [parsePublicKey(publicKey)],
      async run(order) {
        const before = sha;
        sha = order.sha ?? "";
        changed();
        return { before, sha };
      },
      note: (line) => {
        if (line.startsWith("connected to the bus")) connected();
      },
    });
    await slave.open();
    const up = new Promise<void>((resolve) => (connected = resolve));
    const { close } = followBus(slave, {
      ...{ servers: [bus.url], ca: undefined, key, name },
    });
    await up;
    return {
      name,
      async close() {
        slave.close();
        await close();
      },
      async serves(wanted: string) {
        while (sha !== wanted) await new Promise<void>((resolve) => (changed = resolve));
      },
    };
  }

  async function update(...more: string[]) {
    const flags = ["--list", join(dir, "list"), "--via", join(dir, "bus.yml"), "--base", base];
    const what = more.includes("--status") ? [] : ["site", "--wait"];
    const all = [...what, "--key-file", join(dir, "order.key"), ...flags, ...more];
    const begin = performance.now();
    const env = { XDG_STATE_HOME: dir };
    const done = await runScript("server-update", all, { env, timeout: 300_000 });
    return { ...done, seconds: (performance.now() - begin) / 1000 };
  }
});

function tell(what: string, seconds: number): void {
  console.log(`${what}: ${seconds.toFixed(2)} s`);
}

test.run();
