// S3 over https through a proxy of the environment.
import { mkdir, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { createServer } from "node:tls";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runScript } from "../helpers/run.ts";
import { makeBucket, needsS3, s3, s3Env } from "../helpers/s3.ts";
import { needsLocalhost, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { makeCertificate, startTunnelProxy } from "../helpers/tunnel.ts";

testUnless(test, needsS3 ?? needsLocalhost)(
  "S3 over https goes through the environment's proxy, past it where no_proxy says so, and its refusal is named",
  async () => {
    const bucket = await makeBucket();
    const { trust, ...pair } = await makeCertificate();
    const proxy = await startTunnelProxy();
    // TLS in front of the real server; signatures hold, since nothing inside is touched
    const sockets = new Set<Socket>();
    const front = createServer(pair, (client) => {
      const { hostname, port } = new URL(s3.url);
      const server = connect(Number(port), hostname);
      for (const socket of [client, server]) sockets.add(socket.on("error", () => {}));
      client.pipe(server).pipe(client);
    });
    await new Promise<void>((resolve) => front.listen(0, "127.0.0.1", resolve));
    const host = `localhost:${(front.address() as AddressInfo).port}`;
    const dir = tempDir();
    await mkdir(join(dir, "upload"));
    await writeFile(
      join(dir, "uploads.yml"),
      `to: { cdn: { s3: "s3://${bucket.name}/a", endpoint: "https://${host}" } }\n`,
    );
    const uploads = async (name: string, expect: number, more: Record<string, string> = {}) => {
      await writeFile(join(dir, "upload", name), name);
      const https_proxy = `http://u:secret@127.0.0.1:${proxy.port}`;
      const env = { ...s3Env(dir), ...trust, https_proxy, ...more };
      return await runScript("uploads", [dir], { env, expect });
    };
    try {
      await uploads("one", 0);
      const login = `Basic ${Buffer.from("u:secret").toString("base64")}`;
      // Deno looks for news of its own by the same proxy
      const ours = () => proxy.tunnels.filter((tunnel) => tunnel.startsWith("localhost:"));
      assert.equal([...new Set(ours())], [`${host} ${login}`]);
      const before = ours().length;
      await uploads("two", 0, { no_proxy: "localhost" });
      assert.is(ours().length, before);
      assert.equal([...(await bucket.list()).keys()], ["a/one", "a/two"]);
      proxy.refuse(407);
      const { stdout, stderr } = await uploads("three", 1);
      assert.match(stderr, /cdn: the proxy answered 407 Refused; check https_proxy/);
      assert.not.match(stdout + stderr, "secret");
    } finally {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => front.close(resolve));
      await proxy.stop();
      await bucket.remove();
    }
  },
);

test.run();
