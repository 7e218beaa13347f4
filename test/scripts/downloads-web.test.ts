// https, proxies and tunnels: what needs a certificate of its own.
import { readFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer as createHttps } from "node:https";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeSite } from "../helpers/downloads.ts";
import { runCommand } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const keys = tempDir("keys-");
await runCommand(
  [
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-days",
    "2",
    "-subj",
    "/CN=localhost",
    "-addext",
    "subjectAltName=DNS:localhost",
    "-addext",
    "basicConstraints=critical,CA:TRUE",
    "-keyout",
    join(keys, "key"),
    "-out",
    join(keys, "cert"),
  ],
  { expect: 0 },
);
const trust = { NODE_EXTRA_CA_CERTS: join(keys, "cert"), DENO_CERT: join(keys, "cert") };
const sockets = new Set<Socket>();

const secure = createHttps(
  { key: readFileSync(join(keys, "key")), cert: readFileSync(join(keys, "cert")) },
  (request, response) => {
    if (request.url === "/down")
      response.writeHead(302, { location: `http://127.0.0.1:${port(plain)}/f` }).end();
    else response.end(`secure ${request.headers.authorization ?? ""}`);
  },
);
const plain = createHttp((_, response) => response.end("plain"));
/** A proxy that only opens tunnels, and remembers them. */
const tunnels: string[] = [];
const proxy = createHttp((_, response) => response.writeHead(400).end());
proxy.on("connect", (request, client: Socket) => {
  tunnels.push(`${request.url} ${request.headers["proxy-authorization"] ?? ""}`);
  const server = connect(port(secure), "127.0.0.1", () => {
    client.write("HTTP/1.1 200 OK\r\n\r\n");
    client.pipe(server).pipe(client);
  });
  for (const socket of [client, server]) {
    sockets.add(socket);
    socket.on("error", () => {});
  }
});

function port(server: { address: () => unknown }): number {
  return (server.address() as { port: number }).port;
}

test.before(async () => {
  for (const server of [secure, plain, proxy])
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
test.after(async () => {
  for (const socket of sockets) socket.destroy();
  for (const server of [secure, plain, proxy]) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

test("https is fetched where the certificate is trusted, and refused where it is not", async () => {
  const site = makeSite();
  site.manifest(`https://localhost:${port(secure)}/f f`);
  await site.run(["--retries", "0"], { expect: 1 });
  assert.equal(site.files(), []);
  await site.run([], { expect: 0, env: trust });
  assert.is(site.read("f"), "secure ");
});

test("https goes through a proxy in a tunnel that the proxy cannot look into", async () => {
  const site = makeSite();
  site.manifest(
    ...["a", "b"].map((name) => `https://me:secret@localhost:${port(secure)}/${name} ${name}`),
  );
  const env = { ...trust, https_proxy: `http://u:p@127.0.0.1:${port(proxy)}` };
  await site.run(["--jobs", "1"], { expect: 0, env });
  assert.is(site.read("b"), `secure Basic ${Buffer.from("me:secret").toString("base64")}`);
  const login = `Basic ${Buffer.from("u:p").toString("base64")}`;
  assert.equal([...new Set(tunnels)], [`localhost:${port(secure)} ${login}`]);
});

test("a redirect from https to http is followed only to pinned content", async () => {
  const site = makeSite();
  const url = `https://localhost:${port(secure)}/down`;
  site.manifest(`${url} f`);
  assert.match((await site.run([], { expect: 1, env: trust })).stderr, /from https to http/);
  const pin = "a116c9d3f0aad3d34f9a2c3f23c7b4ca4d0c7b3c8d8b6c1e5d6d0f6b3fd6a7c1";
  site.manifest(`${url}#sha256-${pin} f`);
  assert.match(
    (await site.run(["--retries", "0"], { expect: 1, env: trust })).stderr,
    /not the pinned one/,
  );
});

test.run();
