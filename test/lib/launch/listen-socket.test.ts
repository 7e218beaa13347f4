import { statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { $ } from "../../../lib/exec/exec.ts";
import { makeBlocking, openListenSocket } from "../../../lib/launch/listen-socket.ts";
import { freePort } from "../../helpers/ports.ts";
import { runCommand } from "../../helpers/run.ts";
import { current } from "../../helpers/runtime.ts";
import { testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const missing = async (program: string) =>
  (await $({ nothrow: true })`command -v ${program}`).exitCode === 0 ? undefined : `no ${program}`;
const python = await missing("python3");
const compiler = await missing("cc");
const deno = await missing("deno");
const byHand = testUnless(test, current.kind === "deno" ? "Deno opens no socket for another program" : undefined);

const answer = "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n";
/** Programs that accept on fd 3 and do nothing else to it: they answer with two letters each. */
const programs: [name: string, missing: string | undefined, argv: () => Promise<string[]>][] = [
  [
    "Python's socket(fileno=3).accept()",
    python,
    async () => [
      "python3",
      "-c",
      `import socket
web = socket.socket(fileno=3)
while True:
    peer, _ = web.accept()
    peer.recv(4096)
    peer.sendall(b"${answer}py")
    peer.close()`,
    ],
  ],
  [
    "accept(2) in C",
    compiler,
    async () => {
      const folder = tempDir();
      writeFileSync(
        join(folder, "serve.c"),
        `#include <sys/socket.h>
#include <unistd.h>
int main(void) {
  for (;;) {
    char text[4096];
    int peer = accept(3, 0, 0);
    if (peer < 0) return 3;
    if (read(peer, text, sizeof text) > 0) write(peer, "${answer}cc", sizeof("${answer}cc") - 1);
    close(peer);
  }
}`,
      );
      await runCommand(["cc", "-w", "-o", join(folder, "serve"), join(folder, "serve.c")], { expect: 0 });
      return [join(folder, "serve")];
    },
  ],
  [
    "Node",
    await missing("node"),
    async () => ["node", "-e", 'require("http").createServer((_, r) => r.end("no")).listen({ fd: 3 })'],
  ],
  [
    "Deno",
    deno,
    async () => ["deno", "eval", 'import h from "node:http"; h.createServer((_, r) => r.end("de")).listen({ fd: 3 })'],
  ],
];

for (const host of ["127.0.0.1", "::1"]) {
  byHand(
    `a socket on ${host} is handed on listening: it blocks whoever accepts, and connections wait for the next one`,
    async () => {
      const port = await freePort();
      const socket = await openListenSocket({ host, port });
      const url = `http://${host.includes(":") ? `[${host}]` : host}:${port}/`;
      const get = async () => (await fetch(url, { headers: { connection: "close" } })).text();
      const stdio: ("ignore" | number)[] = ["ignore", "ignore", "ignore", socket.fd];
      const there = programs.filter(([, lacks]) => lacks === undefined);
      // nobody serves yet, and connections are taken all the same
      let waiting = get();
      // Node's and Deno's programs make it non-blocking: the one after them must not see that
      for (const [name, , argv] of [...there, ...there]) {
        await makeBlocking(socket);
        const words = await argv();
        const app = $({ stdio, nothrow: true, grace: 0 })`${words}`;
        const said = await Promise.race([waiting, (async () => `exit code ${(await app).exitCode}`)()]);
        assert.match(said, /^(?:py|cc|no|de)$/, name);
        assert.is(await get(), said, name);
        await app.kill();
        waiting = get();
      }
      socket.close();
      await waiting.catch(() => {});
    },
  );
}

byHand(
  "an address that this machine does not have, or that another process has, is refused in plain words",
  async () => {
    const refused = async (host: string, port: number) => {
      const socket = await openListenSocket({ host, port }).catch((error: Error) => error.message);
      return typeof socket === "string" ? socket : "opened";
    };
    assert.match(await refused("203.0.113.1", 1), /cannot bind 203\.0\.113\.1:1: EADDRNOTAVAIL/);
    assert.match(await refused("localhost", 1), /"localhost" is not an IP/);
    const port = await freePort();
    const first = await openListenSocket({ host: "127.0.0.1", port });
    assert.match(await refused("127.0.0.1", port), /EADDRINUSE; end the process that holds it, or name another/);
    first.close();
  },
);

byHand(
  "a Unix socket has its mode before anybody can connect, and replaces the file of a killed launchfit",
  async () => {
    const path = join(tempDir(), "socket");
    const rights = { mode: "640", group: `${process.getgid?.()}` };
    const socket = await openListenSocket({ path }, rights);
    assert.is(statSync(path).mode & 0o777, 0o640);
    await makeBlocking(socket);
    const serve = 'require("http").createServer((_, r) => r.end("served")).listen({ fd: 3 })';
    const app = $({ stdio: ["ignore", "ignore", "ignore", socket.fd], nothrow: true, grace: 0 })`node -e ${serve}`;
    const ask = `require("http").get({ socketPath: process.argv[1] }, (r) => r.pipe(process.stdout))`;
    const asked = await runCommand(["node", "-e", ask, path]);
    assert.is(asked.stdout, "served");
    const taken = () =>
      openListenSocket({ path }).then(
        () => "opened",
        (error: Error) => error.message,
      );
    assert.match(await taken(), "EADDRINUSE");
    await app.kill();
    socket.close();
    // what a killed process leaves
    const leave = `import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])`;
    if (python === undefined) await runCommand(["python3", "-c", leave, path], { expect: 0 });
    const next = await openListenSocket({ path }, rights);
    assert.is(statSync(path).mode & 0o777, 0o640);
    next.close();
    writeFileSync(path, "a file of somebody's");
    assert.match(await taken(), "EADDRINUSE");
  },
);

test.run();
