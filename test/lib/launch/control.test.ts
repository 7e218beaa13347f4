import { once } from "node:events";
import { createConnection } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { askControl, serveControl } from "../../../lib/launch/control.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("who hangs up with lines unread ends nothing but the own question", async () => {
  const path = join(tempDir(), "socket");
  const sent = new AbortController();
  const gone = new AbortController();
  const server = await serveControl(path, async ({ command }, send, closed) => {
    if (command !== "log") return {};
    send({ line: "not read" });
    sent.abort();
    await once(closed, "abort");
    gone.abort();
    return {};
  });
  const reader = createConnection(path);
  // what it does not read makes the end of the connection a reset
  reader.pause();
  reader.write('{"command":"log"}\n');
  await once(sent.signal, "abort");
  reader.destroy();
  await once(gone.signal, "abort");
  assert.is((await askControl(path, { command: "status" }))?.ok, true);
  await server.close();
});

test("who does not read what was sent does not hold the end up", async () => {
  const path = join(tempDir(), "socket");
  const sent = new AbortController();
  const server = await serveControl(path, async (_, send, closed) => {
    // more than the kernel keeps for a reader
    send({ line: "x".repeat(4 * 1024 * 1024) });
    sent.abort();
    await once(closed, "abort");
    return {};
  });
  const reader = createConnection(path);
  reader.pause();
  reader.write('{"command":"log"}\n');
  await once(sent.signal, "abort");
  await server.close();
  assert.is(await askControl(path, { command: "status" }), undefined);
  reader.destroy();
});

test("a request without an end is not kept in memory: its connection is closed", async () => {
  const path = join(tempDir(), "socket");
  const server = await serveControl(path, async () => ({}));
  const sender = createConnection(path);
  // the end may come as a reset, since it goes on sending
  sender.on("error", () => {});
  const more = setInterval(() => sender.write("x".repeat(16 * 1024)), 1);
  await new Promise((closed) => sender.once("close", closed));
  clearInterval(more);
  assert.ok(sender.bytesWritten < 16 * 1024 * 1024);
  assert.is((await askControl(path, { command: "status" }))?.ok, true);
  await server.close();
});

test.run();
