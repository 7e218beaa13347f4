import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { clientAddress, createHttpServer, listenOn, networkOf, peerOf } from "../../../lib/http/server.ts";
import { http } from "../../helpers/hooks.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("an IPv4 address is a network of its own, of an IPv6 address the /64 counts", () => {
  for (const [address, network] of [
    ["10.0.0.1", "10.0.0.1"],
    ["::ffff:10.0.0.1", "10.0.0.1"],
    ["::1", "0:0:0:0::/64"],
    ["2001:db8::1", "2001:db8:0:0::/64"],
    ["2001:0DB8:0:0:ffff::2", "2001:db8:0:0::/64"],
    ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["", ""],
  ] as const)
    assert.is(networkOf(address), network, address);
});

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
    (request, response) => void response.end(`${peerOf(request)} ${clientAddress(request)}`),
    () => {},
  );
  const socketPath = join(tempDir(), "socket");
  await listenOn(server, { path: socketPath });
  const ask = async (headers: Record<string, string>) => (await http({ socketPath }, "/", { headers })).text;
  assert.is(await ask({ "x-forwarded-for": "10.0.0.9" }), "unix 10.0.0.9");
  assert.is(await ask({}), "unix ");
  server.close();
});

test.run();
