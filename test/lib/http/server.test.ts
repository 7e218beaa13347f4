import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { clientAddress, createHttpServer, isLocal, listenOn } from "../../../lib/http/server.ts";
import { http } from "../../helpers/hooks.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("only a proxy on this machine is believed whom it forwards for, and only its own word", () => {
  const address = (peer: string | undefined, forwarded?: string) =>
    clientAddress({
      socket: { remoteAddress: peer },
      headers: forwarded === undefined ? {} : { "x-forwarded-for": forwarded },
    } as unknown as IncomingMessage);
  assert.is(address("127.0.0.1"), "127.0.0.1");
  assert.is(address("127.0.0.1", "6.6.6.6, 10.0.0.9"), "10.0.0.9");
  assert.is(address("::ffff:127.0.0.1", "2001:db8::1"), "2001:db8::1");
  assert.is(address("::1", "not an address"), "::1");
  assert.is(address("10.0.0.1", "10.0.0.9"), "10.0.0.1");
  // a connection that is gone
  assert.is(address(undefined, "10.0.0.9"), "");
});

test("over a Unix socket a proxy is believed, and without one there is no address", async () => {
  const server = createHttpServer(
    (request, response) => void response.end(`${isLocal(request)} ${clientAddress(request)}`),
    () => {},
  );
  const socketPath = join(tempDir(), "socket");
  await listenOn(server, { path: socketPath });
  const ask = async (headers: Record<string, string>) => (await http({ socketPath }, "/", { headers })).text;
  assert.is(await ask({ "x-forwarded-for": "10.0.0.9" }), "true 10.0.0.9");
  assert.is(await ask({}), "true a socket");
  server.close();
});

test.run();
