import { test } from "uvu";
import * as assert from "uvu/assert";
import { start } from "../../../lib/exec/exec.ts";
import { openListenSocket } from "../../../lib/launch/listen-socket.ts";
import { freePort } from "../../helpers/ports.ts";
import { waitFor } from "../../helpers/wait.ts";

const app = `
  const answer = process.argv[1];
  require("http").createServer((_, response) => response.end(answer)).listen({ fd: 3 });
`;

for (const host of ["127.0.0.1", "::1"]) {
  test(`a socket on ${host} is handed on as fd 3, and outlives the app that served it`, async () => {
    const port = await freePort();
    const socket = openListenSocket({ host, port });
    const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}/`;
    const serve = (name: string) => start(["node", "-e", app, name], { fd3: socket.fd });
    const first = serve("first");
    const get = async () => (await fetch(url, { headers: { connection: "close" } })).text();
    assert.is(await waitFor(get, { what: "the first app" }), "first");
    await first.end(0);
    // nobody serves now: the request waits in the backlog until the next app comes
    const waiting = get();
    const second = serve("second");
    assert.is(await waiting, "second");
    await second.end(0);
    socket.close();
  });
}

test("an address that this machine does not have is refused in plain words", () => {
  assert.throws(
    () => openListenSocket({ host: "203.0.113.1", port: 1 }),
    /cannot bind 203\.0\.113\.1:1: .*; end who holds it, or name another/,
  );
  assert.throws(() => openListenSocket({ host: "localhost", port: 1 }), /"localhost" is no IP/);
});

test.run();
