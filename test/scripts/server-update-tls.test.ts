import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runScript } from "../helpers/run.ts";
import { knowSite } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";
import { makeCertificate } from "../helpers/tls.ts";

/** A slave behind TLS that counts what reaches it. */
async function secureSlave() {
  const certificate = await makeCertificate();
  let requests = 0;
  const server = createServer(
    { cert: await readFile(certificate.cert), key: await readFile(certificate.key) },
    (_, response) => {
      requests += 1;
      response.writeHead(202).end('{"job":"J","repo":"site"}\n');
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  return {
    ca: certificate.ca,
    port: (server.address() as AddressInfo).port,
    requests: () => requests,
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

test("https slaves: the authority of --ca is believed, a stranger's certificate and another name are not", async () => {
  const slave = await secureSlave();
  const dir = tempDir();
  const list = join(dir, "list");
  const update = async (host: string, args: string[], expect: number) => {
    await writeFile(list, `https://${host}:${slave.port}/get/\n`);
    const flags = ["--sha", "a".repeat(40), "--list", list, "--failed", join(dir, "failed"), "--retries", "0"];
    await knowSite(dir);
    // else root's state is the machine's own
    const options = { env: { XDG_STATE_HOME: dir }, expect };
    return (await runScript("server-update", ["site", ...flags, ...args], options)).stdout;
  };
  try {
    await update("127.0.0.1", ["--ca", slave.ca], 0);
    assert.is(slave.requests(), 1);
    assert.match(await update("127.0.0.1", [], 1), /its certificate is not trusted.*see --ca/);
    const other = await update("127.0.0.2", ["--ca", slave.ca], 1);
    assert.match(other, "its certificate is for another name");
    assert.is(slave.requests(), 1, "nothing was sent to either");
    const none = await runScript("server-update", ["site", "--list", list, "--ca", "/nowhere"], {
      expect: 2,
    });
    assert.match(none.stderr, "/nowhere");
  } finally {
    await slave.close();
  }
});

test.run();
