// https, proxies and tunnels: what needs a certificate of its own.
import { createServer as createHttp } from "node:http";
import { createServer as createHttps } from "node:https";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { makeSite } from "../helpers/downloads.ts";
import { prepare } from "../helpers/prepare.ts";
import { needsLocalhost, testUnless } from "../helpers/skip.ts";
import { makeCertificate, startTunnelProxy } from "../helpers/tunnel.ts";

const localTest = testUnless(test, needsLocalhost);

const { key, cert, trust } = await makeCertificate();
const proxy = await startTunnelProxy();
const { tunnels } = proxy;

const secure = createHttps({ key, cert }, (request, response) => {
  if (request.url === "/down") response.writeHead(302, { location: `http://127.0.0.1:${port(plain)}/f` }).end();
  else response.end(`secure ${request.headers.authorization ?? ""}`);
});
const plain = createHttp((_, response) => response.end("plain"));
function port(server: { address: () => unknown }): number {
  return (server.address() as { port: number }).port;
}

prepare(test, async () => {
  for (const server of [secure, plain]) await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
test.after(async () => {
  await proxy.stop();
  for (const server of [secure, plain]) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

localTest("https is fetched where the certificate is trusted, and refused where it is not", async () => {
  const site = makeSite();
  site.manifest(`https://localhost:${port(secure)}/f f`);
  const { stderr } = await site.run(["--retries", "0"], { expect: 1 });
  assert.match(stderr, /its certificate is not trusted \(.*\); if a CA of your own signed it/);
  assert.match(stderr, /NODE_EXTRA_CA_CERTS/);
  assert.equal(site.files(), []);
  await site.run([], { expect: 0, env: trust });
  assert.is(site.read("f"), "secure ");
  site.manifest(`https://127.0.0.1:${port(secure)}/f other`);
  const other = await site.run(["--retries", "0"], { expect: 1, env: trust });
  assert.match(other.stderr, /its certificate is for another name; correct the URL/);
});

test("https goes through a proxy in a tunnel that the proxy cannot look into", async () => {
  const site = makeSite();
  site.manifest(...["a", "b"].map((name) => `https://me:secret@localhost:${port(secure)}/${name} ${name}`));
  const env = { ...trust, https_proxy: `http://u:p@127.0.0.1:${proxy.port}` };
  await site.run(["--jobs", "1"], { expect: 0, env });
  assert.is(site.read("b"), `secure Basic ${Buffer.from("me:secret").toString("base64")}`);
  const login = `Basic ${Buffer.from("u:p").toString("base64")}`;
  // Deno looks for news of its own by the same proxy
  const ours = tunnels.filter((tunnel) => tunnel.startsWith("localhost:"));
  assert.equal([...new Set(ours)], [`localhost:${port(secure)} ${login}`]);
  // an address has to be in the certificate, whatever the proxy's own name is
  site.manifest(`https://127.0.0.1:${port(secure)}/f other`);
  const other = await site.run(["--retries", "0"], {
    expect: 1,
    env: { ...env, https_proxy: `http://u%40:50%off@127.0.0.1:${proxy.port}` },
  });
  assert.match(other.stderr, /its certificate is for another name; correct the URL/);
});

localTest("http goes through a proxy that is itself spoken to by https", async () => {
  const site = makeSite();
  site.manifest("http://far.test/f f");
  const env = { ...trust, http_proxy: `https://localhost:${port(secure)}` };
  await site.run([], { expect: 0, env });
  assert.is(site.read("f"), "secure ");
});

localTest("a redirect from https to http is followed only to pinned content", async () => {
  const site = makeSite();
  const url = `https://localhost:${port(secure)}/down`;
  site.manifest(`${url} f`);
  assert.match((await site.run([], { expect: 1, env: trust })).stderr, /from https to http/);
  const pin = "a116c9d3f0aad3d34f9a2c3f23c7b4ca4d0c7b3c8d8b6c1e5d6d0f6b3fd6a7c1";
  site.manifest(`${url}#sha256-${pin} f`);
  assert.match((await site.run(["--retries", "0"], { expect: 1, env: trust })).stderr, /not the pinned one/);
});

test.run();
