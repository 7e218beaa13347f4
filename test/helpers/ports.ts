import { createServer, type Server } from "node:net";

/**
 * Below the ports that a kernel gives to whoever asks for none in particular (on Linux 32768 and up): no connection and
 * no other server gets one of these by chance while nobody listens there.
 */
const first = 20_000;
const count = 10_000;

/**
 * A port that is free, and that no other test file is given while this one runs. Prefer port 0 where a server can tell its
 * own.
 */
export async function freePort(host = "127.0.0.1"): Promise<number> {
  for (;;) {
    const port = first + Math.floor(Math.random() * count);
    // who listens on the port that belongs to it has it
    const claim = await listen(port - count, "127.0.0.1");
    if (!claim) continue;
    claim.unref();
    const server = await listen(port, host);
    if (!server) continue;
    await new Promise<void>((resolve) => server.close(() => resolve()));
    return port;
  }
}

/** Undefined when the port is taken. */
function listen(port: number, host: string): Promise<Server | undefined> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve(undefined) : reject(error),
    );
    server.listen(port, host, () => resolve(server));
  });
}
