// The fleet over an encrypted bus: a slave connects out, takes an order, and is known; a certificate of another's is not.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { endAll, setUp } from "../helpers/bus-fleet.ts";
import { needsNats } from "../helpers/nats.ts";
import { runScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { makeCertificate } from "../helpers/tls.ts";

const test = suite("bus");
const testBus = testUnless(test, needsNats);
test.after.each(endAll);

testBus("TLS: the bus must have a certificate of the authority that is named, for its name", async () => {
  const { bus, dir, served, slave, update } = await setUp({ tls: true });
  await slave("web-1");
  await update(["bus://web-1"], ["site", "--wait"], 0);
  assert.is(await served("web-1"), "one");
  const via = join(dir, "other.yml");
  const other = await makeCertificate();
  const key = `seed_file: ${join(bus.dir, "master.seed")}\n`;
  await writeFile(via, `url: ${bus.url}\n${key}ca_file: ${other.ca}\n`);
  const flags = ["--status", "--list", join(dir, "list"), "--via", via];
  const strange = await runScript("server-update", flags, { env: { XDG_STATE_HOME: dir } });
  assert.is(strange.code, 1);
  assert.match(strange.stdout, /FAILED: the bus tls:.* cannot be used: .*certificate/);
  await writeFile(via, `url: nats://bus.example.com:4222\n${key}`);
  const plain = await runScript("server-update", flags, { env: { XDG_STATE_HOME: dir } });
  assert.is(plain.code, 2);
  assert.match(plain.stderr, "is not encrypted; write tls://");
});

test.run();
