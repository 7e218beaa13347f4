import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "../../../lib/exec/exec.ts";
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
    const stdio: ("ignore" | number)[] = ["ignore", "ignore", "ignore", socket.fd];
    const serve = (name: string) => $({ stdio, nothrow: true, grace: 0 })`node -e ${app} ${name}`;
    const first = serve("first");
    const get = async () => (await fetch(url, { headers: { connection: "close" } })).text();
    assert.is(await waitFor(get, { what: "the first app" }), "first");
    await first.kill();
    // nobody serves now: the request waits in the backlog until the next app comes
    const waiting = get();
    const second = serve("second");
    assert.is(await waiting, "second");
    await second.kill();
    socket.close();
  });
}

test("an address that this machine does not have is refused in plain words", () => {
  assert.throws(
    () => openListenSocket({ host: "203.0.113.1", port: 1 }),
    /cannot bind 203\.0\.113\.1:1: .*; end the process that holds it, or name another/,
  );
  assert.throws(() => openListenSocket({ host: "localhost", port: 1 }), /"localhost" is not an IP/);
});

test.run();
