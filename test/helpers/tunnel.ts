// A certificate of one's own, and a proxy that opens tunnels (CONNECT) and remembers them.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { join } from "node:path";
import { runCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

export type Certificate = { key: Buffer; cert: Buffer; trust: Record<string, string> };

/** A self-signed certificate for `localhost`, and the environment that makes a script trust it. */
export async function makeCertificate(): Promise<Certificate> {
  const dir = tempDir("keys-");
  const [key, cert] = [join(dir, "key"), join(dir, "cert")];
  await runCommand(
    [
      ...["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
      ...["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
      ...["-addext", "basicConstraints=critical,CA:TRUE", "-keyout", key, "-out", cert],
    ],
    { expect: 0 },
  );
  const trust = { NODE_EXTRA_CA_CERTS: cert, DENO_CERT: cert };
  return { key: readFileSync(key), cert: readFileSync(cert), trust };
}

export type TunnelProxy = {
  port: number;
  /** `host:port`, and the login that came with it. */
  tunnels: string[];
  /** Refuse every tunnel from now on with this status; undefined: open them. */
  refuse: (status: number | undefined) => void;
  stop: () => Promise<void>;
};

/** Starts the proxy; `localhost` is 127.0.0.1 for it. */
export async function startTunnelProxy(): Promise<TunnelProxy> {
  const tunnels: string[] = [];
  const sockets = new Set<Socket>();
  let refused: number | undefined;
  const proxy = createServer((_, response) => response.writeHead(400).end());
  proxy.on("connect", (request, client: Socket) => {
    sockets.add(client.on("error", () => {}));
    if (refused !== undefined) {
      client.end(`HTTP/1.1 ${refused} Refused\r\n\r\n`);
      return;
    }
    tunnels.push(`${request.url} ${request.headers["proxy-authorization"] ?? ""}`);
    const port = Number(/:(\d+)$/.exec(request.url ?? "")?.[1]);
    const server = connect(port, "127.0.0.1", () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      client.pipe(server).pipe(client);
    });
    sockets.add(server.on("error", () => {}));
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  return {
    port: (proxy.address() as AddressInfo).port,
    tunnels,
    refuse: (status) => void (refused = status),
    async stop() {
      for (const socket of sockets) socket.destroy();
      proxy.closeAllConnections();
      await new Promise((resolve) => proxy.close(resolve));
    },
  };
}
