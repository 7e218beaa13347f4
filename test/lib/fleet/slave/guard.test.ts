import { appendFile, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Nonces, refusalOfPage } from "../../../../lib/fleet/slave/guard.ts";
import { tempDir } from "../../../helpers/tmp.ts";

test("programs on this machine may ask without a secret, web pages may not", () => {
  const good = [
    { host: "127.0.0.1:9999" },
    { host: "localhost" },
    { host: "[::1]:9999" },
    { host: "10.1.2.3:9999" },
    { host: "web1.example.com" },
    { host: "127.0.0.1:9999", "sec-fetch-site": "none" },
    { host: "127.0.0.1:9999", origin: "http://127.0.0.1:9999", "sec-fetch-site": "same-origin" },
  ];
  for (const headers of good) {
    assert.is(refusalOfPage(headers, ["web1.example.com"]), undefined, JSON.stringify(headers));
  }
  const bad = [
    {},
    { host: "" },
    { host: "evil.example" },
    { host: "127.0.0.1.evil.example" },
    { host: "a b" },
    { host: "127.0.0.1:9999", origin: "https://evil.example" },
    { host: "127.0.0.1:9999", origin: "null" },
    { host: "127.0.0.1:9999", origin: "http://127.0.0.1:3000" },
    { host: "127.0.0.1:9999", referer: "https://evil.example/page" },
    { host: "127.0.0.1:9999", "sec-fetch-site": "cross-site" },
    { host: "127.0.0.1:9999", "sec-fetch-site": "same-site" },
  ];
  for (const headers of bad) assert.ok(refusalOfPage(headers, []), JSON.stringify(headers));
});

test("a nonce is taken once, also after a restart", async () => {
  const file = join(tempDir(), "state", "nonces.txt");
  const time = Math.floor(Date.now() / 1000);
  const [one, two] = ["1".repeat(32), "2".repeat(32)];
  const first = new Nonces(file);
  await first.open();
  assert.ok(await first.take(one, time));
  assert.not.ok(await first.take(one, time));
  const second = new Nonces(file);
  await second.open();
  assert.not.ok(await second.take(one, time));
  assert.ok(await second.take(two, time));
});

test("nonces whose time is past are forgotten, and a torn last line harms nothing", async () => {
  const file = join(tempDir(), "nonces.txt");
  const [old, fresh] = ["3".repeat(32), "4".repeat(32)];
  await appendFile(file, `1000 ${old}\n99999999999 ${fresh}\n9999999`);
  const nonces = new Nonces(file);
  await nonces.open();
  assert.is(await readFile(file, "utf8"), `99999999999 ${fresh}\n`);
  assert.not.ok(await nonces.take(fresh, 0));
});

test.run();
